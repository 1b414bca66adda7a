"""Settings of a training run of the speech encoder. Values only."""

from dataclasses import dataclass

from itjax.config import Wav2Vec2Sizes
from itjax.errors import UserError

SIZES = Wav2Vec2Sizes(conv_width=64, width=128, layers=4, heads=4, mlp=512, position_kernel=32, position_groups=16)


@dataclass(frozen=True)
class SpeechTraining:
    """Settings of a run. It ends after `steps` steps or `minutes` minutes, whichever comes first; one of them is needed.

    With minutes, the learning rate depends on the clock: only a run without them is the same to the last bit once more.

    Attributes:
        steps: Training steps in total; 0: no limit.
        minutes: Minutes of training in total, interruptions excluded; 0: no limit.
        seed: Random seed.
        sizes: Sizes of the network.
        batch: Examples per step.
        seconds: Length of an example.
        clips: Number of clips of speech that examples are cut from.
        first_clips: Number of them in use at the first step. Each step adds one, so that speech is made while training.
        clip_seconds: Length of a clip.
        learning_rate: Largest learning rate: after `warmup_steps` steps of linear warm-up, it falls to zero by a cosine.
        warmup_steps: Steps of warm-up.
        weight_decay: Weight decay of matrices.
        clip_norm: Largest global norm of the gradient.
        phoneme_weight: Weight of the phonemes' cross-entropy, relative to the mouth's squared error.
        log_every: Steps between reports of the loss.
        validate_every: Steps between validations.
        save_every: Steps between checkpoints.
        fit_clips: Training clips of `held_out_seconds` on which the read-outs of a validation are fitted.
        held_out_clips: Clips of the validation split, and of the test split.
        held_out_seconds: Length of these clips.
    """

    steps: int = 0
    minutes: float = 0.0
    seed: int = 0
    sizes: Wav2Vec2Sizes = SIZES
    batch: int = 16
    seconds: float = 3.0
    clips: int = 4000
    first_clips: int = 256
    clip_seconds: float = 6.0
    learning_rate: float = 1.5e-3
    warmup_steps: int = 100
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    phoneme_weight: float = 0.3
    log_every: int = 20
    validate_every: int = 200
    save_every: int = 200
    fit_clips: int = 96
    held_out_clips: int = 32
    held_out_seconds: float = 4.0

    def __post_init__(self):
        if self.steps < 0 or not 0 <= self.minutes < 1e6 or not (self.steps or self.minutes):
            raise UserError("--steps or --minutes: at least one of them must be above 0, and neither below")
        if self.seed < 0:
            raise UserError(f"--seed {self.seed}: must be at least 0")

    def spent(self, steps: int, seconds: float) -> float:
        """The share of the budget that is spent after `steps` steps and `seconds` seconds: 1 at the end of the run."""
        shares = (steps / self.steps if self.steps else 0.0, seconds / 60 / self.minutes if self.minutes else 0.0)
        return min(1.0, max(shares))
