"""What can be set: the sizes of a set of networks, and how a video is sampled. Values only; presets live in configs/."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from itjax.errors import UserError
from itjax.models.audio_adapter import AudioAdapterSizes
from itjax.models.clip import ClipSizes
from itjax.models.dit_block import DiTSizes
from itjax.models.umt5 import Umt5Sizes
from itjax.models.vae import VaeSizes
from itjax.models.wav2vec2 import Wav2Vec2Sizes

STRATEGIES = ("soft", "i2v", "fl2v")  # of `Sampler`: InfiniteTalk's own, and two that its paper argues against

SizeTable = Mapping[float, tuple[int, int]]  # height/width ratio: (height, width) in pixels


@dataclass(frozen=True)
class Networks:
    """Sizes of the five networks. The defaults are the published ones."""

    dit: DiTSizes = field(default_factory=DiTSizes)
    vae: VaeSizes = field(default_factory=VaeSizes)
    umt5: Umt5Sizes = field(default_factory=Umt5Sizes)
    clip: ClipSizes = field(default_factory=ClipSizes)
    wav2vec2: Wav2Vec2Sizes = field(default_factory=Wav2Vec2Sizes)


@dataclass(frozen=True)
class PictureSize:
    """One choice of `--size`: its table of picture sizes, its default shift, and TeaCache's polynomial for it."""

    table: SizeTable
    shift: float
    teacache: tuple[float, ...]


@dataclass(frozen=True)
class Preset:
    """A set of networks with the picture sizes it is used at."""

    name: str
    networks: Networks
    sizes: dict[str, PictureSize]


def to_json(preset: Preset) -> dict:
    """The preset as JSON can hold it; `preset_from_json` is the way back."""
    return dataclasses.asdict(preset)


def preset_from_json(content: dict) -> Preset:
    """Raises KeyError or TypeError where `content` is not what `to_json` gave."""
    of = content["networks"]
    audio = AudioAdapterSizes(**of["dit"]["audio"])
    networks = Networks(
        dit=DiTSizes(**_tuples(of["dit"]) | {"audio": audio}),
        vae=VaeSizes(**_tuples(of["vae"])),
        umt5=Umt5Sizes(**of["umt5"]),
        clip=ClipSizes(**of["clip"]),
        wav2vec2=Wav2Vec2Sizes(**_tuples(of["wav2vec2"])),
    )
    sizes = {
        name: PictureSize({float(r): tuple(s) for r, s in size["table"].items()}, size["shift"], tuple(size["teacache"]))
        for name, size in content["sizes"].items()
    }
    return Preset(content["name"], networks, sizes)


def _tuples(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}


@dataclass(frozen=True)
class Apg:
    """Adaptive projected guidance (arXiv 2410.02416)."""

    momentum: float = -0.75
    norm_threshold: float = 55.0


@dataclass(frozen=True)
class Sampler:
    """How each chunk is sampled. The defaults are the official command line's at 480p.

    `strategy`: "soft" shows each chunk the source's frame at its start, and goes on from `motion_frames` generated ones.
    "i2v" shows it the last generated frame and nothing else; "fl2v" makes it between the source's frames at its start and
    its end, from no generated frame. In both the chunk's first frame alone is held, and chunks share that frame.

    Raises UserError for settings that no chunk can be made of.
    """

    frame_num: int = 81
    motion_frames: int = 9
    steps: int = 40
    shift: float = 7.0
    text_scale: float = 5.0
    audio_scale: float = 4.0
    color_strength: float = 1.0
    apg: Apg | None = None
    teacache_threshold: float | None = None
    strategy: str = "soft"

    def __post_init__(self):
        for flag, value, least in (("--frame_num", self.frame_num, 5), ("--motion_frame", self.motion_frames, 1)):
            if value < least or value % 4 != 1:
                raise UserError(f"{flag} {value}: must be 4n+1 and at least {least}, e.g. {max(least, value // 4 * 4 + 1)}")
        if self.strategy not in STRATEGIES:
            raise UserError(f"--strategy {self.strategy}: one of {', '.join(STRATEGIES)}")
        if self.strategy != "soft" and self.motion_frames != 1:
            raise UserError(
                f"--motion_frame {self.motion_frames}: with --strategy {self.strategy} a chunk starts from one frame; leave "
                "--motion_frame out, or give 1"
            )
        if self.motion_frames >= self.frame_num:
            raise UserError(
                f"--motion_frame {self.motion_frames} leaves no new frame in chunks of --frame_num {self.frame_num}"
            )
        if self.steps < 1:
            raise UserError(f"--sample_steps {self.steps}: at least 1")
        if not 0 < self.shift < math.inf:
            raise UserError(f"--sample_shift {self.shift}: must be a number above 0")
        for flag, scale in (("text", self.text_scale), ("audio", self.audio_scale)):
            if not math.isfinite(scale):
                raise UserError(f"--sample_{flag}_guide_scale {scale}: must be a number")
        if not 0 <= self.color_strength <= 1:
            raise UserError(f"--color_correction_strength {self.color_strength}: must be within 0..1")

    @property
    def new_frames(self) -> int:
        """Frames that each later chunk adds."""
        return self.frame_num - self.motion_frames

    @property
    def context_latents(self) -> int:
        return 1 + (self.motion_frames - 1) // 4

    @property
    def num_latents(self) -> int:
        return 1 + (self.frame_num - 1) // 4

    @property
    def branches(self) -> int:
        """Forwards a step: with text scale 1 the prompt needs no opposite."""
        return 2 if self.text_scale == 1 else 3
