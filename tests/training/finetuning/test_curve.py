"""The plot of a training: its points are those of the report, and it needs nothing but the standard library."""

import math
import re
from html import unescape
from typing import Any

import pytest

from training.finetuning.curve import curve_page

EPOCHS = [100, 100, 100]
LOG = [{"step": float(step), "loss": 5 - step / 100} for step in range(1, 301)]
EVALUATIONS = [
    {"step": step, "loss": loss, "reply_loss": reply}
    for step, loss, reply in ((0, 5.0, 6.0), (100, 4.0, 4.5), (200, 3.5, 4.25), (300, 3.75, 4.75))
]


def drawn(
    log: Any, evaluations: Any, epochs: list[int], kept: int | None
) -> tuple[str, list[list[tuple[float, float]]]]:
    """The text that is shown, and the points of each line in the order drawn: (share of the width, value)."""
    page = curve_page(log, evaluations, epochs=epochs, kept=kept)
    plot = page[page.index('class="plot"') :]
    plot = plot[: plot.index("</figure>")]
    axis = [
        (float(value), float(place) + 7)
        for place, value in re.findall(r"margin-top:([-\d.]+)px[^>]*>([-\d.,]+)<", plot)
    ]
    (low, bottom), (high, top) = axis[0], axis[-1]
    shapes = re.findall(r'<path d="M([^"]*)" class="(?:line|faint)', plot)
    points = [[tuple(map(float, point.split())) for point in shape.split("L")] for shape in shapes]
    lines = [[(x / 1000, low + (bottom - y) / (bottom - top) * (high - low)) for x, y in line] for line in points]
    return unescape(re.sub(r"<style>.*</style>|<[^>]*>", " ", page, flags=re.DOTALL)), lines


def test_it_shows_what_was_logged_and_marks_what_is_kept() -> None:
    text, (raw, mean, held_out, replies) = drawn(LOG, EVALUATIONS, EPOCHS, 200)
    assert [x for x, _ in held_out] == pytest.approx([0, 1 / 3, 2 / 3, 1], abs=1e-3)
    assert [y for _, y in held_out] == pytest.approx([5.0, 4.0, 3.5, 3.75], abs=0.01)
    assert [y for _, y in replies] == pytest.approx([6.0, 4.5, 4.25, 4.75], abs=0.01)
    assert [y for _, y in raw] == pytest.approx([entry["loss"] for entry in LOG], abs=0.01)
    assert mean[150][1] == pytest.approx(LOG[150]["loss"], abs=0.02)  # the mean around it, not before or after it
    assert (mean[0][0], mean[-1][0]) == pytest.approx((1 / 300, 1), abs=1e-3)
    assert "Dashed: kept, step 200 (4.250)." in text
    assert "training (mean of 10 steps)" in text
    assert re.search(r"\s1\s+2\s+3\s+Nats a token", text)


@pytest.mark.parametrize(("steps", "epochs"), [(1, [1]), (40, [40]), (11, [5, 6])])
def test_short_trainings_without_evaluations_have_a_curve_too(steps: int, epochs: list[int]) -> None:
    text, (training, *others) = drawn(LOG[:steps], [], epochs, steps)
    assert [y for _, y in training] == pytest.approx([entry["loss"] for entry in LOG[:steps]], abs=0.01)
    assert (training[-1][0], others) == (1, [])
    assert "held" not in text


def test_before_the_first_step_and_with_a_loss_of_nan_there_is_a_page() -> None:
    assert drawn([], [], EPOCHS, None)[1] == []
    broken = [EVALUATIONS[0], {"step": 100, "loss": math.nan, "reply_loss": math.inf}]
    _, (_, *heldout) = drawn(LOG[:20], broken, EPOCHS, None)
    assert [len(line) for line in heldout] == [1, 1]


def test_the_same_numbers_are_the_same_bytes() -> None:
    first, again, other = (curve_page(LOG, EVALUATIONS, epochs=EPOCHS, kept=kept) for kept in (200, 200, 100))
    assert first == again != other


def test_sampled_replies_are_below_the_losses() -> None:
    sampled = [{**one, "ended": 0.5, "distinct_2": 0.75} for one in EVALUATIONS]
    page = curve_page(LOG, sampled, epochs=EPOCHS, kept=200)
    assert page.count('class="plot"') == 2
    below = page[page.rindex("<figure") :]
    assert re.findall(r'class="line t(\d)', below) == ["4", "5"]
    assert "replies that end by themselves" in below
