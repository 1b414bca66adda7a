"""How commands end, and what is drawn where."""

import warnings

import pytest

from itjax.errors import OutputError, UserError
from itjax.progress import SILENT
from itjax.terminal import Terminal, run_command


def failing(error):
    def work():
        raise error

    return work


@pytest.mark.parametrize(
    ("work", "status", "said"),
    [
        (lambda: None, 0, ""),
        (lambda: 75, 75, ""),
        (failing(UserError("a.png: no such file")), 2, "cook: a.png: no such file\n"),
        (failing(OutputError("disk full")), 3, "cook: disk full\nmake room\n"),
        (failing(KeyboardInterrupt()), 130, "\ncook: stopped\n"),
        (lambda: warnings.warn("too hot", stacklevel=1), 0, "warning: too hot\n"),
    ],
)
def test_how_a_command_ends(work, status, said, capsys):
    assert run_command("cook", work, "stopped", "make room") == status
    assert capsys.readouterr() == ("", said)


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
