"""What the parsers read is what the invented people wrote: two spellings of each format, written apart, agree."""

import csv
from pathlib import Path

from ghost.cli import main
from ghost.demo.chats import Kind, messages, noa_chats
from ghost.demo.exports import write_exports


def test_extraction_gives_back_every_text_in_order(tmp_path: Path) -> None:
    summary = write_exports(tmp_path / "raw", seed=11, messages=1_000)
    assert main(["extract", str(tmp_path / "raw"), "--out", str(tmp_path / "cleaned"), "--pii", "off"]) == 0
    read: dict[str, list[list[str]]] = {}
    for path in (tmp_path / "cleaned").rglob("*.csv"):
        with path.open(encoding="utf-8", newline="") as stream:
            read.setdefault(path.parent.name, []).append([row["message"] for row in csv.DictReader(stream)])
    assert {platform: sum(map(len, chats)) for platform, chats in read.items()} == summary.texts
    for chat in noa_chats().values():
        stream_of_chat = messages(chat, seed=11, count=40)
        written = [message.text for message in stream_of_chat if message.kind is Kind.TEXT]
        assert any(texts[: len(written)] == written for chats in read.values() for texts in chats), chat.title
