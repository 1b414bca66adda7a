"""Settings of the contrastive training of the small picture and text encoders. Values only."""

from dataclasses import dataclass

from itjax.config import ClipSizes, Umt5Sizes
from itjax.errors import UserError

CLIP = ClipSizes(image=64, patch=16, width=96, layers=4, heads=4, mlp=384)
UMT5 = Umt5Sizes(vocabulary=512, width=64, attention_width=64, mlp=128, layers=2, heads=4)
TEXT_LEN = 80  # tokens: drawn prompts of two persons have up to about 70, the negative prompt has 78


@dataclass(frozen=True)
class ContrastiveTraining:
    """What determines a trained pair of encoders, besides versions and machine.

    Attributes:
        steps: Steps in total.
        seed: Random seed of weights and data.
        clip: Sizes of the picture encoder.
        umt5: Sizes of the text encoder.
        text_len: Tokens of a prompt.
        batch: Pairs of a picture and its prompt per step.
        pairs_of_people: Those of them that show two persons.
        first_scenes: Drawn scenes in use at the first step.
        scenes_per_step: By how many they grow at each step, so that scenes are drawn while training.
        most_scenes: Their largest number.
        embedding: Width in which pictures and prompts are compared.
        learning_rate: Largest learning rate: after `warmup` steps, it falls to zero by a cosine.
        warmup: Steps of linear warm-up.
        weight_decay: Weight decay of matrices.
    """

    steps: int = 2000
    seed: int = 0
    clip: ClipSizes = CLIP
    umt5: Umt5Sizes = UMT5
    text_len: int = TEXT_LEN
    batch: int = 256
    pairs_of_people: int = 32
    first_scenes: int = 1024
    scenes_per_step: int = 8
    most_scenes: int = 16384
    embedding: int = 128
    learning_rate: float = 1.5e-3
    warmup: int = 100
    weight_decay: float = 0.05

    def __post_init__(self):
        if self.steps < 1:
            raise UserError(f"--steps {self.steps}: must be at least 1")
        if self.seed < 0:
            raise UserError(f"--seed {self.seed}: must be at least 0")
