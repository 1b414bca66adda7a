"""The commands `itjax COMMAND ...` and the repository's scripts: they parse flags and call the library."""

import pkgutil
import sys

COMMANDS = {
    "infer": ("itjax.commands.infer:main", "generate a talking video from an image or video and speech"),
    "demo": ("itjax.demo.__main__:main", "let the small model that comes with the package talk and dub, and measure it"),
    "train": ("itjax.commands.train:run", "train on a prepared dataset"),
    "convert": ("itjax.commands.convert:run", "convert official weights to a checkpoint, or back"),
    "assemble": ("itjax.commands.assemble:run", "put separately trained networks together into a checkpoint"),
    "pack": ("itjax.commands.pack:run", "pack a small model into few files, to come with the package"),
    "prepare": ("itjax.preparation.__main__:main", "make a training dataset from a folder of videos"),
    "draw": ("itjax.synthetic.__main__:main", "draw videos of talking faces, with ground truth"),
    "evaluate": ("itjax.evaluation.__main__:main", "measure lips, body, identity, drift and following of videos"),
    "study": ("itjax.study.__main__:main", "make a blind human study of videos, or score its answers"),
}


def main(argv: list[str] | None = None) -> int:
    """Runs the command named by the first argument. Only this command is imported, because imports take seconds."""
    arguments = sys.argv[1:] if argv is None else argv
    if arguments and arguments[0] in COMMANDS:
        function, _ = COMMANDS[arguments[0]]
        return pkgutil.resolve_name(function)(arguments[1:], f"itjax {arguments[0]}")
    lines = [f"  {name:10}{description}" for name, (_, description) in COMMANDS.items()]
    usage = "\n".join(["usage: itjax COMMAND ...", "", *lines, "", "See `itjax COMMAND --help` for the flags of a command."])
    help_requested = bool(arguments) and arguments[0] in ("-h", "--help")
    print(usage, file=sys.stdout if help_requested else sys.stderr)
    return 0 if help_requested else 2
