"""What can be set: the sizes of a set of networks, and how a video is sampled. Values only; presets live in configs/."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from itjax.errors import UserError

STRATEGIES = ("soft", "i2v", "fl2v")  # of `Sampler`: InfiniteTalk's own, and two that its paper argues against

SizeTable = Mapping[float, tuple[int, int]]  # height/width ratio: (height, width) in pixels


@dataclass(frozen=True)
class AudioAdapterSizes:
    """Sizes of the adapter; the defaults are the published ones."""

    window: int = 5
    layers: int = 12
    channels: int = 768
    intermediate_dim: int = 512
    output_dim: int = 768
    context_tokens: int = 32
    frames_per_latent: int = 4


@dataclass(frozen=True)
class DiTSizes:
    """Sizes of the DiT with its audio adapter; the defaults are InfiniteTalk's (Wan2.1-I2V-14B)."""

    dim: int = 5120
    ffn_dim: int = 13824
    num_heads: int = 40
    num_layers: int = 40
    in_dim: int = 36
    out_dim: int = 16
    freq_dim: int = 256
    text_dim: int = 4096
    text_len: int = 512
    clip_dim: int = 1280
    patch_size: tuple[int, int, int] = (1, 2, 2)
    eps: float = 1e-6
    audio: AudioAdapterSizes = field(default_factory=AudioAdapterSizes)

    @property
    def head_dim(self) -> int:
        """Width of one attention head (128)."""
        return self.dim // self.num_heads


@dataclass(frozen=True)
class VaeSizes:
    """Sizes of the VAE; the defaults are Wan2.1's."""

    dim: int = 96
    z_dim: int = 16
    multipliers: tuple[int, ...] = (1, 2, 4, 4)
    num_res_blocks: int = 2
    time_downsample: tuple[bool, ...] = (False, True, True)

    @property
    def spatial_stride(self) -> int:
        """Pixels to a latent cell, in height and in width (8)."""
        return 2 ** (len(self.multipliers) - 1)

    @property
    def time_stride(self) -> int:
        """Pixel frames to a latent frame (4); the first latent frame stands for one alone."""
        return 2 ** sum(self.time_downsample)


@dataclass(frozen=True)
class Umt5Sizes:
    """The sizes of UMT5-XXL's encoder."""

    vocabulary: int = 256384
    width: int = 4096
    attention_width: int = 4096
    mlp: int = 10240
    layers: int = 24
    heads: int = 64
    buckets: int = 32
    max_distance: int = 128


@dataclass(frozen=True)
class ClipSizes:
    """The sizes of ViT-H/14 at 224 pixels. `layers` counts those of the checkpoint; the last one is never applied."""

    image: int = 224
    patch: int = 14
    width: int = 1280
    layers: int = 32
    heads: int = 16
    mlp: int = 5120

    @property
    def applied_layers(self) -> int:
        """Layers that are applied (31): all but the last one."""
        return self.layers - 1

    @property
    def tokens(self) -> int:
        """The class token and the patches (257)."""
        return 1 + (self.image // self.patch) ** 2


@dataclass(frozen=True)
class Wav2Vec2Sizes:
    """The sizes of wav2vec2-base (section 4.2 of the paper), which chinese-wav2vec2-base shares."""

    conv_width: int = 512
    conv_kernels: tuple[int, ...] = (10, 3, 3, 3, 3, 2, 2)
    conv_strides: tuple[int, ...] = (5, 2, 2, 2, 2, 2, 2)
    width: int = 768
    layers: int = 12
    heads: int = 12
    mlp: int = 3072
    position_kernel: int = 128
    position_groups: int = 16

    @property
    def stride(self) -> int:
        """Samples from one convolution step to the next (320)."""
        return math.prod(self.conv_strides)

    @property
    def reach(self) -> int:
        """Samples that one convolution step sees (400)."""
        return 1 + sum((k - 1) * math.prod(self.conv_strides[:i]) for i, k in enumerate(self.conv_kernels))

    def steps(self, samples: int) -> int:
        """Convolution steps that so many samples give."""
        return max(0, (samples - self.reach) // self.stride + 1)


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
    """The preset of which `to_json` made `content`.

    Raises:
        KeyError, TypeError, AttributeError, ValueError: where `content` is not what `to_json` gave.
    """
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

    Raises:
        UserError: for settings that no chunk can be made of.
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
        """Latent frames that the `motion_frames` are: the first stands for one frame, the others for four."""
        return 1 + (self.motion_frames - 1) // 4

    @property
    def num_latents(self) -> int:
        """Latent frames of a chunk."""
        return 1 + (self.frame_num - 1) // 4

    @property
    def branches(self) -> int:
        """Forwards a step: with text scale 1 the prompt needs no opposite."""
        return 2 if self.text_scale == 1 else 3
