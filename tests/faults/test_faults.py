"""Hundreds of damaged inputs, drawn from a seed: each is used, or refused in a sentence that names it and leaves nothing.

A damaged input may still be a valid one (a flipped bit in a sample of sound): then it must be readable to the end. Chunks
are not generated. `-m soak` runs the same with many more.
"""

import contextlib
import random
import resource
import shutil
import signal
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from kinds import KINDS, Accepted, Case, media, request_json, resume_folder

from itjax.commands import infer

SECONDS = 60  # a case takes well under one; more than this is a hang
MEGABYTES = 2000
COUNTS = [40, pytest.param(300, marks=pytest.mark.soak)]


@contextlib.contextmanager
def _alarm() -> Iterator[None]:
    def hung(*_: object) -> None:
        raise TimeoutError(f"still at it after {SECONDS} s")

    before = signal.signal(signal.SIGALRM, hung)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def _complaint(case: Case, folder: Path, capsys) -> str:
    """What is wrong with how the case ends; '' if nothing is."""
    before = _contents(folder)
    capsys.readouterr()
    sys.stderr.reconfigure(errors="backslashreplace")  # as Python's own is
    try:
        with _alarm(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # those of libraries, of which run_command is not in charge
            status = case.run()
    except Accepted:
        return ""
    except SystemExit as stopped:  # argparse
        status = stopped.code
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    said = "\n".join(line for line in capsys.readouterr().err.splitlines() if not line.startswith("warning: "))
    if status != 2:
        return f"status {status}: {said}"
    if not any(name in said for name in case.names):
        return f"the message names none of {case.names}: {said}"
    if "Traceback" in said or len(said) > 3000:
        return f"no sentence: {said[:3000]}"
    after = _contents(folder)
    if changed := [name for name in before | after if before.get(name) != after.get(name)]:
        return f"changed, or left behind: {changed}"
    return ""


@pytest.mark.slow
@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_damaged_inputs_are_used_or_refused_in_a_sentence(
    kind, count, originals, opened, begun, not_generated, tmp_path, monkeypatch, capsys
):
    if kind in (media, request_json, resume_folder):
        monkeypatch.setattr(infer, "open_weights", lambda args: opened)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    complaints = []
    for number in range(count):
        folder = tmp_path / str(number)
        folder.mkdir()
        monkeypatch.chdir(folder)  # a relative name on the command line lies there
        case = kind(random.Random(f"{kind.__name__} {number}"), folder, originals, begun)
        if complaint := _complaint(case, folder, capsys):
            complaints.append(f"{kind.__name__} {number}: {case.what}\n    {complaint}")
        shutil.rmtree(folder)
    assert not complaints, f"{len(complaints)} of {count}:\n" + "\n".join(complaints)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < MEGABYTES * 1000
