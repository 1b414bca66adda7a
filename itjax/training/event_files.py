"""What writes TensorBoard's event files, from tensorboardX, without torch.

tensorboardX imports torch wherever it is installed, for functions that are not used here: almost half of the time in which
`train.py` starts.
"""

import sys

_unloaded = "torch" not in sys.modules
if _unloaded:
    sys.modules["torch"] = None  # type: ignore[assignment]  # an import of it fails, as where it is not installed
try:
    # the writer without tensorboardX's thread, which dies silently on a full disk: the run would block on its full queue
    from tensorboardX.event_file_writer import EventsWriter
    from tensorboardX.proto.event_pb2 import Event, SessionLog
    from tensorboardX.proto.summary_pb2 import Summary
finally:
    if _unloaded:
        del sys.modules["torch"]

__all__ = ["Event", "EventsWriter", "SessionLog", "Summary"]
