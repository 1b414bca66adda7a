"""A clip of drawn people who talk: their words, their voices, their pictures, and the truth about all of it."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, UInt8

from itjax.media.containers import FRAME_RATE, SAMPLE_RATE
from itjax.synthetic import mouth, scene, voice
from itjax.synthetic.face import Seen
from itjax.synthetic.mouth import Mouth
from itjax.synthetic.scene import Scene
from itjax.synthetic.sentences import phrase, sentence
from itjax.synthetic.voice import Manner, Speech

# F frames · H W pixels · n samples: F / 25 seconds at 16 kHz

LOUDNESS = 0.08  # root mean square of what is said, in -1..1
PEAK = 0.95


class Spoken(NamedTuple):
    """What one person says: sound as long as the clip, which phonemes when, and the words with when they begin (s)."""

    manner: Manner
    sentences: tuple[tuple[str, float], ...]
    speech: Speech
    mouth: Mouth


class Clip(NamedTuple):
    """Everything of a clip but its pictures, which `frames` draws."""

    seed: tuple[int, ...]
    num_frames: int
    height: int
    width: int
    scene: Scene
    spoken: tuple[Spoken, ...]  # one of each person

    @property
    def sound(self) -> Float32[np.ndarray, " n"]:
        """All voices together."""
        return np.clip(np.sum([each.speech.samples for each in self.spoken], axis=0), -1, 1)


def make(
    seed: tuple[int, ...], seconds: float, height: int, width: int, persons: int = 1, held_out: bool = False
) -> Clip:  # fmt: skip
    """The clip of a seed. `held_out` ones are said in voices, and in words, that no others are.

    Raises:
        UserError: where espeak-ng is not installed.
    """
    rng = np.random.default_rng((*seed, int(held_out)))
    num_frames = round(seconds * FRAME_RATE)
    shown = scene.scene(rng, num_frames, persons, width / height)
    turns = _turns(rng, num_frames / FRAME_RATE, persons)
    spoken = tuple(
        _say(rng, who.identity.woman, num_frames, [turn for turn, of in turns if of == number], held_out)
        for number, who in enumerate(shown.people)
    )
    return Clip(seed, num_frames, height, width, shown, spoken)


def _turns(rng: np.random.Generator, seconds: float, persons: int) -> list[tuple[tuple[float, float], int]]:
    """When each person has the word: one of two at a time, for two to five seconds."""
    if persons == 1:
        return [((0.0, seconds), 0)]
    turns, at, who = [], 0.0, int(rng.integers(2))
    while at < seconds:
        stop = min(seconds, at + rng.uniform(2.0, 5.0))
        turns.append(((at, stop), who))
        at, who = stop, 1 - who
    return turns


def _manner(rng: np.random.Generator, woman: bool, held_out: bool) -> Manner:
    voices = voice.HELD_OUT_VOICES if held_out else voice.TRAIN_VOICES
    fitting = [name for name in voices if Manner(name).is_woman == woman]
    rate, pitch, spread = (int(rng.integers(low, high)) for low, high in ((125, 195), (35, 65), (30, 70)))
    return Manner(fitting[rng.integers(len(fitting))], rate, pitch, spread)


def _say(rng: np.random.Generator, woman: bool, num_frames: int, turns: list[tuple[float, float]], held_out: bool) -> Spoken:
    """Sentences and phrases with pauses between them for as long as the turns last."""
    manner = _manner(rng, woman, held_out)
    loudness = LOUDNESS * 10 ** (rng.uniform(-4, 4) / 20)
    parts: list[Speech] = []
    pauses: list[float] = []
    sentences: list[tuple[str, float]] = []
    end = 0.0  # of what was said so far
    for start, stop in turns:
        at = start + rng.uniform(0.1, 0.6)
        while found := _fitting(rng, manner, stop - at, held_out):
            text, said = found
            parts.append(said._replace(samples=_loud(said.samples, loudness)))
            pauses.append(at - end)
            sentences.append((text, at))
            end = at + said.seconds
            at = end + rng.uniform(0.25, 1.1)
    whole = voice.joined(parts, [*pauses, 0.0])
    samples = np.zeros(num_frames * SAMPLE_RATE // FRAME_RATE, np.float32)
    samples[: len(whole.samples)] = whole.samples[: len(samples)]
    speech = Speech(samples, whole.phonemes)
    return Spoken(manner, tuple(sentences), speech, mouth.track(speech.phonemes, num_frames))


def _fitting(rng: np.random.Generator, manner: Manner, seconds: float, held_out: bool) -> tuple[str, Speech] | None:
    """A sentence, or where that is too long a phrase; None where neither fits."""
    for attempt in range(5):
        text = phrase(rng, held_out) if attempt > 1 or rng.random() < 0.25 else sentence(rng, held_out)
        said = voice.speak(text, manner)
        if said.seconds <= seconds:
            return text, said
    return None


def _loud(samples: np.ndarray, loudness: float) -> np.ndarray:
    scaled = samples * (loudness / max(float(np.sqrt(np.mean(samples**2))), 1e-6))
    return scaled * min(1.0, PEAK / max(float(np.abs(scaled).max()), 1e-6))


def frames(clip: Clip) -> Iterator[tuple[UInt8[np.ndarray, "H W 3"], tuple[Seen, ...]]]:
    """Each frame's picture, and where each person's face is in it."""
    mouths = tuple(each.mouth for each in clip.spoken)
    for number in range(clip.num_frames):
        yield scene.frame(clip.scene, number, mouths, clip.height, clip.width)


def truth(clip: Clip, seen: list[tuple[Seen, ...]]) -> dict[str, Any]:
    """What is known of a clip, as JSON can hold it. Times in seconds, angles in radians, places in pixels."""
    people = []
    for number, (who, said) in enumerate(zip(clip.scene.people, clip.spoken, strict=True)):
        people.append(
            {
                "identity": who.identity._asdict(),
                "mood": who.mood,
                "voice": said.manner._asdict(),
                "sentences": [{"text": text, "start": round(start, 4)} for text, start in said.sentences],
                "phonemes": [[p.symbol, round(p.start, 4), round(p.stop, 4)] for p in said.speech.phonemes],
                "mouth": {name: _rounded(values) for name, values in said.mouth._asdict().items()},
                "pose": {name: _rounded(values) for name, values in who.pose._asdict().items()},
                "eyes_open": _rounded(who.look.open),
                "seen": {name: [_rounded(getattr(at[number], name), 2) for at in seen] for name in Seen._fields},
            }
        )
    camera = {name: _rounded(values) for name, values in clip.scene.camera._asdict().items()}
    return {
        "seed": list(clip.seed), "fps": FRAME_RATE, "num_frames": clip.num_frames, "size": [clip.height, clip.width],
        "prompt": clip.scene.prompt, "wall": clip.scene.wall.name, "camera": camera, "people": people,
    }  # fmt: skip


def _rounded(values: Any, digits: int = 4) -> list[float]:
    return np.round(np.asarray(values, np.float64), digits).tolist()
