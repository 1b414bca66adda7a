"""The commands: `itjax COMMAND ...`, and the scripts of the repository. They parse flags, and call the library."""

import pkgutil
import sys

COMMANDS = {
    "infer": ("itjax.commands.infer:main", "a picture or a video and a voice to a talking video"),
    "train": ("itjax.commands.train:run", "trains on a prepared dataset"),
    "convert": ("itjax.commands.convert:run", "weights: from the official files, and back"),
    "prepare": ("itjax.preparation.__main__:main", "a folder of videos to a dataset"),
    "draw": ("itjax.synthetic.__main__:main", "videos of drawn faces that talk, with the truth"),
    "evaluate": ("itjax.evaluation.report:main", "lips, drift and seams of a folder of videos"),
}


def main(argv: list[str] | None = None) -> int:
    """Runs the command that the first argument names. Each is imported only when it is named: that takes seconds."""
    arguments = sys.argv[1:] if argv is None else argv
    if arguments and arguments[0] in COMMANDS:
        function, _ = COMMANDS[arguments[0]]
        return pkgutil.resolve_name(function)(arguments[1:], f"itjax {arguments[0]}")
    lines = [f"  {name:10}{about}" for name, (_, about) in COMMANDS.items()]
    usage = "\n".join(["usage: itjax COMMAND ...", "", *lines, "", "`itjax COMMAND --help` has more."])
    wanted = bool(arguments) and arguments[0] in ("-h", "--help")
    print(usage, file=sys.stdout if wanted else sys.stderr)
    return 0 if wanted else 2
