"""Google Chat's Takeout: localized dates, one person under several spellings of an address, titles of direct chats."""

import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from ghost.errors import ExportError
from tests.training.extraction.exports import records, save
from training.extraction.extract import gather
from training.extraction.platform import Kind
from training.extraction.platforms import google_chat
from training.extraction.source import Source

FORMATS = Path(__file__).parents[5] / "shared" / "formats" / "google_chat" / "ChatLab_ChatLab" / "Google Chat"

DATE = "Friday, May 29, 2026 at 3:00:29\u202fAM UTC"
KAY = {"name": "Kay Example", "email": "Kay@Example.com", "user_type": "Human"}
ADA = {"name": "Ada", "email": "ada@example.com", "user_type": "Human"}
FOLDER = "Takeout/Google Chat/Groups/DM abc"


def entry(text: Any = "hello", **fields: Any) -> dict[str, Any]:
    return {"creator": KAY, "created_date": DATE, "text": text, "message_id": "t/m", **fields}


def chat(folder: Path, *messages: Any, **group: Any) -> Path:
    save(folder, {"user": ADA}, "Takeout/Google Chat/Users/User 1/user_info.json")
    save(folder, {"members": [ADA, KAY], **group}, f"{FOLDER}/group_info.json")
    return save(folder, {"messages": list(messages)}, f"{FOLDER}/messages.json")


@pytest.mark.parametrize(
    ("written", "timestamp"),
    [
        (DATE, "2026-05-29T03:00:29+00:00"),
        ("Friday, May 29, 2026 at 3:00:29 PM UTC", "2026-05-29T15:00:29+00:00"),
        ("Friday, May 29, 2026 at 12:00:29\u202fAM UTC", "2026-05-29T00:00:29+00:00"),
        ("Friday, May 29, 2026 at 12:00:29\u00a0p.m. UTC", "2026-05-29T12:00:29+00:00"),
        ("Friday, 29 May 2026 at 23:00:29 UTC", "2026-05-29T23:00:29+00:00"),
        ("2026年5月29日星期五 UTC 03:00:29", "2026-05-29T03:00:29+00:00"),
        ("Friday, May 29, 2026 at 13:00:29 PM UTC", None),
        ("Friday, Maybe 29, 2026 at 3:00:29 AM UTC", None),
        ("Friday, May 32, 2026 at 3:00:29 AM UTC", None),
        ("Friday, May 29, 2026 at 3:00:29 AM PST", None),
        ("vendredi 29 mai 2026 à 03:00:29 UTC", None),
        ("", None),
    ],
)
def test_dates(written: str, timestamp: str | None) -> None:
    assert google_chat.read_date(written) == timestamp


def test_a_direct_chat_is_called_after_the_other(tmp_path: Path) -> None:
    (record,) = records(chat(tmp_path, entry("a\r\nb")))
    assert record[1:7] == ("2026-05-29T03:00:29+00:00", "Kay Example", "a\nb", Kind.MESSAGE, 1, "t/m")
    assert (record.chat.key, record.chat.title, record.chat.is_id) == ("DM abc", "Kay Example", True)


def test_in_a_zip(tmp_path: Path) -> None:
    chat(tmp_path / "files", entry())
    with zipfile.ZipFile(tmp_path / "takeout.zip", "w") as archive:
        for file in sorted((tmp_path / "files").rglob("*.json")):
            archive.write(file, file.relative_to(tmp_path / "files"))
    account, (conversation,) = gather([tmp_path / "takeout.zip"], None, None, 1)
    assert conversation.chat.title == "Kay Example"
    assert not account.problems


def test_titles_without_the_owner_and_without_anything(tmp_path: Path) -> None:
    path = chat(tmp_path, entry(), name="Climbing")
    assert records(path)[0].chat.title == "Climbing"
    chat(tmp_path, entry())
    (tmp_path / "Takeout/Google Chat/Users/User 1/user_info.json").write_text("[", encoding="utf-8")
    assert records(path)[0].chat.title == "Ada, Kay Example"
    (path.parent / "group_info.json").unlink()
    assert records(path)[0].chat.title == "DM abc"


