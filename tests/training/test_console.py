import io

import pytest
from rich.console import Console

from training import console


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


def test_a_wait_of_unknown_length_counts_nothing(terminal: io.StringIO) -> None:
    with console.progress("loading the model"):
        console._running[0].refresh()
    assert "loading the model" in terminal.getvalue()
    assert "0/?" not in terminal.getvalue()


def test_there_is_none_where_nobody_looks(capsys: pytest.CaptureFixture[str]) -> None:
    with console.progress("training", 7) as bar, console.progress("within", 2) as inner:
        bar.advance()
        bar.note("a note")
        inner.advance()
    assert capsys.readouterr().out == ""
