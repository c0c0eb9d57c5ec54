"""The wrong person: the same conversations as Noa's to the word, except for how her side of them is written."""

import csv
from pathlib import Path

from ghost.demo.chats import Kind, messages, noa_chats
from ghost.demo.people import NOA
from tests.ghost.demo.another import ROMY, SHARES, retold, write_cleaned


def test_the_others_say_the_same_word_for_word() -> None:
    for title in SHARES:
        one, two = (
            [(m.time, m.sender.name, m.text) for m in retold(title, who, seed=7, count=300) if m.sender is not who]
            for who in (NOA, ROMY)
        )
        assert one == two
        assert len(one) > 50


def test_noa_retold_is_noa() -> None:
    title = "Jun Marrowby"
    told = [(m.time, m.kind, m.text) for m in retold(title, NOA, seed=7, count=300)]
    assert told == [(m.time, m.kind, m.text) for m in messages(noa_chats()[title], seed=7, count=300)]


def test_the_style_is_another_one() -> None:
    def texts(who: object) -> list[str]:
        return [
            message.text
            for title in SHARES
            for message in retold(title, who, seed=7, count=200)  # type: ignore[arg-type]
            if message.sender is who and message.kind is Kind.TEXT
        ]

    noa, romy = texts(NOA), texts(ROMY)
    assert sum(text == text.lower() for text in noa) / len(noa) > 0.95
    assert sum(text == text.lower() for text in romy) / len(romy) < 0.05
    assert len(noa) > 1.4 * len(romy)  # bursts
    assert not {"😭", "🫶", "<3", "mdr"} & {word for text in romy for word in text.split()}


def test_the_files_are_those_of_an_extraction(tmp_path: Path) -> None:
    write_cleaned(tmp_path, ROMY, seed=7, messages=400)
    paths = sorted(tmp_path.rglob("*.csv"))
    assert {path.parent.name for path in paths} == {"whatsapp", "telegram", "messenger"}
    assert len(paths) == 8
    with paths[0].open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert {"timestamp", "sender", "message"} == set(rows[0])
    assert "Romy Castelvieux" in {row["sender"] for row in rows}
    assert not any("Noa" in row["sender"] for row in rows)
