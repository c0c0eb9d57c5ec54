import io
import json

import pytest
from rich.console import Console
from rich.table import Table

from ghost import console
from ghost.cli import fail


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What a terminal of 100 columns is sent."""
    sent = io.StringIO()
    monkeypatch.setattr(console, "console", Console(file=sent, force_terminal=True, width=100, color_system=None))
    return sent


def test_a_bar_within_a_bar_is_a_line_below_it(terminal: io.StringIO) -> None:
    with console.progress("training", 7) as outer:
        outer.advance(3)
        outer.note("loss 2.5, 41 min left")
        with console.progress("held-out [bold]loss[/bold]", 5) as inner:
            inner.advance(2)
            console._running[0].refresh()
            both = terminal.getvalue().splitlines()[-2:]
        console._running[0].refresh()
        alone = terminal.getvalue().splitlines()[-1]
    assert [line.split()[0].split("K")[-1] for line in both] == ["training", "held-out"]
    assert "3/7 loss 2.5, 41 min left" in both[0]
    assert "[bold]loss[/bold]" in both[1]  # a file's name may hold brackets
    assert "2/5" in both[1]
    assert "training" in alone
    assert "held-out" not in alone
    assert not console._running


HOSTILE = "Noa\x1b[2J\x07\x9b31m\r\x7f"
SPELLED = r"Noa\u001b[2J\u0007\u009b31m\u000d\u007f"


def test_escape_sequences_are_spelled_out(capsys: pytest.CaptureFixture[str]) -> None:
    sent = io.StringIO()
    table = Table(HOSTILE)
    table.add_row(HOSTILE)
    there = console.PlainConsole()
    there.file = sent
    there.print(HOSTILE)
    there.print(table)
    console.echo(HOSTILE)
    console.echo(HOSTILE, error=True)
    printed = sent.getvalue() + "".join(capsys.readouterr())
    assert printed.count(SPELLED) == 5
    assert not {*printed} & {*"\x1b\x07\x9b\r\x7f"}
    assert console.visible("a\tb\nc é 👩\u200d🍳") == "a\tb\nc é 👩\u200d🍳"


def test_a_long_line_is_left_whole_and_a_table_is_not_wider_than_the_terminal() -> None:
    there = console.PlainConsole()
    there.file, there.width = io.StringIO(), 20
    there.print("word " * 20 + "/a/path")
    assert there.file.getvalue() == "word " * 20 + "/a/path\n"
    table = Table("column " * 9)
    there.print(table)
    assert max(map(len, there.file.getvalue().splitlines()[1:])) == 20


def test_json_with_control_characters_stays_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    console.echo(json.dumps([HOSTILE], ensure_ascii=False))
    assert json.loads(capsys.readouterr().out) == [HOSTILE]


def test_a_failure_cannot_move_the_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    fail("extract", HOSTILE)
    assert capsys.readouterr().err == f"ghost extract: {SPELLED}\n"


def test_a_wait_of_unknown_length_counts_nothing(terminal: io.StringIO) -> None:
    with console.progress("loading the model"):
        console._running[0].refresh()
    assert "loading the model" in terminal.getvalue()
    assert "0/?" not in terminal.getvalue()


def test_a_log_gets_a_line_now_and_then_of_what_is_being_done(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 1000.0
    monkeypatch.setattr(console, "lines", console.Lines(clock=lambda: now))
    with console.progress("reading", 7) as bar:
        now += console.LINE_EVERY - 1
        bar.advance()
    with console.progress("replies: the [base]", 200) as bar:
        for _ in range(100):
            now += 10
            bar.advance()
        bar.note("loss 2.5")
        with console.progress("loading"):
            now += console.LINE_EVERY
            bar.advance()
    now += console.LINE_EVERY
    with console.progress("hashing"), console.progress("own lines", 7, logged=False) as bar:
        now += console.LINE_EVERY
        bar.advance()
    told = capsys.readouterr()
    assert told.out == ""  # it may be JSON
    assert told.err.splitlines() == [
        "replies: the [base]: 1 of 200, 33 min left",
        "replies: the [base]: 19 of 200, 30 min left",
        "replies: the [base]: 37 of 200, 27 min left",
        "replies: the [base]: 55 of 200, 24 min left",
        "replies: the [base]: 73 of 200, 21 min left",
        "replies: the [base]: 91 of 200, 18 min left",
        "replies: the [base]: 101 of 200, loss 2.5",
        "hashing …",
    ]


class FullDisk(io.StringIO):
    def write(self, text: str) -> int:
        raise OSError(28, "No space left on device")


def test_a_log_that_cannot_be_written_costs_its_line(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(console, "lines", console.Lines(clock=lambda: now))
    with console.progress("x", 2) as bar, monkeypatch.context() as patch:
        patch.setattr("sys.stderr", FullDisk())
        now = console.LINE_EVERY
        bar.advance()


def test_there_is_none_where_nobody_looks(capsys: pytest.CaptureFixture[str]) -> None:
    with console.progress("training", 7) as bar, console.progress("within", 2) as inner:
        bar.advance()
        bar.note("a note")
        inner.advance()
    assert capsys.readouterr().out == ""
