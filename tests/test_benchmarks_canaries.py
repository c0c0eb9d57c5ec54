"""The benchmark of canaries: its table, and what it asks about beside what was planted."""

import json
from pathlib import Path

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
    row = by_repetitions([Exposure(0, 1.0, 1.0, False)])
    text = canaries.page({"base": [row], "trained": [row]}, tmp_path, [42], 4)
    assert "1,951 training lines, of which 1,110 hold" in " ".join(text.split())
    assert max(map(len, text.splitlines())) <= 120
