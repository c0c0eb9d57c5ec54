"""What may still be personal: found by its look, shown on the private page alone, with the line where it is."""

import json
from datetime import timedelta
from pathlib import Path

import pytest

from tests.training.preparation.test_conversations import write_csv
from tests.training.preparation.test_leakage import pairs, prepared
from tests.training.preparation.test_prepare import _alternating, _prepare
from training.preparation.privacy import PATTERNS, candidate_counts, pii_candidates, shape

SECRETS = {
    "addresses": ["ada@home.internal", "a.b+c@example.org"],
    "handles": ["@ada_l", "@Ève99"],
    "numbers": ["07700 900023", "1234567", "12-34-56-78"],
    "codes": ["AB12CD34", "x9-kk4_tt", "dQw4w9WgXcQ"],
    "names": ["Marie Dupont", "Zoé Ørsted", "Иван Петров"],
}
HARMLESS = [
    "see you at 18:30 on 2024-03-04", "3.5.2024, or 03/05/24", "it costs 12345", "Hello there", "OK", "@ noon", "a@b",
    "[phone] and [email]", "something-without-digits", "I do", "plan B", "haha2", "100.000",
]  # fmt: skip


@pytest.mark.parametrize(("kind", "text"), [(kind, text) for kind, some in SECRETS.items() for text in some])
@pytest.mark.parametrize("sentence", ["{}", "it is {}, ok?", "({}) and {}", "so\n{}\nok"])
def test_what_looks_personal_is_found(kind: str, text: str, sentence: str) -> None:
    found = pii_candidates(prepared(pairs(["nothing here", sentence.replace("{}", text), "nor here"])))
    assert {one: [left.text for left in some] for one, some in found.items()} == {
        **{one: [] for one in PATTERNS},
        kind: [text],
    }
    assert found[kind][0].times == sentence.count("{}")


@pytest.mark.parametrize("text", HARMLESS)
def test_what_does_not_is_left_alone(text: str) -> None:
    assert not any(pii_candidates(prepared(pairs(["nothing here", text]))).values())


def test_who_writes_is_no_leftover_and_who_does_not_is_one() -> None:
    rows = [
        (path, time, {"Bea": "Bea Vos"}.get(who, who), text) for path, time, who, text in pairs(["ask BEA VOS"] * 3)
    ]
    assert pii_candidates(prepared(rows))["names"] == []
    rows[1] = (*rows[1][:3], "ask Bea Vos and Carl Vos")
    assert [one.text for one in pii_candidates(prepared(rows))["names"]] == ["Carl Vos"]


def test_the_report_counts_shapes_and_quotes_nothing() -> None:
    found = candidate_counts(pii_candidates(prepared(pairs(["@ada_l", "@bob_m", "@ada_l", "AB12CD34"]))))
    assert found["handles"] == {"count": 3, "different": 2, "shapes": {"@aaa_a": 3}}
    assert found["codes"] == {"count": 1, "different": 1, "shapes": {"AA99AA99": 1}}
    assert shape("Zoé Ørsted, 12") == "Aaa Aaaaaa, 99"


def test_the_page_has_the_line_and_nothing_else_the_string(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = _alternating(40)
    rows[3] = (rows[3][0], rows[3][1], "two\nlines")
    rows[20] = (rows[20][0], rows[20][1], "the door:\nAB12CD34")
    path = tmp_path / "data/cleaned/whatsapp/Bea.csv"
    write_csv(path, rows)
    assert _prepare("--me", "Ada") == 0
    told = capsys.readouterr().out
    assert "note: what may still be personal is listed in data/processed/report.html: codes 1" in told
    out = tmp_path / "data/processed"
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "<bdi>AB12CD34</bdi> <small>whatsapp/Bea.csv:23</small>" in page
    assert path.read_text(encoding="utf-8").splitlines()[23 - 1].endswith('"the door:')
    assert "AB12CD34" not in told + (out / "preparation_report.json").read_text(encoding="utf-8")


def test_a_chat_whose_other_side_is_left_out_is_not_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = [(time, who, "AB12CD34" if who == "Ada" else text) for time, who, text in _alternating(8, timedelta(days=1))]
    write_csv(tmp_path / "data/cleaned/whatsapp/Carl.csv", [(t, {"Bea": "Carl"}.get(w, w), x) for t, w, x in rows])
    write_csv(tmp_path / "data/cleaned/whatsapp/Bea.csv", _alternating(40))
    (tmp_path / "me.json").write_text(json.dumps({"user_identifiers": ["Ada"], "exclude_people": ["Carl"]}))
    assert _prepare("--user-config", "me.json") == 0
    page = (tmp_path / "data/processed/report.html").read_text(encoding="utf-8")
    assert "<bdi>AB12CD34</bdi> <small>a chat in which nobody else is left</small>" in page
    assert "Carl" not in page
