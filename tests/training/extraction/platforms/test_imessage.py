import sqlite3
from collections import Counter
from pathlib import Path

import pytest

from ghost.errors import ExportError
from tests.training.extraction.exports import records, save
from training.extraction.platform import Kind

SAMPLE = Path(__file__).parents[5] / "shared/formats/imessage/ReagentX_imessage-exporter/exporter_blocks.txt"
STAMP = "May 07, 2022  5:29:42 PM"
LATER = "May 07, 2022 12:31:00 AM"


def block(*lines: str, stamp: str = STAMP, sender: str = "Me") -> str:
    return "\n".join((stamp, sender, *lines)) + "\n\n"


def read(folder: Path, text: str) -> list[tuple[str, str, str, Kind]]:
    return [(each.timestamp, each.sender, each.text, each.kind) for each in records(save(folder, text, "Lea.txt"))]


def text_of(folder: Path, *lines: str) -> tuple[str, Kind]:
    (record,) = records(save(folder, block(*lines)))
    return record.text, record.kind


def test_a_message_is_a_time_a_sender_and_words(tmp_path: Path) -> None:
    note = f"{LATER} (Read by you after 1 hour, 49 seconds)"
    found = records(save(tmp_path, block("hi") + block("one", "", "", "two", "", stamp=note, sender="Lea"), "Lea.txt"))
    assert [(each.timestamp, each.sender, each.text, each.position) for each in found] == [
        ("2022-05-07T17:29:42", "Me", "hi", 1),
        ("2022-05-07T00:31:00", "Lea", "one\n\n\ntwo\n", 5),
    ]
    assert (found[0].chat.key, found[0].chat.title, found[0].chat.is_id) == ("lea", "Lea", False)


def test_line_ends_and_marks_make_no_difference(tmp_path: Path) -> None:
    text = block("é", "ß") + block("hi")
    assert read(tmp_path, text) == [
        (each.timestamp, each.sender, each.text, each.kind)
        for each in records(save(tmp_path, b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode()))
    ]


def test_announcements_are_told_from_edits_by_their_place(tmp_path: Path) -> None:
    edited = block(f"{STAMP} frist", "Edited 1 minute, 30 seconds later: first", "and more")
    announced = f"{STAMP} You renamed the conversation to Trip\n\n"
    found = read(tmp_path, announced + edited + block("hi", "Tapbacks:", "Loved by Lea", "") + announced)
    assert [(each[2], each[3]) for each in found] == [
        ("", Kind.SYSTEM),
        ("first\nand more", Kind.MESSAGE),
        ("hi", Kind.MESSAGE),
        ("", Kind.SYSTEM),
    ]


def test_an_edit_without_later_versions_loses_only_the_time(tmp_path: Path) -> None:
    assert text_of(tmp_path, f"{STAMP} words", "") == ("words", Kind.MESSAGE)
    assert text_of(tmp_path, f"{LATER} pasted") == (f"{LATER} pasted", Kind.MESSAGE)


def test_a_reply_is_counted_at_its_own_time(tmp_path: Path) -> None:
    nested = [f"    {LATER}", "    Lea", "    yes", "    This one", "", f"    {LATER}", "    Lea", "    really", ""]
    reply = block("yes", "This message responded to an earlier message.", stamp=LATER, sender="Lea")
    found = read(tmp_path, block("sure?", *nested) + reply)
    assert [(each[1], each[2]) for each in found] == [("Me", "sure?"), ("Lea", "yes")]


def test_words_around_a_block_of_the_exporters_stay(tmp_path: Path) -> None:
    nested = ["Reactions:", "Loved by Lea", "😀 by Bob", "Sticker from Lea: /a/b.heic", ""]
    assert text_of(tmp_path, "one", *nested, "two", "Sent with Invisible Ink") == ("one\ntwo", Kind.MESSAGE)


@pytest.mark.parametrize(
    "words",
    [
        ["Sent with Confetti"],
        ["Sent with Love"],
        ["Reactions:", "none yet"],
        ["Loved by all"],
        ["Check In"],
        ["She deleted a message.", "why"],
        ["the path /etc/passwd"],
        ["Edited 1 minute later: no"],
        ["    indented"],
        ["SharePlay Message"],
    ],
)
def test_what_only_looks_like_the_exporters_is_kept(tmp_path: Path, words: list[str]) -> None:
    assert text_of(tmp_path, *words) == ("\n".join(words), Kind.MESSAGE)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["attachments/12/IMG 1.jpeg"], ("", Kind.MEDIA)),
        (["~/Library/Messages/Attachments/0f/15/IMG.heic"], ("", Kind.MEDIA)),
        (["/b/3d/3d0d7e5fb2ce288813306e4d4636395e047a3d28"], ("", Kind.MEDIA)),
        (["attachments/1/a.caf", "Transcription: words of a machine"], ("", Kind.MEDIA)),
        (["Attachment missing!", "look"], ("look", Kind.MESSAGE)),
        (["Outline Sticker from Me: x.heic (App: Memoji)"], ("", Kind.MEDIA)),
        (["com.apple.Photos.Thing message:", "A title"], ("", Kind.MEDIA)),
        (["Check In: Home", "Expected at 5"], ("", Kind.MEDIA)),
        (["This message was deleted from the conversation!", "words"], ("", Kind.DELETED)),
        (["You unsent this message part 3 seconds after sending!"], ("", Kind.DELETED)),
        (["They deleted a message."], ("", Kind.DELETED)),
        (["SharePlay Message", "Ended"], ("", Kind.SYSTEM)),
        (["Started sharing location!"], ("", Kind.LOCATION)),
        ([], ("", Kind.EMPTY)),
    ],
)
def test_kinds(tmp_path: Path, lines: list[str], expected: tuple[str, Kind]) -> None:
    assert text_of(tmp_path, *lines) == expected


def test_what_cannot_be_placed_is_listed(tmp_path: Path) -> None:
    found = records(save(tmp_path, "stray\n\n" + block("hi", stamp="Feb 30, 2022  5:29:42 PM") + block("hi") * 2))
    assert [(each.kind, each.position) for each in found] == [
        (Kind.UNREADABLE, 1),
        (Kind.UNREADABLE, 3),
        (Kind.MESSAGE, 7),
        (Kind.MESSAGE, 11),
    ]


def test_the_database_is_answered_with_the_command_to_run(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "copy.sqlite") as database:
        database.execute("create table chat_message_join (chat_id integer, message_id integer)")
    database.close()
    for name in ("copy.sqlite", "chat.db"):
        with pytest.raises(ExportError, match="imessage-exporter --format txt"):
            records((tmp_path / "copy.sqlite").rename(tmp_path / name))


def test_html_is_answered_with_the_format_to_choose(tmp_path: Path) -> None:
    page = '<html><div class="message"><div class="sent iMessage"><p><span class="timestamp">x</span>'
    with pytest.raises(ExportError, match="--format txt"):
        records(save(tmp_path, page, "Lea.html"))


def test_bytes_that_are_no_text_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="not UTF-8 at byte") as caught:
        records(save(tmp_path, block("hi").encode() + b"\xff"))
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not SAMPLE.is_file(), reason="the sample exports of ../shared/formats are not here")
def test_upstreams_sample() -> None:
    """Upstream: 8 blocks, 2 of them announcements. Of its 6 messages one was deleted, one is SharePlay, no words."""
    kinds = Counter(each.kind for each in records(SAMPLE))
    assert kinds == {Kind.MESSAGE: 4, Kind.DELETED: 1, Kind.SYSTEM: 1 + 2}
