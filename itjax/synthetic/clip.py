"""A clip of drawn people who talk: words, voices, pictures, and the ground truth."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, UInt8

from itjax.media.containers import FRAME_RATE, SAMPLE_RATE
from itjax.synthetic import flite, mouth, scene, voice, voices
from itjax.synthetic.face import FacePositions
from itjax.synthetic.mouth import Mouth
from itjax.synthetic.prosody import Prosody, prosody
from itjax.synthetic.scene import Scene
from itjax.synthetic.sentences import phrase, sentence
from itjax.synthetic.splits import SPLITS, Split
from itjax.synthetic.voice import Speech, VoiceSettings

# F frames · H W pixels · n samples: F / 25 seconds at 16 kHz

LOUDNESS = 0.08  # root mean square of speech, samples in -1..1
PEAK = 0.95
# most voices of training clips are changed, so that there are more of them than espeak-ng has
WARPED = 0.8  # the share of them
SPEEDS = (0.84, 1.19)
OTHER = 0.5  # the share of voices in test clips that are flite's, where it is installed
GAIN = 4.5  # dB, standard deviation in each band of the equalizer; at most twice that


class PersonSpeech(NamedTuple):
    """The speech of one person: sound as long as the clip, timed phonemes, and the sentences with their start times (s)."""

    manner: VoiceSettings
    sentences: tuple[tuple[str, float], ...]
    speech: Speech
    mouth: Mouth
    prosody: Prosody


class Clip(NamedTuple):
    """A clip without its pictures, which `frames` draws."""

    seed: tuple[int, ...]
    split: Split
    num_frames: int
    height: int
    width: int
    scene: Scene
    spoken: tuple[PersonSpeech, ...]  # one per person

    @property
    def sound(self) -> Float32[np.ndarray, " n"]:
        """The mix of all voices."""
        return np.clip(np.sum([person.speech.samples for person in self.spoken], axis=0), -1, 1)


def make(
    seed: tuple[int, ...], seconds: float, height: int, width: int, persons: int = 1, split: Split = "train"
) -> Clip:  # fmt: skip
    """The clip of a seed: the same in every size of the same aspect ratio. The splits share no person, voice or sentence.

    Half of the persons in test clips speak with flite's voices where it is installed, and else with espeak-ng's.

    Raises:
        UserError: If espeak-ng is not installed.
    """
    rng = np.random.default_rng((*seed, SPLITS.index(split)))
    num_frames = round(seconds * FRAME_RATE)
    still = scene.scene(rng, num_frames, persons, width / height, split=split)
    turns = _turns(rng, num_frames / FRAME_RATE, persons)
    spoken = tuple(
        _say(rng, person.identity.woman, num_frames, [turn for turn, speaker in turns if speaker == number], split)
        for number, person in enumerate(still.people)
    )
    acted = scene.acted(rng, still, [said.prosody for said in spoken])
    return Clip(seed, split, num_frames, height, width, acted, spoken)


def prompt(
    seed: tuple[int, ...], seconds: float, height: int, width: int, persons: int = 1, split: Split = "train"
) -> str:  # fmt: skip
    """What is seen in the clip that `make` returns for the same arguments; made without speech, which takes longest."""
    rng = np.random.default_rng((*seed, SPLITS.index(split)))
    return scene.scene(rng, round(seconds * FRAME_RATE), persons, width / height, split=split).prompt


def _turns(rng: np.random.Generator, seconds: float, persons: int) -> list[tuple[tuple[float, float], int]]:
    """Speaking turns (start, stop) and persons: two persons alternate, every two to five seconds."""
    if persons == 1:
        return [((0.0, seconds), 0)]
    turns, start, speaker = [], 0.0, int(rng.integers(2))
    while start < seconds:
        stop = min(seconds, start + rng.uniform(2.0, 5.0))
        turns.append(((start, stop), speaker))
        start, speaker = stop, 1 - speaker
    return turns


def _manner(rng: np.random.Generator, woman: bool, split: Split) -> VoiceSettings:
    variants = voices.variants(split, woman)
    accent = voices.ACCENTS[rng.integers(len(voices.ACCENTS))] if rng.random() < 0.6 else "en-us"
    name = f"{accent}+{variants[rng.integers(len(variants))]}"
    rate, pitch, spread = (int(rng.integers(low, high)) for low, high in ((125, 195), (30, 70), (30, 75)))
    manner = VoiceSettings(name, rate, pitch, spread)
    others = flite.WOMEN if woman else flite.MEN
    other, chance = others[rng.integers(len(others))], rng.random()
    if split == "test" and chance < OTHER and flite.is_installed():
        return manner._replace(voice=flite.PREFIX + other)
    if split != "train" or rng.random() > WARPED:
        return manner
    speed = float(np.exp(rng.uniform(*np.log(SPEEDS))))
    gains = rng.normal(0, GAIN, len(voice.EQUALIZER_HZ)).clip(-2 * GAIN, 2 * GAIN)
    return manner._replace(speed=round(speed, 4), equalizer=tuple(np.round(gains, 2).tolist()))


def speech(seed: tuple[int, ...], seconds: float, split: Split = "train") -> Speech:
    """The speech of one person without a clip, for networks that only hear: sentences and pauses, cut off at the end.

    Raises:
        UserError: If espeak-ng is not installed.
    """
    rng = np.random.default_rng((*seed, SPLITS.index(split)))
    manner = _manner(rng, bool(rng.random() < 0.5), split)
    parts: list[Speech] = []
    pauses = [rng.uniform(0.0, 0.6)]
    end = pauses[0]
    while end < seconds:
        text = phrase(rng, split) if rng.random() < 0.25 else sentence(rng, split)
        parts.append(_said(text, manner))
        pauses.append(rng.uniform(0.25, 1.1))
        end += parts[-1].seconds + pauses[-1]
    joined = voice.concatenate(parts, pauses)
    samples = joined.samples[: round(seconds * SAMPLE_RATE)]
    return Speech(_scaled_to(samples, LOUDNESS), tuple(part for part in joined.phonemes if part.start < seconds))


def _say(
    rng: np.random.Generator, woman: bool, num_frames: int, turns: list[tuple[float, float]], split: Split
) -> PersonSpeech:
    """Fills the turns with sentences and phrases, with pauses between them."""
    manner = _manner(rng, woman, split)
    loudness = LOUDNESS * 10 ** (rng.uniform(-4, 4) / 20)
    parts: list[Speech] = []
    pauses: list[float] = []
    sentences: list[tuple[str, float]] = []
    end = 0.0  # of the speech so far
    for start, stop in turns:
        at = start + rng.uniform(0.1, 0.6)
        while found := _fitting(rng, manner, stop - at, split):
            text, said = found
            parts.append(said._replace(samples=_scaled_to(said.samples, loudness)))
            pauses.append(at - end)
            sentences.append((text, at))
            end = at + said.seconds
            at = end + rng.uniform(0.25, 1.1)
    joined = voice.concatenate(parts, [*pauses, 0.0])
    samples = np.zeros(num_frames * SAMPLE_RATE // FRAME_RATE, np.float32)
    samples[: len(joined.samples)] = joined.samples[: len(samples)]
    speech = Speech(samples, joined.phonemes)
    melody = prosody(samples, speech.phonemes, num_frames)
    return PersonSpeech(manner, tuple(sentences), speech, mouth.track(speech.phonemes, num_frames), melody)


def _fitting(rng: np.random.Generator, manner: VoiceSettings, seconds: float, split: Split) -> tuple[str, Speech] | None:
    """A sentence, or a phrase if sentences are too long; None if neither fits into `seconds`."""
    for attempt in range(5):
        text = phrase(rng, split) if attempt > 1 or rng.random() < 0.25 else sentence(rng, split)
        said = _said(text, manner)
        if said.seconds <= seconds:
            return text, said
    return None


def _said(text: str, manner: VoiceSettings) -> Speech:
    return (flite if manner.voice.startswith(flite.PREFIX) else voice).speak(text, manner)


def _scaled_to(samples: np.ndarray, loudness: float) -> np.ndarray:
    scaled = samples * (loudness / max(float(np.sqrt(np.mean(samples**2))), 1e-6))
    return scaled * min(1.0, PEAK / max(float(np.abs(scaled).max()), 1e-6))


def frames(clip: Clip) -> Iterator[tuple[UInt8[np.ndarray, "H W 3"], tuple[FacePositions, ...]]]:
    """Yields each frame's picture, and the positions of each person's face in it."""
    return scene.frames(clip.scene, tuple(spoken.mouth for spoken in clip.spoken), clip.height, clip.width)


def truth(clip: Clip, seen: list[tuple[FacePositions, ...]]) -> dict[str, Any]:
    """The ground truth of a clip as JSON-serialisable values. Times in seconds, angles in radians, positions in pixels."""
    people = []
    for number, (person, spoken) in enumerate(zip(clip.scene.people, clip.spoken, strict=True)):
        people.append(
            {
                "identity": person.identity._asdict(),
                "mood": person.mood,
                "voice": spoken.manner._asdict(),
                "sentences": [{"text": text, "start": round(start, 4)} for text, start in spoken.sentences],
                "phonemes": [[p.symbol, round(p.start, 4), round(p.stop, 4)] for p in spoken.speech.phonemes],
                "mouth": {name: _rounded(values) for name, values in spoken.mouth._asdict().items()},
                "pose": {name: _rounded(values) for name, values in person.pose._asdict().items()},
                "look": {name: _rounded(values) for name, values in person.look._asdict().items()},
                "prosody": {name: _rounded(getattr(spoken.prosody, name)) for name in ("loudness", "pitch")},
                "speaking": spoken.prosody.speaking.tolist(),
                "seen": {
                    name: [_rounded(getattr(positions[number], name), 2) for positions in seen]
                    for name in FacePositions._fields
                },
            }
        )
    camera = {name: _rounded(values) for name, values in clip.scene.camera._asdict().items()}
    return {
        "seed": list(clip.seed), "split": clip.split,
        "fps": FRAME_RATE, "num_frames": clip.num_frames, "size": [clip.height, clip.width],
        "prompt": clip.scene.prompt, "wall": clip.scene.wall.name, "camera": camera, "people": people,
    }  # fmt: skip


def _rounded(values: Any, digits: int = 4) -> list[float]:
    return np.round(np.asarray(values, np.float64), digits).tolist()
