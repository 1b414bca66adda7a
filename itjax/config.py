"""Configuration: network sizes and sampling settings. Values only; presets live in configs/."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from itjax.errors import SettingError

STRATEGIES = ("soft", "i2v", "fl2v")  # of `Sampler`: InfiniteTalk's own and the two baselines of its paper

MAX_LATENTS = 1024  # per chunk: as many as the official code has rotary positions for
MAX_STEPS = 1000  # as many as there are noise levels
MAX_SCALE = 1000.0  # of guidance: beyond, float32 overflows after a few steps
SHIFTS = (1e-3, 1e3)  # beyond, all steps have the same time in float32

SizeTable = Mapping[float, tuple[int, int]]  # height/width ratio: (height, width) in pixels


@dataclass(frozen=True)
class AudioAdapterSizes:
    """Sizes of the audio adapter. The defaults are the published ones."""

    window: int = 5
    layers: int = 12
    channels: int = 768
    intermediate_dim: int = 512
    output_dim: int = 768
    context_tokens: int = 32
    frames_per_latent: int = 4


@dataclass(frozen=True)
class DiTSizes:
    """Sizes of the DiT and its audio adapter. The defaults are InfiniteTalk's (Wan2.1-I2V-14B)."""

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
    """Sizes of the VAE. The defaults are Wan2.1's."""

    dim: int = 96
    z_dim: int = 16
    multipliers: tuple[int, ...] = (1, 2, 4, 4)
    num_res_blocks: int = 2
    time_downsample: tuple[bool, ...] = (False, True, True)

    @property
    def spatial_stride(self) -> int:
        """Pixels per latent cell in height and width (8)."""
        return 2 ** (len(self.multipliers) - 1)

    @property
    def time_stride(self) -> int:
        """Pixel frames per latent frame (4). The first latent frame covers a single pixel frame."""
        return 2 ** sum(self.time_downsample)


