"""How commands end, and what is drawn where."""

import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from itjax.errors import ComputationError, OutputError, UserError
from itjax.progress import SILENT
from itjax.terminal import Terminal, run_command

ROOT = Path(__file__).parents[1]


def failing(error):
    def work():
        raise error

    return work


@pytest.mark.parametrize(
    ("work", "status", "said"),
    [
        (lambda: None, 0, ""),
        (failing(UserError("\x1b[2J\u202egnp.a\r: wrong:\n\ta, é")), 2, "cook: \\x1b[2J\\u202egnp.a\\r: wrong:\n\ta, é\n"),
        (lambda: 75, 75, ""),
        (failing(UserError("a.png: no such file")), 2, "cook: a.png: no such file\n"),
        (failing(OutputError("disk full")), 3, "cook: disk full\nmake room\n"),
        (failing(ComputationError("memory full")), 3, "cook: memory full\n"),
        (failing(KeyboardInterrupt()), 130, "\ncook: stopped\n"),
        (lambda: warnings.warn("too hot", stacklevel=1), 0, "warning: too hot\n"),
    ],
)
def test_how_a_command_ends(work, status, said, capsys):
    assert run_command("cook", work, "stopped", "make room") == status
    assert capsys.readouterr() == ("", said)


# A process of its own: what its last lines print to is closed, or it is sent a signal, at a place in the work.
WORK = """
import os, signal, sys, time
from itjax.terminal import Terminal, run_command

def silence():
    os.dup2(writing, 1)
    Terminal().notice("first")
    os.close(reading)
    Terminal().notice("second")

def refusal():
    os.dup2(writing, 2)
    os.close(reading)
    raise KeyboardInterrupt

def terminate():
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)

reading, writing = os.pipe()
sys.exit(run_command("cook", globals()[sys.argv[1]], "stopped"))
"""


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    ("work", "status", "said"), [("silence", 141, ""), ("refusal", 141, ""), ("terminate", 143, "\ncook: stopped\n")]
)
def test_a_process_that_is_not_heard_or_told_to_end(work, status, said, unbuffered):
    command, environment = [sys.executable, "-c", WORK, work], os.environ | {"PYTHONUNBUFFERED": unbuffered}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (status, said)


def test_a_broken_pipe_of_something_else_keeps_its_traceback(capfd):
    with pytest.raises(BrokenPipeError):
        run_command("cook", failing(BrokenPipeError()), "stopped")


def test_a_defect_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        run_command("cook", lambda: 1 // 0, "stopped")


def test_a_terminal_gets_lines_and_a_log_no_bar(capsys):
    terminal = Terminal()
    with terminal.bar(3, "step") as bar, terminal.stage("stirring"):
        bar.describe("the soup")
        bar.advance()
    printed = capsys.readouterr()
    assert printed.out.startswith("stirring: 0.") and printed.err == ""


def test_a_bar_is_drawn_on_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with Terminal().bar(3, "step", done=1) as bar:
        bar.advance(2)
    assert "3/3" in capsys.readouterr().err


def test_silence(capsys):
    with SILENT.bar(3, "step") as bar, SILENT.stage("stirring"):
        bar.describe("the soup")
        bar.advance()
        SILENT.notice("done")
    assert capsys.readouterr() == ("", "")
