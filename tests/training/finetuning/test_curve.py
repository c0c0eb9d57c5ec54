import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from training.finetuning import curve

EPOCHS = [100, 100, 100]
LOG = [{"step": float(step), "loss": 5 - step / 100} for step in range(1, 301)]
EVALUATIONS = [
    {"step": step, "loss": loss, "reply_loss": reply}
    for step, loss, reply in ((0, 5.0, 6.0), (100, 4.0, 4.5), (200, 3.5, 4.25), (300, 3.75, 4.75))
]
PNG = b"\x89PNG\r\n\x1a\n"


def drawn(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, log: Any, evaluations: Any, epochs: list[int], kept: int
) -> Any:
    """The matplotlib figure that is saved."""
    from matplotlib.figure import Figure

    found: list[Any] = []
    honest = Figure.savefig

    def save(self: Any, *arguments: Any, **keys: Any) -> None:
        found.append(self)
        honest(self, *arguments, **keys)

    monkeypatch.setattr(Figure, "savefig", save)
    curve.draw_curve(log, evaluations, tmp_path / curve.CURVE, epochs=epochs, kept=kept)
    assert (tmp_path / curve.CURVE).read_bytes().startswith(PNG)
    return found[0]


def lines(figure: Any) -> dict[str, tuple[list[float], list[float]]]:
    """The points of each line that the legend names."""
    named = {line.get_label(): line for line in figure.axes[0].get_lines()}
    (legend,) = figure.legends
    return {text.get_text(): tuple(map(list, named[text.get_text()].get_data())) for text in legend.get_texts()}


def test_it_shows_what_was_logged_and_marks_what_is_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    figure = drawn(monkeypatch, tmp_path, LOG, EVALUATIONS, EPOCHS, 200)
    shown, axes = lines(figure), figure.axes[0]
    assert shown["held out"] == ([0, 1, 2, 3], [5.0, 4.0, 3.5, 3.75])
    assert shown["held-out replies"] == ([0, 1, 2, 3], [6.0, 4.5, 4.25, 4.75])
    assert shown["kept: step 200 (4.250)"][0] == [2, 2]
    places, losses = shown["training (mean of 10 steps)"]
    assert (places[0], places[-1]) == (0.01, 3.0)
    assert losses[150] == pytest.approx(LOG[150]["loss"], abs=0.01)  # the mean around it, not before or after it
    assert axes.get_xlabel() == "epoch (100 optimiser steps each)"
    assert axes.get_ylabel() == "loss (nats a token; lower is better)"


@pytest.mark.parametrize(
    ("steps", "epochs", "label"),
    [(1, [1], "optimiser step"), (40, [40], "optimiser step"), (11, [5, 6], "epoch (about 6 optimiser steps each)")],
)
def test_short_trainings_without_evaluations_have_a_curve_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, steps: int, epochs: list[int], label: str
) -> None:
    figure = drawn(monkeypatch, tmp_path, LOG[:steps], [], epochs, steps)
    shown = lines(figure)
    assert list(shown) == ["training", f"kept: step {steps}"]
    assert shown["training"][1] == pytest.approx([entry["loss"] for entry in LOG[:steps]])
    assert shown["training"][0][-1] == (steps if len(epochs) == 1 else len(epochs))
    assert figure.axes[0].get_xlabel() == label


def test_a_single_step_is_a_point_that_can_be_seen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    figure = drawn(monkeypatch, tmp_path, LOG[:1], [], [1], 1)
    assert figure.axes[0].get_lines()[0].get_marker() == "o"


def test_the_same_numbers_are_the_same_bytes(tmp_path: Path) -> None:
    for name, kept in (("a", 200), ("b", 200), ("c", 100)):
        curve.draw_curve(LOG, EVALUATIONS, tmp_path / name, epochs=EPOCHS, kept=kept)
    first, again, other = ((tmp_path / name).read_bytes() for name in "abc")
    assert first == again
    assert first != other
    assert b"matplotlib" not in first.lower()


def test_nobodys_home_is_written_to_or_asked(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / ".config" / "matplotlib").mkdir(parents=True)
    (home / ".config" / "matplotlib" / "matplotlibrc").write_text("axes.facecolor: black\nbackend: tkagg\n")
    (home / "matplotlibrc").write_text("axes.facecolor: black\n")
    before = sorted(home.rglob("*"))
    code = (
        "import sys; from pathlib import Path; from training.finetuning.curve import draw_curve as draw; "
        f"draw({LOG!r}, {EVALUATIONS!r}, Path(sys.argv[1]), epochs={EPOCHS!r}, kept=200)"
    )
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("XDG_", "MPL"))}
    environment |= {"HOME": str(home), "PYTHONPATH": os.pathsep.join([os.getcwd(), os.environ["PYTHONPATH"]])}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(tmp_path / "there.png")],
        env=environment,
        cwd=home,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert sorted(home.rglob("*")) == before
    curve.draw_curve(LOG, EVALUATIONS, tmp_path / "here.png", epochs=EPOCHS, kept=200)
    assert (tmp_path / "there.png").read_bytes() == (tmp_path / "here.png").read_bytes()


@pytest.mark.parametrize("what", ["package", "disk", "figures"])
def test_a_picture_costs_no_training(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    path, log = tmp_path / curve.CURVE, LOG
    if what == "package":
        monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    elif what == "disk":
        path = tmp_path / "nowhere" / curve.CURVE
    else:
        log = [{"step": 1.0}]
    curve.draw_curve(log, EVALUATIONS, path, epochs=EPOCHS, kept=200)
    error = capsys.readouterr().err
    assert error.startswith("ghost train: loss_curve.png was not drawn: ")
    assert error.count("\n") == 1
    assert not path.exists()


def test_sampled_replies_are_below_the_losses(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sampled = [{**one, "ended": 0.5, "distinct_2": 0.75} for one in EVALUATIONS]
    figure = drawn(monkeypatch, tmp_path, LOG, sampled, EPOCHS, 200)
    above, below = figure.axes
    named = {line.get_label(): list(line.get_ydata()) for line in below.get_lines()}
    assert named == {"replies that end": [0.5] * 4, "distinct-2 of them": [0.75] * 4}
    assert (above.get_xlabel(), below.get_xlabel()) == ("", "epoch (100 optimiser steps each)")
    assert {text.get_text() for text in figure.legends[0].get_texts()} >= set(named)
