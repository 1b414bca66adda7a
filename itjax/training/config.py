"""Settings of a training run. Values only, validated on construction; presets live in configs/training.py."""

import math
from dataclasses import dataclass, field

from itjax.config import Sampler
from itjax.errors import UserError
from itjax.models.dit import REMAT_POLICIES

STRATEGIES = ("M0", "M1", "M2", "M3", "I2V", "FL2V")
DTYPES = ("float32", "bfloat16")
OPTIMIZERS = ("adamw", "muon")


def _check(valid: bool, name: str, value: object, requirement: str) -> None:
    if not valid:
        raise UserError(f"{name} {value}: must be {requirement}")


@dataclass(frozen=True)
class References:
    """How a chunk's reference frame is chosen (InfiniteTalk, arXiv 2508.14033, section 3.4; see the README).

    Attributes:
        strategy: M0: any frame of the chunk. M1: its first or last frame. M2: a frame more than far-seconds away from the
            chunk. M3: a frame outside the chunk, at most near-seconds away. I2V: the chunk's first frame. FL2V: its first
            and last frame together. I2V and FL2V have a context of one frame.
        near_seconds: Largest distance of the reference from the chunk in seconds (M3).
        far_seconds: Smallest distance of the reference from the chunk in seconds (M2).
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
        """Whether the strategy is one of the paper's baselines, which have a context of one frame."""
        return self.strategy in ("I2V", "FL2V")


@dataclass(frozen=True)
class Dropout:
    """Condition dropout: the probability that an example is trained without a condition.

    Attributes:
        text: The prompt is replaced with the empty prompt.
        audio: The speech is replaced with silence (zeros before the adapter, as in guidance).
        both: Text and audio are dropped together, in addition to their separate dropouts.
        image: The reference's CLIP tokens are set to zero.
        context: The example has no earlier frames, like a first chunk.
    """

    text: float = 0.1
    audio: float = 0.1
    both: float = 0.05
    image: float = 0.1
    context: float = 0.2

    def __post_init__(self):
        for name in ("text", "audio", "both", "image", "context"):
            _check(0 <= getattr(self, name) <= 1, f"dropout.{name}", getattr(self, name), "within 0..1")


@dataclass(frozen=True)
class TimeDistribution:
    """Distribution of the training time τ in 0..1.

    Attributes:
        law: "uniform" or "logit-normal" (arXiv 2403.03206, section 3.1).
        mean: Mean of the logit (logit-normal).
        std: Standard deviation of the logit (logit-normal).
        shift: Timestep shift, as in sampling: τ → shift·τ / (1 + (shift - 1)·τ).
    """

    law: str = "logit-normal"
    mean: float = 0.0
    std: float = 1.0
    shift: float = 11.0

    def __post_init__(self):
        _check(self.law in ("uniform", "logit-normal"), "times.law", self.law, "uniform or logit-normal")
        _check(math.isfinite(self.mean), "times.mean", self.mean, "finite")
        _check(0 < self.std < math.inf, "times.std", self.std, "finite and above 0")
        _check(0 < self.shift < math.inf, "times.shift", self.shift, "finite and above 0")


@dataclass(frozen=True)
class TrainedParameters:
    """Which parameters of the DiT are trained; the rest is frozen.

    Attributes:
        parts: "audio": audio adapter, audio attention and its norm, as published. "lora": low-rank updates of the blocks'
            layers. "full": all parameters.
        lora_rank: Rank of the low-rank updates.
        lora_layers: Names of the updated layers, as shell patterns.
        new_audio: Initialise the audio parts randomly instead of from the checkpoint; their output starts at zero.
    """

    parts: str = "audio"
    lora_rank: int = 128
    lora_layers: tuple[str, ...] = ("q", "k", "v", "o", "cross_q", "cross_k", "cross_v", "cross_o", "ffn_in", "ffn_out")
    new_audio: bool = False

    def __post_init__(self):
        _check(self.parts in ("audio", "lora", "full"), "trained.parts", self.parts, "audio, lora or full")
        _check(self.lora_rank >= 1, "trained.lora-rank", self.lora_rank, "at least 1")
        _check(len(self.lora_layers) > 0, "trained.lora-layers", self.lora_layers, "at least one name")
        _check(not (self.new_audio and self.parts == "lora"), "trained.new-audio", True, "off if only LoRA is trained")


@dataclass(frozen=True)
class Optimizer:
    """The optimizer, with clipping of the global gradient norm.

    Attributes:
        name: adamw (arXiv 1711.05101), or muon (arXiv 2502.16982) for the matrices of the layers, with AdamW for all other
            parameters. Muon takes about the same learning rates, and half of AdamW's memory.
        learning_rate: Learning rate after the warm-up.
        warmup_steps: Steps of linear warm-up.
        decay_steps: Steps from the first one on after which a cosine has taken the rate to zero, usually all of the run;
            0: it is constant.
        weight_decay: Weight decay of matrices; norms, biases and modulations have none.
        beta1: Decay of the first moment.
        beta2: Decay of the second moment.
        epsilon: Term added to the denominator.
        clip_norm: Largest global norm of the gradient.
        ema: Decay of the exponential moving average of the weights; 0: no average.
    """

    name: str = "adamw"
    learning_rate: float = 2e-5
    warmup_steps: int = 500
    decay_steps: int = 0
    weight_decay: float = 0.01
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    clip_norm: float = 1.0
    ema: float = 0.999

    def __post_init__(self):
        _check(self.name in OPTIMIZERS, "optimizer.name", self.name, f"one of {', '.join(OPTIMIZERS)}")
        _check(0 < self.learning_rate < math.inf, "optimizer.learning-rate", self.learning_rate, "finite and above 0")
        _check(self.warmup_steps >= 0, "optimizer.warmup-steps", self.warmup_steps, "at least 0")
        decays = not self.decay_steps or self.decay_steps > max(1, self.warmup_steps)
        _check(decays, "optimizer.decay-steps", self.decay_steps, "0, or above 1 and above optimizer.warmup-steps")
        _check(self.weight_decay >= 0, "optimizer.weight-decay", self.weight_decay, "at least 0")
        for name in ("beta1", "beta2", "ema"):
            _check(0 <= getattr(self, name) < 1, f"optimizer.{name}", getattr(self, name), "at least 0 and below 1")
        _check(self.epsilon > 0, "optimizer.epsilon", self.epsilon, "above 0")
        _check(self.clip_norm > 0, "optimizer.clip-norm", self.clip_norm, "above 0")


