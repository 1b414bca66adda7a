"""The weights of the preset small, which come with the package: `weights` is a checkpoint like any other.

`weights/MODEL_CARD.md` says what they were trained on, and what they can and cannot do.
"""

from importlib.resources import files
from pathlib import Path

from itjax.errors import UserError

PRESET = "small"


def weights_folder() -> Path:
    """The checkpoint's folder in this installation.

    Raises:
        UserError: If this installation has none.
    """
    folder = Path(str(files(__name__) / "weights"))
    if not (folder / "sizes.json").is_file():
        raise UserError(
            f"--preset {PRESET}: this installation of itjax lacks the small model's weights ({folder}); install the package "
            "again, from a release or a clone that has this folder, or give --checkpoint DIR"
        )
    return folder
