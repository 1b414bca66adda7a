"""`python -m itjax.demo [OUT]`: the small model makes a drawn portrait talk and dubs a drawn video; both are measured.

OUT (default: demo) gets portrait.mp4 and film.mp4, a picture of each (frames, sound, mouth), and their figures (figures.md).
"""

import argparse
import json
import sys
import time
from pathlib import Path

from itjax.commands import infer
from itjax.demo import MEDIA, picture
from itjax.disk import output_errors, write_text
from itjax.evaluation import report
from itjax.evaluation.video import Job, measure
from itjax.small import weights_folder
from itjax.terminal import run_command

VIDEOS = {"portrait": ("--image", "png"), "film": ("--video", "mp4")}  # {name in `MEDIA` and of the result: its source}


def main(arguments: list[str] | None = None, program: str = "python -m itjax.demo") -> int:
    """Returns the exit status: that of infer.py, if it fails."""
    description, _, more = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(program, description=description.split(": ", 1)[1], epilog=more)
    parser.add_argument("out", type=Path, nargs="?", default=Path("demo"), metavar="OUT", help="folder of the results")
    out, began = parser.parse_args(arguments).out, time.monotonic()
    status = run_command(program, lambda: _prepare(out), "stopped")
    for name in VIDEOS if status == 0 else ():
        status = status or infer.main(_flags(name, out), program)
    status = status or run_command(program, lambda: _measure(out), "stopped")
    if status == 0:
        print(f"{out}: made and measured in {time.monotonic() - began:.0f} s")
    return status


def _prepare(out: Path) -> None:
    weights_folder()
    with output_errors(out):
        out.mkdir(parents=True, exist_ok=True)


def _flags(name: str, out: Path) -> list[str]:
    """The flags of infer.py, which are shown."""
    flag, suffix = VIDEOS[name]
    prompt = json.loads((MEDIA / f"{name}.json").read_text(encoding="utf-8"))["prompt"]
    media = [flag, str(MEDIA / f"{name}.{suffix}"), "--audio", str(MEDIA / f"{name}.flac")]
    flags = ["--preset", "small", *media, "--mode", "streaming", "--save_file", str(out / f"{name}.mp4")]
    print(f"\nitjax infer {' '.join(flags)} \\\n    --prompt {prompt!r}", flush=True)
    return [*flags, "--prompt", prompt]


def _measure(out: Path) -> None:
    """Prints and writes the figures of the videos, and draws their pictures."""
    measured = []
    for name, (_, suffix) in VIDEOS.items():
        video, source = out / f"{name}.mp4", MEDIA / f"{name}.{suffix}"
        measured.append(measure(Job(video, truth=MEDIA, source=source)))
        picture.draw(video, MEDIA / f"{name}.json", out / f"{name}.png")
    for line in report.left_out(measured):
        print(line, file=sys.stderr)
    table = report.table(measured)
    each = ["", f"| measure | {' | '.join(VIDEOS)} |", "| --- | --- | --- |"]
    for row in dict.fromkeys(key for video in measured for key in video.numbers):
        values = [f"{video.numbers[row]:.3f}" if row in video.numbers else "" for video in measured]
        each.append(f"| {row} | {' | '.join(values)} |")
    write_text(out / "figures.md", "\n".join([table, *each]) + "\n")
    print(f"\n{table}\n")


if __name__ == "__main__":
    sys.exit(main())
