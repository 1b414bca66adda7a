"""What can be set of a training run. Values only, each checked where it is made; presets live in configs/training.py."""

import math
from dataclasses import dataclass, field

from itjax.config import Sampler
from itjax.errors import UserError
from itjax.models.dit import REMAT

STRATEGIES = ("M0", "M1", "M2", "M3", "I2V", "FL2V")
DTYPES = ("float32", "bfloat16")


def _check(holds: bool, name: str, value: object, must: str) -> None:
    if not holds:
        raise UserError(f"{name} {value}: must be {must}")


@dataclass(frozen=True)
class References:
    """Where the reference picture comes from (InfiniteTalk, arXiv 2508.14033, section 3.4; facts in the README).

    M0: any frame of the chunk. M1: its first or last. M2: a frame more than `far_seconds` away from it. M3: a frame
    outside of it, within `near_seconds` before or after. I2V: its own first frame, with a context of one frame. FL2V: its
    first and last frame together, with a context of one frame.
    """

    strategy: str = "M3"
    near_seconds: float = 1.0
    far_seconds: float = 5.0

    def __post_init__(self):
        _check(self.strategy in STRATEGIES, "references.strategy", self.strategy, f"one of {', '.join(STRATEGIES)}")
        _check(self.near_seconds > 0, "references.near-seconds", self.near_seconds, "above 0")
        _check(self.far_seconds >= 0, "references.far-seconds", self.far_seconds, "at least 0")

    @property
    def baseline(self) -> bool:
        """Whether it is one that the paper argues against: those have a context of one frame."""
        return self.strategy in ("I2V", "FL2V")


@dataclass(frozen=True)
class Dropout:
    """Shares of the examples that go without a condition.

    Text becomes the empty prompt's states, audio zeros before the adapter (the silence of guidance), `both` of them at once
    besides, the reference's CLIP tokens zeros, and the context of earlier frames none, as in a first chunk.
    """

    text: float = 0.1
    audio: float = 0.1
    both: float = 0.05
    image: float = 0.1
    context: float = 0.2

    def __post_init__(self):
        for name in ("text", "audio", "both", "image", "context"):
            _check(0 <= getattr(self, name) <= 1, f"dropout.{name}", getattr(self, name), "a share within 0..1")


@dataclass(frozen=True)
class TimeLaw:
    """The law of the time τ in 0..1 that an example is seen at.

    It is "uniform", or "logit-normal" with `mean` and `std` of the logit (arXiv 2403.03206, section 3.1); then shifted as
    sampling's is: τ → shift·τ / (1 + (shift - 1)·τ).
    """

    law: str = "logit-normal"
    mean: float = 0.0
    std: float = 1.0
    shift: float = 11.0

    def __post_init__(self):
        _check(self.law in ("uniform", "logit-normal"), "times.law", self.law, "uniform or logit-normal")
        _check(math.isfinite(self.mean), "times.mean", self.mean, "a number")
        _check(0 < self.std < math.inf, "times.std", self.std, "a number above 0")
        _check(0 < self.shift < math.inf, "times.shift", self.shift, "a number above 0")


@dataclass(frozen=True)
class Trained:
    """What of the DiT trains.

    These are the `parts`: "audio" (adapter, audio attention and its norm, the published choice), "lora" (low-rank updates of
    the layers of the blocks whose names match one of `lora_layers`, as shell patterns) or "full".

    With `new_audio`, audio parts begin anew instead of from the checkpoint: random, but for their output, which is zero.
    """

    parts: str = "audio"
    lora_rank: int = 128
    lora_layers: tuple[str, ...] = ("q", "k", "v", "o", "cross_q", "cross_k", "cross_v", "cross_o", "ffn_in", "ffn_out")
    new_audio: bool = False

    def __post_init__(self):
        _check(self.parts in ("audio", "lora", "full"), "trained.parts", self.parts, "audio, lora or full")
        _check(self.lora_rank >= 1, "trained.lora-rank", self.lora_rank, "at least 1")
        _check(len(self.lora_layers) > 0, "trained.lora-layers", self.lora_layers, "at least one name")
        _check(not (self.new_audio and self.parts == "lora"), "trained.new-audio", True, "off where only LoRA trains")


@dataclass(frozen=True)
class Optimizer:
    """AdamW (arXiv 1711.05101), with a linear warm-up to a constant rate and clipping by the global norm.

    The decay of the averaged weights is `ema`, 0 for none.
    """

    learning_rate: float = 2e-5
    warmup_steps: int = 500
    weight_decay: float = 0.01
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    clip_norm: float = 1.0
    ema: float = 0.999

    def __post_init__(self):
        _check(0 < self.learning_rate < math.inf, "optimizer.learning-rate", self.learning_rate, "a number above 0")
        _check(self.warmup_steps >= 0, "optimizer.warmup-steps", self.warmup_steps, "at least 0")
        _check(self.weight_decay >= 0, "optimizer.weight-decay", self.weight_decay, "at least 0")
        for name in ("beta1", "beta2", "ema"):
            _check(0 <= getattr(self, name) < 1, f"optimizer.{name}", getattr(self, name), "within 0..1, below 1")
        _check(self.epsilon > 0, "optimizer.epsilon", self.epsilon, "above 0")
        _check(self.clip_norm > 0, "optimizer.clip-norm", self.clip_norm, "above 0")


