"""Measures the small model on people, voices and sentences kept out of training: the figures of its model card.

    python recipes/small/measure.py OUT [--checkpoint DIR]

OUT gets drawn clips of the test split, the videos that `infer.py --preset small` (or DIR) makes of them, and figures.json.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile
from PIL import Image

from itjax.commands import infer
from itjax.demo.draw import HEARD
from itjax.evaluation import report
from itjax.evaluation.video import Job, VideoMetrics, measure
from itjax.evaluation.videos import FrameReader
from itjax.media.containers import SAMPLE_RATE
from itjax.media.video_file import write_video
from itjax.synthetic import clip as clips
from itjax.synthetic.people import HAIRS, WALLS
from itjax.synthetic.source import person_boxes

INFER = Path(__file__).parents[2] / "infer.py"
SEED, SIDE = 2026, 64
SETS = {  # clips, seconds, persons
    "portrait": (12, 4.0, 1), "dubbed": (12, 4.0, 1), "two": (8, 6.0, 2), "minute": (3, 60.0, 1), "prompt": (12, 4.0, 1),
}  # fmt: skip
SAME_COLOR = 30  # levels (Euclidean, RGB): pixels of a picture that show a part of that colour


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--checkpoint", type=Path, help="weights to measure (default: those of the package)")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    args = parser.parse_args()
    weights = ["--checkpoint", str(args.checkpoint)] if args.checkpoint else ["--preset", "small"]
    figures, tables = {}, {}
    for name in args.sets:
        folder = args.out / name
        draw(folder, name)
        make(folder, name, weights)
        measured = [measure(job(folder, path, name)) for path in sorted((folder / "made").glob("*.mp4"))]
        tables[name] = report.table(measured)
        figures[name] = {key: [x.mean, x.low, x.high, x.clips] for key, x in report.estimates(measured).items()}
        if name == "portrait":
            figures["another sound"] = [mean_sync(against_another(folder))]
        if name == "prompt":
            figures["prompts against the picture"] = obeyed(folder)
        print(f"\n## {name}\n\n{tables[name]}", flush=True)
    if "portrait" in args.sets:
        figures["cold start, 10 s of video"] = cold_start(args.out, weights)
    (args.out / "figures.json").write_text(json.dumps(figures, indent=1) + "\n")
    (args.out / "tables.md").write_text("\n\n".join(f"## {name}\n\n{table}" for name, table in tables.items()) + "\n")
    print(json.dumps({name: value for name, value in figures.items() if name not in SETS}))
    return 0


def draw(folder: Path, name: str) -> None:
    """Clips with their truth. In those to be dubbed, each truth hears the next clip."""
    count, seconds, persons = SETS[name]
    width = SIDE * persons
    made = [clips.make((SEED, number), seconds, SIDE, width, persons, "test") for number in range(count)]
    for part in ("source", "sound", "truth", "another"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    truths = []
    for number, clip in enumerate(made):
        drawn = list(clips.frames(clip))
        pictures, seen = np.stack([picture for picture, _ in drawn]), [places for _, places in drawn]
        truths.append(clips.truth(clip, seen))
        stem = f"{name}{number:02d}"
        write_video(folder / "source" / f"{stem}.mp4", pictures, clip.sound)
        Image.fromarray(pictures[0]).save(folder / "source" / f"{stem}.png")
        for person, said in enumerate(clip.spoken):
            soundfile.write(folder / "sound" / f"{stem}.{person + 1}.wav", said.speech.samples, SAMPLE_RATE)
        heads = np.array([[places[person].head_box for places in seen] for person in range(persons)])
        known = {"prompt": clip.scene.prompt, "boxes": person_boxes(heads, SIDE, width)}
        if name == "prompt":
            known |= contradiction(clip)
        (folder / "source" / f"{stem}.json").write_text(json.dumps(known))
    for number, truth in enumerate(truths):
        other = truths[(number + 1) % count]["people"][0]
        heard = [truth["people"][0] | {key: other[key] for key in HEARD}, *truth["people"][1:]]
        swapped = truth | {"people": heard}
        of_made, of_another = (swapped, truth) if name == "dubbed" else (truth, swapped)
        (folder / "truth" / f"{name}{number:02d}.json").write_text(json.dumps(of_made))
        (folder / "another" / f"{name}{number:02d}.json").write_text(json.dumps(of_another))


def contradiction(clip: clips.Clip) -> dict:
    """A prompt with other colours of hair and wall than the picture has; per part the picture's colour and the prompt's."""
    who, wall = clip.scene.people[0].identity, clip.scene.wall
    prompt, parts = clip.scene.prompt, {}
    hair = next((color for color in HAIRS if f" {color} hair" in prompt), None)
    for part, own, named, colors, words in (
        ("hair", who.hair, hair, HAIRS, "{} hair"), ("wall", wall.color, wall.name, WALLS, "{} wall"),
    ):  # fmt: skip
        if named is None:  # nobody sees the colour of no hair
            continue
        other = max(colors, key=lambda color: np.linalg.norm(np.subtract(colors[color], own)))
        prompt = prompt.replace(words.format(named), words.format(other))
        parts[part] = [own, colors[other]]
    return {"prompt": prompt, "parts": parts}


def obeyed(folder: Path) -> dict[str, list[int]]:
    """Per part: in how many of how many videos its pixels end with the prompt's colour rather than the picture's."""
    counts: dict[str, list[int]] = {}
    for path in sorted((folder / "made").glob("*.mp4")):
        picture = np.asarray(Image.open(folder / "source" / f"{path.stem}.png").convert("RGB"), float)
        last = FrameReader(path).read(200)[-1].astype(float)
        for part, (own, other) in json.loads((folder / "source" / f"{path.stem}.json").read_text())["parts"].items():
            shown = np.linalg.norm(picture - own, axis=-1) < SAME_COLOR
            away = [np.linalg.norm(last[shown].mean(0) - color) for color in (own, other)]
            count = counts.setdefault(part, [0, 0])
            count[0] += int(away[1] < away[0])
            count[1] += 1
    return counts


def make(folder: Path, name: str, weights: list[str]) -> None:
    count, _, persons = SETS[name]
    (folder / "made").mkdir(exist_ok=True)
    for number in range(count):
        stem = f"{name}{number:02d}"
        if (folder / "made" / f"{stem}.mp4").exists():
            continue
        known = json.loads((folder / "source" / f"{stem}.json").read_text())
        voice = f"{name}{(number + 1) % count:02d}" if name == "dubbed" else stem
        source = ["--video", f"{stem}.mp4"] if name == "dubbed" else ["--image", f"{stem}.png"]
        flags = [source[0], str(folder / "source" / source[1])]
        flags += ["--audio", *(str(folder / "sound" / f"{voice}.{person + 1}.wav") for person in range(persons))]
        for box in known["boxes"] if persons == 2 else ():
            flags += ["--bbox", *map(str, box)]
        flags += ["--prompt", known["prompt"], "--mode", "streaming", "--base_seed", "1", "--max_frame_num", "1600"]
        with contextlib.redirect_stdout(sys.stderr):
            status = infer.main([*weights, *flags, "--save_file", str(folder / "made" / stem)])
        if status:
            raise SystemExit(f"{stem}: infer.py ended with status {status}")


def job(folder: Path, path: Path, name: str, truth: str = "truth") -> Job:
    return Job(path, truth=folder / truth, source=folder / "source" / f"{path.stem}.mp4" if name == "dubbed" else None)


def against_another(folder: Path) -> list[VideoMetrics]:
    """The portraits, measured as if they had heard the next clip."""
    return [measure(job(folder, path, "portrait", "another")) for path in sorted((folder / "made").glob("*.mp4"))]


def mean_sync(measured: list[VideoMetrics]) -> float:
    return float(np.mean([each.numbers["sync"] for each in measured if "sync" in each.numbers]))


def cold_start(out: Path, weights: list[str]) -> float:
    """Seconds of a new process for 10 s of video, without any compiled program from before."""
    voices = sorted((out / "portrait" / "sound").glob("*.wav"))[:3]
    samples = np.concatenate([soundfile.read(path)[0] for path in voices])[: 10 * SAMPLE_RATE]
    soundfile.write(out / "ten.wav", samples, SAMPLE_RATE)
    picture = out / "portrait" / "source" / "portrait00.png"
    flags = ["--image", picture, "--audio", out / "ten.wav", "--mode", "streaming", "--save_file", out / "ten"]
    with tempfile.TemporaryDirectory() as empty:
        began = time.monotonic()
        subprocess.run(
            [sys.executable, INFER, *weights, *map(str, flags)], check=True, stdout=subprocess.DEVNULL,
            env=os.environ | {"JAX_COMPILATION_CACHE_DIR": empty},
        )  # fmt: skip
        return round(time.monotonic() - began, 1)


if __name__ == "__main__":
    sys.exit(main())
