"""The exports: what the platforms' own programs would have written, byte for byte the same from the same seed."""

import hashlib
import json
import re
import zipfile
from pathlib import Path

import pytest

from ghost.demo.exports import NOA_ON_MESSENGER, NOA_ON_TELEGRAM, NOA_ON_WHATSAPP, ExportSummary, write_exports

MESSAGES = 2_000


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ExportSummary]:
    folder = tmp_path_factory.mktemp("exports")
    return folder, write_exports(folder, seed=7, messages=MESSAGES)


def digests(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def repaired(text: str) -> str:
    return text.encode("latin-1").decode()


def test_the_same_seed_gives_the_same_bytes(exported: tuple[Path, ExportSummary], tmp_path: Path) -> None:
    folder, summary = exported
    assert write_exports(tmp_path / "again", seed=7, messages=MESSAGES) == summary
    assert digests(tmp_path / "again") == digests(folder)
    write_exports(tmp_path / "other", seed=8, messages=MESSAGES)
    assert not set(digests(tmp_path / "other").values()) & set(digests(folder).values())


def test_the_summary_counts_every_message(exported: tuple[Path, ExportSummary]) -> None:
    _, summary = exported
    assert sum(summary.messages.values()) == MESSAGES
    assert all(0.9 < summary.texts[platform] / count < 1 for platform, count in summary.messages.items())
    assert set(summary.names) == {NOA_ON_WHATSAPP, NOA_ON_TELEGRAM, NOA_ON_MESSENGER}


def test_whatsapp_android(exported: tuple[Path, ExportSummary]) -> None:
    folder, _ = exported
    raw = (folder / "WhatsApp Chat with Malo Cendreval.txt").read_bytes()
    assert b"\r" not in raw
    first, *lines = raw.decode().removesuffix("\n").split("\n")
    assert re.fullmatch(r"\d\d/\d\d/\d{4}, \d\d:\d\d - Messages and calls are end-to-end encrypted\..*", first)
    headers = [line for line in lines if re.match(r"\d\d/\d\d/\d{4}, \d\d:\d\d - ", line)]
    assert len(headers) < len(lines)  # some messages have several lines
    assert any(int(line[:2]) > 12 for line in headers)  # so the day comes first, for whoever asks
    assert any(line.endswith(": <Media omitted>") for line in headers)
    assert any(f" - {NOA_ON_WHATSAPP}: " in line for line in headers)


def test_whatsapp_ios(exported: tuple[Path, ExportSummary]) -> None:
    folder, _ = exported
    with zipfile.ZipFile(folder / "WhatsApp Chat - Bastien Tournevire.zip") as archive:
        assert archive.namelist() == ["_chat.txt"]
        raw = archive.read("_chat.txt").decode()
    records = raw.removesuffix("\r\n").split("\r\n")
    assert all(re.match(r"\u200e?\[\d\d/\d\d/\d{4}, \d\d:\d\d:\d\d\] [^:]+: ", record) for record in records)
    assert any("\n" in record for record in records)
    media = [record for record in records if record.endswith(" omitted")]
    assert media
    assert all(record.startswith("\u200e[") and ": \u200e" in record for record in media)


def test_telegram_single_chat(exported: tuple[Path, ExportSummary]) -> None:
    folder, _ = exported
    chat = json.loads((folder / "ChatExport_2026-03-01" / "result.json").read_text(encoding="utf-8"))
    assert list(chat) == ["name", "type", "id", "messages"]
    assert chat["type"] == "personal_chat"
    times = [int(row["date_unixtime"]) for row in chat["messages"]]
    assert times == sorted(times)
    assert {row["from"] for row in chat["messages"] if row["type"] == "message"} == {chat["name"], NOA_ON_TELEGRAM}


def test_telegram_account(exported: tuple[Path, ExportSummary]) -> None:
    folder, _ = exported
    account = json.loads((folder / "DataExport_2026-03-01" / "result.json").read_text(encoding="utf-8"))
    saved, private, group = account["chats"]["list"]
    assert (saved["type"], saved["messages"]) == ("saved_messages", [])
    assert group["type"] == "private_group"
    assert group["messages"][0]["action"] == "create_group"
    assert group["messages"][0]["members"][0] == NOA_ON_TELEGRAM
    rows = [row for row in [*private["messages"], *group["messages"]] if row["type"] == "message"]
    assert all("".join(entity["text"] for entity in row["text_entities"]) == flat(row["text"]) for row in rows)
    assert any("photo" in row for row in rows)
    assert account["personal_information"]["user_id"] in {int(row["from_id"].removeprefix("user")) for row in rows}


def flat(text: str | list[str | dict[str, str]]) -> str:
    return text if isinstance(text, str) else "".join(part if isinstance(part, str) else part["text"] for part in text)


def test_links_and_numbers_become_entities(tmp_path: Path) -> None:
    write_exports(tmp_path, seed=3, messages=4_000)
    chat = json.loads((tmp_path / "ChatExport_2026-03-01" / "result.json").read_text(encoding="utf-8"))
    mixed = [row["text"] for row in chat["messages"] if isinstance(row["text"], list)]
    types = {part["type"] for text in mixed for part in text if isinstance(part, dict)}
    assert types == {"link", "email", "phone"}


def test_messenger(exported: tuple[Path, ExportSummary]) -> None:
    folder, summary = exported
    threads = sorted((folder / "facebook-noabrindelune" / "messages" / "inbox").iterdir())
    total = 0
    for thread in threads:
        assert sorted(path.name for path in thread.iterdir()) == ["message_1.json", "message_2.json"]
        newest, older = (json.loads((thread / f"message_{number}.json").read_bytes()) for number in (1, 2))
        times = [row["timestamp_ms"] for row in newest["messages"] + older["messages"]]
        assert times == sorted(times, reverse=True)
        total += len(times)
        senders = {repaired(row["sender_name"]) for row in newest["messages"]}
        assert senders == {repaired(member["name"]) for member in newest["participants"]}
        assert NOA_ON_MESSENGER in senders
    assert total == summary.messages["messenger"]


def test_messenger_spells_every_byte_of_utf8_on_its_own(exported: tuple[Path, ExportSummary]) -> None:
    folder, _ = exported
    raw = b"".join(path.read_bytes() for path in sorted(folder.glob("facebook-*/messages/inbox/*/message_1.json")))
    assert raw.isascii()
    assert b"\\u00c3\\u0089lise Fontgrise" in raw
    assert max(int(code, 16) for code in re.findall(rb"\\u([0-9a-f]{4})", raw)) <= 0xFF


def test_an_export_of_a_few_messages(tmp_path: Path) -> None:
    assert sum(write_exports(tmp_path, seed=1, messages=30).messages.values()) == 30