@dataclass(frozen=True)
class Mesh:
    """How the devices are shared out.

    There are `ulysses` ways over attention heads times `context` ways over tokens for each example, the rest over the batch.
    Parameters and optimizer state are split over all of them in any case.
    """

    ulysses: int = 1
    context: int = 1

    def __post_init__(self):
        _check(self.ulysses >= 1, "mesh.ulysses", self.ulysses, "at least 1")
        _check(self.context >= 1, "mesh.context", self.context, "at least 1")


@dataclass(frozen=True)
class Processes:
    """The processes of one run.

    One; or those that the `cluster` tells of (TPU pods, Slurm, Open MPI, Kubernetes); or `count` of them, of which this is
    number `index`, which meet at the address `coordinator` ("host:port").
    """

    cluster: bool = False
    coordinator: str | None = None
    count: int = 0
    index: int = 0

    def __post_init__(self):
        _check(self.count >= 0, "processes.count", self.count, "at least 0")
        _check(0 <= self.index < max(1, self.count), "processes.index", self.index, "below processes.count")
        given = self.coordinator is not None
        _check(given == (self.count > 0), "processes.coordinator", self.coordinator, "given together with processes.count")
        _check(not (self.cluster and given), "processes.cluster", True, "off where a coordinator is given")


@dataclass(frozen=True)
class Reports:
    """What is reported every so many steps (0: never).

    A line of metrics; the loss of `validation_clips` held-out clips, at fixed τ and noise; a video sampled by the chunk loop
    for one of them, beside its source, of at most `sample_seconds`.
    """

    log_every: int = 10
    validate_every: int = 500
    validation_clips: int = 8
    sample_every: int = 1000
    sample_seconds: float = 10.0
    sampler: Sampler = field(default_factory=lambda: Sampler(steps=20))

    def __post_init__(self):
        for name in ("log_every", "validate_every", "sample_every", "validation_clips"):
            _check(getattr(self, name) >= 0, f"reports.{name.replace('_', '-')}", getattr(self, name), "at least 0")
        _check(self.sample_seconds > 0, "reports.sample-seconds", self.sample_seconds, "above 0")


@dataclass(frozen=True)
class Checkpoints:
    """When checkpoints are written, how many are kept, and where.

    One every `every` steps and at the end; the last `keep` are kept, and besides every `keep_every`-th step's (0: none).
    They lie in the run's folder, or in `folder`: another one, or an address that etils.epath knows, such as
    gs://bucket/run.
    """

    every: int = 500
    keep: int = 2
    keep_every: int = 0
    folder: str = ""

    def __post_init__(self):
        _check(self.every >= 1, "checkpoints.every", self.every, "at least 1")
        _check(self.keep >= 1, "checkpoints.keep", self.keep, "at least 1")
        _check(self.keep_every >= 0, "checkpoints.keep-every", self.keep_every, "at least 0")


@dataclass(frozen=True)
class Training:
    """A training run.

    Needed are `data`, the prepared dataset; `checkpoint`, the converted checkpoint that it starts from; and `run`, the
    folder it writes, and goes on from where that exists. With `made_up`, the first two are random numbers of the tiny
    networks, made in the run's folder. `batch`: examples of a step, over all devices; their gradients are summed over
    `accumulation` parts of it, one after the other. `region_weight`: how many times as much the loss counts where the
    dataset's regions are (a face, a mouth) as elsewhere.
    """

    data: str = ""
    checkpoint: str = ""
    run: str = ""
    made_up: bool = False
    steps: int = 10000
    batch: int = 32
    accumulation: int = 1
    motion_frames: int = 9
    region_weight: float = 1.0
    seed: int = 0
    dtype: str = "bfloat16"
    remat: str = "full"
    references: References = field(default_factory=References)
    dropout: Dropout = field(default_factory=Dropout)
    times: TimeLaw = field(default_factory=TimeLaw)
    trained: Trained = field(default_factory=Trained)
    optimizer: Optimizer = field(default_factory=Optimizer)
    mesh: Mesh = field(default_factory=Mesh)
    processes: Processes = field(default_factory=Processes)
    reports: Reports = field(default_factory=Reports)
    checkpoints: Checkpoints = field(default_factory=Checkpoints)

    def __post_init__(self):
        _check(self.steps >= 1, "steps", self.steps, "at least 1")
        _check(self.batch >= 1, "batch", self.batch, "at least 1")
        _check(self.accumulation >= 1, "accumulation", self.accumulation, "at least 1")
        _check(self.batch % self.accumulation == 0, "batch", self.batch, f"a multiple of accumulation {self.accumulation}")
        _check(self.motion_frames >= 1 and self.motion_frames % 4 == 1, "motion-frames", self.motion_frames, "4n+1")
        _check(1 <= self.region_weight < math.inf, "region-weight", self.region_weight, "a number, at least 1")
        _check(self.dtype in DTYPES, "dtype", self.dtype, "float32 or bfloat16")
        _check(self.remat in REMAT, "remat", self.remat, f"one of {', '.join(REMAT)}")
        _check(self.seed >= 0, "seed", self.seed, "at least 0")

    @property
    def context_latents(self) -> int:
        """Latents of the frames that a chunk goes on from: one where the strategy has a context of one frame."""
        return 1 if self.references.baseline else 1 + (self.motion_frames - 1) // 4
