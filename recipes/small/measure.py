"""Measures the small model on people, voices and sentences kept out of training: the figures of its model card.

    python recipes/small/measure.py OUT [--checkpoint DIR] [--split validation] [--clips N] [FLAG OF INFER.PY ...]

OUT gets drawn clips of the test split, the videos that `infer.py --preset small` (or DIR) makes of them, and figures.json.
The same command continues where it was interrupted.

Choose settings of the sampler on the validation split, with another OUT for each:

    python recipes/small/measure.py runs/apg --split validation --clips 30 --sets portrait --use_apg --apg_norm_threshold 20
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

import held_out
import numpy as np
import soundfile

from itjax.commands import infer
from itjax.evaluation import report
from itjax.evaluation.video import Job, VideoMetrics, measure
from itjax.flag_types import positive
from itjax.media.containers import SAMPLE_RATE
from itjax.synthetic.splits import SPLITS

INFER = Path(__file__).parents[2] / "infer.py"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--checkpoint", type=Path, help="weights to measure (default: those of the package)")
    parser.add_argument("--sets", nargs="+", choices=held_out.SETS, default=list(held_out.SETS))
    parser.add_argument("--split", choices=SPLITS[1:], default="test")
    parser.add_argument("--clips", type=positive, help="of each set (default: as many as the model card tells of)")
    args, sampling = parser.parse_known_args()
    weights = ["--checkpoint", str(args.checkpoint)] if args.checkpoint else ["--preset", "small"]
    weights += sampling
    same_as_before(args.out / "flags.json", [args.split, *weights])
    figures, tables = {}, {}
    for name in args.sets:
        folder = args.out / name
        count = args.clips or held_out.SETS[name].clips
        held_out.draw(folder, name, count, args.split)
        make(folder, name, count, weights)
        measured = [measure(job(folder, path, name)) for path in sorted((folder / "made").glob("*.mp4"))]
        tables[name] = report.table(measured)
        figures[name] = {key: [x.mean, x.low, x.high, x.clips] for key, x in report.estimates(measured).items()}
        if name == "portrait":
            figures["another sound"] = [mean_sync(against_another(folder))]
        if name == "prompt":
            figures["prompts against the picture"] = held_out.obeyed(folder)
        print(f"\n## {name}\n\n{tables[name]}", flush=True)
    if "portrait" in args.sets and args.split == "test":
        figures["cold start, 10 s of video"] = cold_start(args.out, weights)
    (args.out / "figures.json").write_text(json.dumps(figures, indent=1) + "\n")
    (args.out / "tables.md").write_text("\n\n".join(f"## {name}\n\n{table}" for name, table in tables.items()) + "\n")
    print(json.dumps({name: value for name, value in figures.items() if name not in held_out.SETS}))
    return 0


def same_as_before(path: Path, asked: list[str]) -> None:
    """Videos that are in OUT already are not made again: they must be those of this split and these flags."""
    path.parent.mkdir(parents=True, exist_ok=True)
    known = json.loads(path.read_text()) if path.exists() else None
    if known != asked and (known or any(path.parent.glob("*/made/*.mp4"))):
        raise SystemExit(f"{path}: the videos here were made of another split or with other flags. Give another OUT.")
    path.write_text(json.dumps(asked) + "\n")


def make(folder: Path, name: str, count: int, weights: list[str]) -> None:
    persons = held_out.SETS[name].persons
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