@dataclass(frozen=True)
class Umt5Sizes:
    """Sizes of the UMT5-XXL encoder."""

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
    """Sizes of ViT-H/14 at 224 pixels. `layers` counts the checkpoint's layers, the last of which is never applied."""

    image: int = 224
    patch: int = 14
    width: int = 1280
    layers: int = 32
    heads: int = 16
    mlp: int = 5120

    @property
    def applied_layers(self) -> int:
        """Number of layers that are applied (31): all but the last."""
        return self.layers - 1

    @property
    def tokens(self) -> int:
        """Number of tokens (257): the class token and the patches."""
        return 1 + (self.image // self.patch) ** 2


@dataclass(frozen=True)
class Wav2Vec2Sizes:
    """Sizes of wav2vec2-base (section 4.2 of the paper), shared by chinese-wav2vec2-base."""

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
        """Stride of the convolutions in samples (320)."""
        return math.prod(self.conv_strides)

    @property
    def receptive_field(self) -> int:
        """Receptive field of one convolution step in samples (400)."""
        return 1 + sum((k - 1) * math.prod(self.conv_strides[:i]) for i, k in enumerate(self.conv_kernels))

    def steps(self, samples: int) -> int:
        """Number of convolution steps for `samples` samples."""
        return max(0, (samples - self.receptive_field) // self.stride + 1)


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
    """One choice of `--size`: picture sizes by aspect ratio, default timestep shift, TeaCache's polynomial coefficients."""

    table: SizeTable
    shift: float
    teacache: tuple[float, ...]


def _check_range(name: str, value: int | float, least: int | float, most: int | float) -> None:
    """Raises SettingError unless `value` is a number from `least` to `most`: with others, frames become NaN."""
    if not least <= value <= most:  # NaN is in no range
        raise SettingError(f"{{{name}}} {value}: must be within {least:g}..{most:g}")


@dataclass(frozen=True)
class Apg:
    """Adaptive projected guidance (arXiv 2410.02416).

    Attributes:
        momentum: Weight of the earlier steps' guidance, from -1 to 1.
        norm_threshold: Largest norm of the guidance; 0: no limit.

    Raises:
        SettingError: If a value is out of range.
    """

    momentum: float = -0.75
    norm_threshold: float = 55.0

    def __post_init__(self):
        _check_range("apg.momentum", self.momentum, -1, 1)  # a larger one adds up to infinity
        _check_range("apg.norm_threshold", self.norm_threshold, 0, 1e6)


@dataclass(frozen=True)
class Sampler:
    """Sampling settings. The defaults are those of the official command line at 480p.

    Attributes:
        frame_num: Frames per chunk, 4n+1.
        motion_frames: Last frames of a chunk that the next one continues from (its context), 4n+1.
        steps: Euler steps per chunk.
        shift: Timestep shift; larger values spend more steps at high noise. None: that of the picture size.
        text_scale: Guidance scale of the prompt. 1 disables text guidance and saves one forward pass per step.
        audio_scale: Guidance scale of the speech.
        color_strength: Colour correction towards the reference, from 0 (off) to 1 (full).
        apg: Adaptive projected guidance; None: classifier-free guidance.
        teacache_threshold: Accumulated change from which TeaCache runs the blocks again; None: TeaCache is off.
        strategy: Which frames condition a chunk. "soft": the source frame at its start as the reference, and
            `motion_frames` generated frames as the context. "i2v": the last generated frame only. "fl2v": the source frames
            at its start and end, no generated frame. "i2v" and "fl2v" pin the chunk's first frame only, and consecutive
            chunks share that frame.

    Raises:
        SettingError: If no chunk can be generated with these settings.
    """

    frame_num: int = 81
    motion_frames: int = 9
    steps: int = 40
    shift: float | None = None
    text_scale: float = 5.0
    audio_scale: float = 4.0
    color_strength: float = 1.0
    apg: Apg | None = None
    teacache_threshold: float | None = None
    strategy: str = "soft"

    def __post_init__(self):
        for name, value, least in (("frame_num", self.frame_num, 5), ("motion_frames", self.motion_frames, 1)):
            if value < least or value % 4 != 1:
                text = f"must be 4n+1 and at least {least}, e.g. {max(least, value // 4 * 4 + 1)}"
                raise SettingError(f"{{{name}}} {value}: {text}")
        if self.num_latents > MAX_LATENTS:
            raise SettingError(
                f"{{frame_num}} {self.frame_num}: a chunk has at most {4 * MAX_LATENTS - 3} frames; a longer video is made "
                "of several chunks"
            )
        if self.strategy not in STRATEGIES:
            raise SettingError(f"{{strategy}} {self.strategy}: must be one of {', '.join(STRATEGIES)}")
        if self.strategy != "soft" and self.motion_frames != 1:
            raise SettingError(
                f"{{motion_frames}} {self.motion_frames}: with {{strategy}} {self.strategy} a chunk starts from one frame; "
                "set {motion_frames} to 1"
            )
        if self.motion_frames >= self.frame_num:
            raise SettingError(
                f"{{motion_frames}} {self.motion_frames} leaves no new frame in chunks of {{frame_num}} {self.frame_num}"
            )
        _check_range("steps", self.steps, 1, MAX_STEPS)
        if self.shift is not None:
            _check_range("shift", self.shift, *SHIFTS)
        _check_range("text_scale", self.text_scale, -MAX_SCALE, MAX_SCALE)
        _check_range("audio_scale", self.audio_scale, -MAX_SCALE, MAX_SCALE)
        _check_range("color_strength", self.color_strength, 0, 1)
        if self.teacache_threshold is not None:
            _check_range("teacache_threshold", self.teacache_threshold, 0, 1e6)

    @property
    def new_frames(self) -> int:
        """New frames per chunk after the first."""
        return self.frame_num - self.motion_frames

    @property
    def context_latents(self) -> int:
        """Number of latent frames of the `motion_frames`: the first covers one frame, the others four each."""
        return 1 + (self.motion_frames - 1) // 4

    @property
    def num_latents(self) -> int:
        """Number of latent frames per chunk."""
        return 1 + (self.frame_num - 1) // 4

    @property
    def branches(self) -> int:
        """Guidance branches (forward passes) per step: text scale 1 needs no negative prompt."""
        return 2 if self.text_scale == 1 else 3

    def shift_at(self, size: PictureSize) -> float:
        """The timestep shift at a picture size."""
        return size.shift if self.shift is None else self.shift


@dataclass(frozen=True)
class Preset:
    """Network sizes, the picture sizes they are used with, and the default sampling settings, whose shift is None."""

    name: str
    networks: Networks
    sizes: dict[str, PictureSize]
    sampler: Sampler = Sampler()


def to_json(preset: Preset) -> dict:
    """The preset as JSON-serialisable values; `preset_json.preset_from_json` is the inverse."""
    return dataclasses.asdict(preset)
