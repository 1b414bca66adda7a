"""Draws the demo's media again: `python -m itjax.demo.draw`. People, voices and sentences are those of the test split.

`portrait.png` is to speak `portrait.flac`; `film.mp4` is to be dubbed with `film.flac`. NAME.json is the truth of the
result, as `python -m itjax.synthetic` writes it: who is seen, and how the mouth should move.
"""

import json
from typing import Any

import numpy as np
import soundfile
from PIL import Image

from itjax.demo import MEDIA
from itjax.disk import write_text
from itjax.media.containers import SAMPLE_RATE
from itjax.media.video_file import write_video
from itjax.synthetic import clip as clips

SEED = 15
PORTRAIT, FILM, OTHER_VOICE = 8, 9, 15  # numbers of clips
SECONDS = 6.12  # 153 frames: two chunks
SIDE = 64  # pixels
HEARD = ("sentences", "voice", "phonemes", "mouth", "prosody", "speaking")  # of a truth: what belongs to the speech


def main() -> None:
    """Replaces the files in `MEDIA`. Needs espeak-ng: pip install "itjax[synthetic]"."""
    portrait, film, other = (
        clips.make((SEED, number), SECONDS, SIDE, SIDE, split="test") for number in (PORTRAIT, FILM, OTHER_VOICE)
    )
    pictures, truth = _drawn(portrait)
    MEDIA.mkdir(exist_ok=True)
    Image.fromarray(pictures[0]).save(MEDIA / "portrait.png")
    _write("portrait", portrait, truth)
    pictures, truth = _drawn(film)
    write_video(MEDIA / "film.mp4", pictures, film.sound)
    heard = _drawn(other)[1]["people"][0]
    truth["people"][0] |= {name: heard[name] for name in HEARD}
    _write("film", other, truth)


def _drawn(clip: clips.Clip) -> tuple[np.ndarray, dict[str, Any]]:
    drawn = list(clips.frames(clip))
    return np.stack([picture for picture, _ in drawn]), clips.truth(clip, [places for _, places in drawn])


def _write(name: str, spoken: clips.Clip, truth: dict[str, Any]) -> None:
    soundfile.write(MEDIA / f"{name}.flac", spoken.sound, SAMPLE_RATE)
    write_text(MEDIA / f"{name}.json", json.dumps(truth, ensure_ascii=False))


if __name__ == "__main__":
    main()
