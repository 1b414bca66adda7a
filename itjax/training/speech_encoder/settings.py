"""Settings of a training run of the speech encoder. Values only."""

from dataclasses import dataclass

from itjax.config import Wav2Vec2Sizes
from itjax.errors import UserError

SIZES = Wav2Vec2Sizes(conv_width=64, width=192, layers=4, heads=6, mlp=768, position_kernel=32, position_groups=16)


@dataclass(frozen=True)
class SpeechTraining:
    """Settings that determine a trained speech encoder.

    Attributes:
        steps: Training steps.
        seed: Random seed.
        sizes: Sizes of the network.
        batch: Examples per step.
        seconds: Length of an example.
        clips: Number of clips of speech that examples are cut from.
        first_clips: Number of them in use at the first step, so that training begins before all are made.
        more_clips: Number that each step adds.
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

    steps: int = 5000
    seed: int = 0
    sizes: Wav2Vec2Sizes = SIZES
    batch: int = 32
    seconds: float = 3.0
    clips: int = 8000
    first_clips: int = 512
    more_clips: int = 8
    clip_seconds: float = 6.0
    learning_rate: float = 1.5e-3
    warmup_steps: int = 100
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    phoneme_weight: float = 0.3
    log_every: int = 20
    validate_every: int = 500
    save_every: int = 500
    fit_clips: int = 96
    held_out_clips: int = 32
    held_out_seconds: float = 4.0

    def __post_init__(self):
        if self.batch < 1:
            raise UserError(f"--batch {self.batch}: must be at least 1")
        if self.seed < 0:
            raise UserError(f"--seed {self.seed}: must be at least 0")