@dataclass(frozen=True)
class Mesh:
    """Parallelism: each example is split over ulysses x context devices, the batch over groups of these.

    Parameters and optimizer state are always sharded over all devices.

    Attributes:
        ulysses: Devices over which the attention heads are split.
        context: Devices over which the tokens are split.
    """

    ulysses: int = 1
    context: int = 1

    def __post_init__(self):
        _check(self.ulysses >= 1, "mesh.ulysses", self.ulysses, "at least 1")
        _check(self.context >= 1, "mesh.context", self.context, "at least 1")


@dataclass(frozen=True)
class Processes:
    """Processes of the run. Default: a single one.

    Attributes:
        cluster: Detect the processes from the cluster's environment (TPU pods, Slurm, Open MPI, Kubernetes).
        coordinator: Address "host:port" of the coordinator, if started by hand.
        count: Number of processes, if started by hand.
        index: Index of this process, from 0.
    """

    cluster: bool = False
    coordinator: str | None = None
    count: int = 0
    index: int = 0

    def __post_init__(self):
        _check(self.count >= 0, "processes.count", self.count, "at least 0")
        _check(0 <= self.index < max(1, self.count), "processes.index", self.index, "below processes.count")
        manual = self.coordinator is not None
        _check(manual == (self.count > 0), "processes.coordinator", self.coordinator, "given together with processes.count")
        _check(not (self.cluster and manual), "processes.cluster", True, "off if a coordinator is given")


@dataclass(frozen=True)
class Reports:
    """Metrics, validation and samples. An interval of 0 steps means never.

    Attributes:
        log_every: Steps between lines of metrics.
        validate_every: Steps between validations: the loss of held-out clips at fixed τ and noise.
        validation_clips: Number of held-out clips.
        sample_every: Steps between sampled videos: a held-out clip generated by the chunk loop, next to its source.
        sample_seconds: Largest length of a sampled video in seconds.
        sampler: Sampling settings; chunk length, motion frames and strategy are always those of the training.
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
        # its polynomial belongs to a picture size, which a dataset has many of
        threshold = self.sampler.teacache_threshold
        _check(threshold is None, "reports.sampler.teacache-threshold", threshold, "None: samples are made without TeaCache")


@dataclass(frozen=True)
class Checkpoints:
    """When checkpoints are written, how many are kept, and where.

    Attributes:
        every: Steps between checkpoints; the last step always writes one.
        keep: Number of latest checkpoints to keep.
        keep_every: Also keep the checkpoints of every keep-every-th step; 0: none.
        folder: Folder of the checkpoints, or an address supported by etils.epath, such as gs://bucket/run. Default: in the
            run's folder.
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
    """Settings of a training run. --data, --checkpoint and --run are required (with --made-up only --run).

    Attributes:
        data: Dataset, written by `python -m itjax.preparation`.
        checkpoint: Initial weights: a folder written by convert_weights.py, or another run.
        run: Folder of the run. If it exists, training resumes from its last checkpoint.
        made_up: Train the tiny networks on a random dataset and random weights, both written into the run's folder.
        steps: Training steps in total.
        batch: Examples per step, over all devices.
        accumulation: Parts of the batch for gradient accumulation, processed one after another.
        motion_frames: Context frames of an example, 4n+1.
        region_weight: Weight of the loss inside the dataset's regions (a face, a mouth), relative to 1 elsewhere.
        seed: Random seed.
        dtype: Type of matrix products, "float32" or "bfloat16"; trained weights are always float32.
        remat: Rematerialisation: what each layer saves for the backward pass. "none": everything. "dots": products with
            weights. "full": only its input.
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
    times: TimeDistribution = field(default_factory=TimeDistribution)
    trained: TrainedParameters = field(default_factory=TrainedParameters)
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
        _check(1 <= self.region_weight < math.inf, "region-weight", self.region_weight, "finite and at least 1")
        _check(self.dtype in DTYPES, "dtype", self.dtype, "float32 or bfloat16")
        _check(self.remat in REMAT_POLICIES, "remat", self.remat, f"one of {', '.join(REMAT_POLICIES)}")
        _check(self.seed >= 0, "seed", self.seed, "at least 0")
        unfit = self.optimizer.name == "muon" and self.trained.parts == "lora"
        _check(not unfit, "optimizer.name", "muon", "adamw for trained.parts lora, as Muon is for whole matrices")

    @property
    def context_latents(self) -> int:
        """Number of context latents: one if the strategy has a context of one frame."""
        return 1 if self.references.baseline else 1 + (self.motion_frames - 1) // 4
