"""The loss curve as a picture beside the adapter: did it learn, did it memorise, which step was kept."""

import io
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from training.finetuning.watching import epochs_done

NAME = "loss_curve.png"
# Okabe and Ito's colours, which people who see fewer of them can tell apart (https://jfly.uni-koeln.de/color/).
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#666666"
PURPLE, YELLOW = "#CC79A7", "#E69F00"
POINTS = 30  # of the training loss, averaged: a single step's is mostly noise


def draw(
    log: Sequence[Mapping[str, float]],
    evaluations: Sequence[Mapping[str, float]],
    path: Path,
    *,
    epochs: Sequence[int],
    kept: int,
) -> None:
    """Training loss, held-out loss and that of replies alone, by epoch; `kept` is the step whose weights are kept.
    Below them, where replies were sampled, how many end by themselves and how varied they are.

    `log` and `evaluations` are those of training_report.json, `epochs` the steps that each epoch has. A picture must
    not cost a training: what goes wrong is said on stderr, and there is none.
    """
    try:
        with _matplotlib():
            picture = _render(log, evaluations, epochs, kept)
        path.write_bytes(picture)
    except Exception as error:  # a package that is missing or broken, fonts, memory, the disk
        why = " ".join(f"{type(error).__name__}: {error}".split())
        print(f"ghost train: {path.name} not drawn: {why}", file=sys.stderr)


def _render(
    log: Sequence[Mapping[str, float]], evaluations: Sequence[Mapping[str, float]], epochs: Sequence[int], kept: int
) -> bytes:
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    def place(step: float) -> float:
        return step if len(epochs) == 1 else epochs_done(int(step), epochs)

    sampled = [entry for entry in evaluations if "ended" in entry]
    figure = Figure(figsize=(8, 6 if sampled else 4.5), dpi=150, layout="constrained")
    ratios = (3, 1) if sampled else (1,)
    axes, *below = figure.subplots(len(ratios), sharex=True, squeeze=False, height_ratios=ratios)[:, 0]
    at, losses = [place(entry["step"]) for entry in log], [entry["loss"] for entry in log]
    span = max(1, round(len(losses) / POINTS))
    if span > 1:
        axes.plot(at, losses, color=BLUE, alpha=0.15, linewidth=0.75)
    steps = round((log[-1]["step"] - log[0]["step"]) / (len(log) - 1) * span) if span > 1 else 1
    label = f"training (mean of {steps:,} steps)" if span > 1 else "training"
    axes.plot(at, _averaged(losses, span), color=BLUE, label=label, marker="" if len(at) > 1 else "o")
    for key, label, colour in (("loss", "held out", GREEN), ("reply_loss", "held-out replies", ORANGE)):
        if evaluations:
            heights = [entry[key] for entry in evaluations]
            axes.plot([place(entry["step"]) for entry in evaluations], heights, "o-", color=colour, ms=4, label=label)
    found = [entry["reply_loss"] for entry in evaluations if entry["step"] == kept]
    axes.plot([place(kept)] * len(found), found, "o", color=ORANGE, ms=10, fillstyle="none", markeredgewidth=2)
    words = f"kept: step {kept:,}" + "".join(f" ({loss:.3f})" for loss in found)
    axes.axvline(place(kept), color=GREY, linewidth=1, linestyle=(0, (4, 3)), zorder=0, label=words)
    axes.margins(x=0.02)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    each = f"{epochs[0]:,}" if len(set(epochs)) == 1 else f"about {sum(epochs) / len(epochs):,.0f}"
    figure.axes[-1].set_xlabel("optimiser step" if len(epochs) == 1 else f"epoch ({each} optimiser steps each)")
    axes.set_ylabel("loss (nats a token; lower is better)")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    for axis in below:
        _replies(axis, sampled, place)
    figure.legend(loc="outside upper center", ncols=4, frameon=False, fontsize=9)  # where it hides nothing
    picture = io.BytesIO()
    figure.savefig(picture, format="png", metadata={"Software": None})  # the same bytes from every machine
    return picture.getvalue()


def _replies(axes: Any, sampled: Sequence[Mapping[str, float]], place: Callable[[float], float]) -> None:
    """The shares of samples.Answered, below the losses."""
    for key, label, colour in (("ended", "replies that end", PURPLE), ("distinct_2", "distinct-2 of them", YELLOW)):
        some = [entry for entry in sampled if key in entry]
        at = [place(entry["step"]) for entry in some]
        axes.plot(at, [entry[key] for entry in some], "s-", color=colour, ms=4, label=label)
    axes.set_ylim(-0.05, 1.05)
    axes.set_ylabel("share")
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _averaged(values: Sequence[float], span: int) -> Any:
    """(len(values),) the mean of the `span` values around each, of fewer at the ends."""
    ones = np.ones(span)
    return np.convolve(values, ones, mode="same") / np.convolve(np.ones(len(values)), ones, mode="same")


@contextmanager
def _matplotlib() -> Iterator[None]:
    """With matplotlib's own look, whatever the person has configured, and its list of fonts kept out of their home."""
    with tempfile.TemporaryDirectory(prefix="ghost-matplotlib-") as folder:
        chosen = os.environ.get("MPLCONFIGDIR")
        os.environ.setdefault("MPLCONFIGDIR", folder)
        try:
            import matplotlib.font_manager
            import matplotlib.style

            with matplotlib.style.context("default"):
                yield
        finally:
            if chosen is None:
                os.environ.pop("MPLCONFIGDIR")
