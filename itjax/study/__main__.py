"""A blind human study of videos, on a page that needs no server.

    itjax-study make videos/ study/ --reference sources/     # or without "make"
    itjax-study score study.key.json answers/

VIDEOS holds a folder per method, each with the same NAME.mp4. OUT is a folder to hand out as a zip file or on any web
server: its index.html, opened in a browser, shows the videos without their methods, in a random order for each rater, and
offers the answers as a file in the end. OUT.key.json, next to it, tells the methods: do not hand it out.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from itjax.flag_types import positive
from itjax.study.answers import read_all
from itjax.study.make import make
from itjax.study.plan import key_path, read_key
from itjax.study.tables import report
from itjax.terminal import run_command


def main(arguments: list[str] | None = None, program: str = "itjax-study") -> int:
    """Returns the exit status: 0 for success, 2 for a user error, 3 if a file cannot be written, 130 if interrupted."""
    given = sys.argv[1:] if arguments is None else arguments
    commands: dict[str, Callable[[argparse.Namespace], None]] = {"make": make_study, "score": print_scores}
    if given and given[0] not in (*commands, "-h", "--help"):
        given = ["make", *given]
    args = _parser(program).parse_args(given)
    return run_command(program, lambda: commands[args.command](args), "stopped; nothing was written")


def make_study(args: argparse.Namespace) -> None:
    """Makes the study, and says what to do with it."""
    key = make(args.videos, args.out, args.title, args.reference, args.items, args.per_item, args.seed)
    repeated = sum(bool(item.repeats) for item in key.items.values())
    print(f"{args.out}: {len(key.items) - repeated} items of {len(key.methods)} methods, and {repeated} of them again.")
    print(
        f"Hand out this folder (open index.html). {key_path(args.out)} tells the methods: keep it, and do not hand it out."
    )


def print_scores(args: argparse.Namespace) -> None:
    """Prints the tables."""
    key = read_key(args.key)
    print(report(read_all(args.answers, key), key))


def _parser(program: str) -> argparse.ArgumentParser:
    description, _, more = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        program, description=description, epilog=more, formatter_class=argparse.RawTextHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("make", help="make the folder of a study")
    making.add_argument(
        "videos", type=Path, metavar="VIDEOS", help="folder with a folder per method, each with the same NAME.mp4"
    )
    making.add_argument("out", type=Path, metavar="OUT", help="folder to create; OUT.key.json is written next to it")
    making.add_argument(
        "--reference", type=Path, metavar="DIR", help="folder with the source NAME.mp4, .png, .jpg or .webp, shown beside"
    )
    making.add_argument("--title", default="Video study", metavar="TEXT", help='heading of the page (default "%(default)s")')
    making.add_argument("--items", type=positive, metavar="N", help="use N of the names, chosen at random (default all)")
    making.add_argument(
        "--per_item", type=int, choices=(2, 3), help="videos ranked together (default 3, or 2 if there are two methods)"
    )
    making.add_argument(
        "--seed",
        type=int,
        default=0,
        help="for the choice of items, of methods shown together and of repeated items (default 0)",
    )
    scoring = commands.add_parser("score", help="print average ranks, win rates and the raters' consistency")
    scoring.add_argument("key", type=Path, metavar="KEY", help="OUT.key.json, written when the study was made")
    scoring.add_argument("answers", type=Path, nargs="+", metavar="ANSWERS", help="files of answers, or folders with them")
    return parser


if __name__ == "__main__":
    sys.exit(main())
