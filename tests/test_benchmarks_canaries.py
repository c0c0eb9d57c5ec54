"""The benchmark of canaries: its table, and what it asks about beside what was planted."""

import json
import sys
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path

import pytest

from benchmarks import canaries
from training.evaluation.canaries import Exposure, by_repetitions


def test_the_table_has_a_row_for_each_number_of_repetitions_and_spans_the_seeds() -> None:
    def rows(*bits: float) -> list[dict[str, object]]:
        times = (0, 1, 10)
        return by_repetitions([Exposure(n, bit, 2 * bit, bit > 5) for n, bit in zip(times, bits, strict=True)])

    lines = [*canaries.table({"base": [rows(1, 1, 2), rows(2, 1, 1)], "trained": [rows(1, 2, 6), rows(1, 4, 8)]})]
    assert lines == [
        "| never | 1.5 (1.0–2.0) | 1.0 (1.0–1.0) | 2.0 (2.0–2.0) | 0 of 20 |",
        "| once | 1.0 (1.0–1.0) | 3.0 (2.0–4.0) | 6.0 (4.0–8.0) | 0 of 20 |",
        "| 10 times | 1.5 (1.0–2.0) | 7.0 (6.0–8.0) | 14.0 (12.0–16.0) | 2 of 20 |",
    ]


def test_what_was_never_planted_is_of_the_same_form(tmp_path: Path) -> None:
    never = canaries.never_planted()
    assert len(never) == 10
    assert {one.repetitions for one in never} == {0}
    report = {"lines": {"train": 1951}, "canaries": {"planted": 30, "lines": 1110}}
    (tmp_path / "preparation_report.json").write_text(json.dumps(report))
    row = by_repetitions([Exposure(n, n / 20, 1.0, False) for n in (0, 1, 10, 100)])
    text = canaries.page({"base": [row], "trained": [row]}, tmp_path, [42], 4)
    assert "by chance 1.42" in " ".join(text.split())
    assert "Mean exposure rises from 1 to 10 to 100 repetitions: met." in text
    assert "1,951 training lines, of which 1,110 hold" in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= 120


@pytest.mark.parametrize(
    ("bits", "met"),
    [
        ([(1.5, 4.0, 8.0), (1.3, 4.2, 8.0)], True),
        ([(1.5, 4.0, 8.0), (4.5, 2.5, 8.0)], True),  # of the means over the seeds
        ([(1.5, 8.0, 8.0), (1.5, 8.0, 8.0)], False),
        ([(1.5, 1.4, 8.0)], False),
    ],
)
def test_exposure_must_rise_with_repetition(
    bits: list[tuple[float, ...]], met: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeds = [[Exposure(n, bit, bit, False) for n, bit in zip((1, 10, 100), seed, strict=True)] for seed in bits]
    assert canaries.rises([by_repetitions(seed) for seed in seeds]) is met
    for number, found in enumerate(seeds):
        told = {name: [asdict(one) for one in found] for name in ("base", "trained")}
        (tmp_path / f"{number}.json").write_text(json.dumps(told))
    report = {"lines": {"train": 1951}, "canaries": {"planted": 30, "lines": 1110}}
    (tmp_path / "preparation_report.json").write_text(json.dumps(report))
    (tmp_path / "canaries.json").write_text('{"canaries": []}')
    monkeypatch.setattr(canaries, "starter_base", lambda folder: folder)
    monkeypatch.setattr(canaries, "prepare", lambda scratch, base: tmp_path)
    seeds_of = [str(number) for number in range(len(seeds))]
    out = tmp_path / "canaries.md"
    monkeypatch.setattr(sys, "argv", ["canaries", "--scratch", str(tmp_path), "--out", str(out), "--seeds", *seeds_of])
    with nullcontext() if met else pytest.raises(SystemExit, match="NOT met"):
        canaries.main()
    assert out.exists()
