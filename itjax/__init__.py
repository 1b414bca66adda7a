"""itjax: InfiniteTalk in JAX and Flax, for TPU and GPU.

weights = itjax.open_weights("weights/itjax")
request = itjax.Request("A woman is talking", "me.jpg", {"person1": "hello.wav"})
video = itjax.dub(request, itjax.Settings("hello.mp4"), weights, progress=itjax.Terminal())
"""

import pkgutil
from typing import TYPE_CHECKING, Any

from itjax.version import __version__ as __version__

if TYPE_CHECKING:
    from itjax.config import Apg as Apg
    from itjax.config import Sampler as Sampler
    from itjax.errors import OutputError as OutputError
    from itjax.errors import UserError as UserError
    from itjax.pipeline.dub import dub as dub
    from itjax.pipeline.request import Request as Request
    from itjax.pipeline.settings import Settings as Settings
    from itjax.progress import Progress as Progress
    from itjax.terminal import Terminal as Terminal
    from itjax.training.result import open_weights as open_weights
    from itjax.weights.lora import LoraFile as LoraFile

_PUBLIC = {
    "Apg": "itjax.config",
    "LoraFile": "itjax.weights.lora",
    "OutputError": "itjax.errors",
    "Progress": "itjax.progress",
    "Request": "itjax.pipeline.request",
    "Sampler": "itjax.config",
    "Settings": "itjax.pipeline.settings",
    "Terminal": "itjax.terminal",
    "UserError": "itjax.errors",
    "dub": "itjax.pipeline.dub",
    "open_weights": "itjax.training.result",
}


def __getattr__(name: str) -> Any:
    # imported on first use, so that `import itjax` does not have to import JAX
    if name not in _PUBLIC:
        raise AttributeError(f"module 'itjax' has no attribute {name!r}")
    return pkgutil.resolve_name(f"{_PUBLIC[name]}:{name}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_PUBLIC])
