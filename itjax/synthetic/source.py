"""Drawn clips as arrays, for training without files: `grain.MapDataset.source(DrawnClips(...))`."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from itjax.media.containers import FRAME_RATE
from itjax.synthetic import clip as clips
from itjax.synthetic.mouth import Mouth
from itjax.synthetic.phonemes import numbers
from itjax.synthetic.splits import Split

STEPS_PER_SECOND = 50  # of the phonemes for a speech encoder, whose steps are 20 ms


@dataclass(frozen=True)
class DrawnClips:
    """Clip i is the same as that of `python -m itjax.synthetic` with this seed, and is drawn when it is asked for.

    `seconds`: length of each clip; `size`: (height, width) in pixels. It can be sent to other processes, and
    many threads may read from it.
    """

    seed: int
    count: int
    seconds: float
    size: tuple[int, int]
    split: Split = "train"
    persons: int = 1

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> dict[str, Any]:
        """Clip `number` as arrays, with F frames, P persons and n samples.

        Returns:
            `video` [F, H, W, 3] uint8; `sound` [n] float32 in -1..1 at 16 kHz, of all voices; `voices` [P, n], of each;
            `mouth` [P, F, 5] float32 (jaw, width, rounding, teeth, tongue); `phonemes` [P, F] and `phonemes_20ms` [P, 2F]
            int32, indices of `phonemes.PHONEMES`; `mouth_boxes` and `head_boxes` [P, F, 4] float32: left, top, right, bottom
            in pixels, of where a mouth may be and of the head; `region` [F, H, W] bool: all mouth boxes; `speaking` [P, F]
            bool; `prompt`, a string.

        Raises:
            IndexError: If there is no such clip.
            UserError: If espeak-ng is not installed.
        """
        if not 0 <= number < self.count:
            raise IndexError(f"clip {number} of {self.count}")
        clip = clips.make((self.seed, number), self.seconds, *self.size, self.persons, self.split)
        drawn = list(clips.frames(clip))
        boxes = lambda name: np.array(
            [[getattr(seen[person], name) for _, seen in drawn] for person in range(self.persons)], np.float32
        )
        speech, mouths = [said.speech for said in clip.spoken], boxes("mouth_area")
        phonemes = lambda rate: np.stack(
            [numbers(said.phonemes, clip.num_frames * rate // FRAME_RATE, rate) for said in speech]
        )
        return {
            "video": np.stack([picture for picture, _ in drawn]),
            "sound": clip.sound,
            "voices": np.stack([said.samples for said in speech]),
            "mouth": np.stack([_table(said.mouth) for said in clip.spoken]),
            "phonemes": phonemes(FRAME_RATE),
            "phonemes_20ms": phonemes(STEPS_PER_SECOND),
            "mouth_boxes": mouths,
            "head_boxes": boxes("head_box"),
            "region": np.stack([_inside(mouths[:, frame], *self.size) for frame in range(clip.num_frames)]),
            "speaking": np.stack([said.prosody.speaking for said in clip.spoken]),
            "prompt": clip.scene.prompt,
        }


def _table(mouth: Mouth) -> np.ndarray:
    return np.stack(mouth, axis=-1).astype(np.float32)


def _inside(boxes: np.ndarray, height: int, width: int) -> np.ndarray:
    """Pixels that are in one of the boxes, as `__main__.regions` draws them."""
    inside = np.zeros((height, width), bool)
    for left, top, right, bottom in boxes:
        inside[max(0, int(top)) : max(0, int(bottom) + 1), max(0, int(left)) : max(0, int(right) + 1)] = True
    return inside


def person_boxes(heads: Float[np.ndarray, "P F 4"], height: int, width: int) -> list[list[int]]:
    """[top, left, bottom, right] in pixels of each person over all frames: the head and everything below it."""
    (left, top), right = heads[:, :, :2].min(1).T, heads[:, :, 2].max(1)
    return [
        [max(0, int(top[i])), max(0, int(left[i])), height, min(width, int(right[i]) + 1)] for i in range(len(heads))
    ]  # fmt: skip