def test_one_person_under_one_name(tmp_path: Path) -> None:
    creators = [
        {"name": "kay (old)", "email": "KAY@example.com"},
        {"name": "Zoe", "email": "z@example.com"},
        {"email": "Z@example.com"},
        {"name": "nobody's address"},
        {"email": "alone@example.com"},
        {"name": 5, "email": 6},
    ]
    path = chat(tmp_path, *(entry(creator=creator) for creator in creators))
    senders = [record.sender for record in records(path)]
    assert senders == ["Kay Example", "Zoe", "Zoe", "nobody's address", "alone@example.com", "5"]


@pytest.mark.parametrize(
    ("fields", "kind"),
    [
        ({"message_state": "DELETED", "text": None, "creator": None}, Kind.DELETED),
        ({"deletion_metadata": {"deletion_type": "CREATOR"}}, Kind.DELETED),
        ({"text": None, "creator": None}, Kind.DELETED),
        ({"text": None, "attached_files": [{"export_name": "File-a.jpg"}]}, Kind.MEDIA),
        ({"attached_files": [{"export_name": "File-a.jpg"}]}, Kind.MESSAGE),
        ({"text": None, "annotations": [{"drive_metadata": {}}]}, Kind.MEDIA),
        ({"text": None, "annotations": [{"video_call_metadata": {}}]}, Kind.CALL),
        ({"quoted_message_metadata": {"creator": ADA, "text": "what?"}}, Kind.MESSAGE),
        ({"creator": ADA | {"user_type": "Bot"}}, Kind.BOT),
        ({"creator": ADA | {"user_type": "Human"}}, Kind.MESSAGE),
        ({"text": None}, Kind.MESSAGE),  # and without words, so that it is counted as empty
        ({"created_date": None, "updated_date": DATE}, Kind.MESSAGE),
        ({"created_date": 5}, Kind.UNREADABLE),
        ({"created_date": None}, Kind.UNREADABLE),
    ],
)
def test_kinds(tmp_path: Path, fields: dict[str, Any], kind: Kind) -> None:
    (record,) = google_chat.read(Source(chat(tmp_path, entry(**fields))), None).records
    assert record.kind is kind
    assert record.text in ("hello", "")


def test_another_language_is_said(tmp_path: Path) -> None:
    french = "vendredi 29 mai 2026 à 03:00:29 UTC"
    path = chat(tmp_path, entry(), entry(created_date=french), entry(created_date=french), 3)
    account, (conversation,) = gather([tmp_path], None, None, 1)
    (file,) = account.files
    assert file.unreadable == [2, 3, 4]
    assert file.error is not None
    assert f"{path}: dates like “{french}”" in file.error
    assert len(conversation.messages) == 1


def test_a_message_twice_in_a_file_is_counted_once(tmp_path: Path) -> None:
    found = records(chat(tmp_path, entry(), entry(), entry("other words under the same id")))
    assert [record.kind for record in found] == [Kind.MESSAGE, Kind.DUPLICATE, Kind.MESSAGE]


def test_a_file_that_breaks_off(tmp_path: Path) -> None:
    path = chat(tmp_path, entry("one"), entry("two"))
    save(path.parent, path.read_bytes()[:-30], "messages.json")
    reading = iter(google_chat.read(Source(path), None).records)
    assert next(reading).text == "one"
    with pytest.raises(ExportError, match="after entry 1"):
        next(reading)


def test_an_empty_chat(tmp_path: Path) -> None:
    assert records(chat(tmp_path)) == []


SAMPLES = {
    "messages_en_nnbsp.json": {Kind.MESSAGE: 1, Kind.MEDIA: 1},
    "messages_zh.json": {Kind.MESSAGE: 1, Kind.MEDIA: 1},
    "messages_quote_edit.json": {Kind.MESSAGE: 2},
}


@pytest.mark.skipif(not FORMATS.is_dir(), reason="the sample exports of ../shared/formats are not here")
@pytest.mark.parametrize("name", SAMPLES)
def test_chatlabs_samples(name: str) -> None:
    found = records(FORMATS / "Groups" / "DM sample" / name)
    assert Counter(record.kind for record in found) == SAMPLES[name]
    assert {record.chat.title for record in found} == {"Other User"}
