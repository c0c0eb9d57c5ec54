from pathlib import Path
from typing import Any

import pytest

from ghost.cli import main
from ghost.errors import ExportError
from tests.training.extraction.exports import records, save
from training.extraction.platform import Kind
from training.extraction.platforms import recognise, snapchat
from training.extraction.source import Source

MS = 1_647_179_760_000  # 13 March 2022, 13:56 UTC


def row(words: str | None, sender: str = "lea.b", media: str = "TEXT", after: int = 0, **more: Any) -> dict[str, Any]:
    written = {"From": sender, "Media Type": media, "Created": f"2022-03-13 13:56:{after:02} UTC", "Content": words}
    return written | {"Conversation Title": None, "Created(microseconds)": MS + 1000 * after + 7} | more


def test_the_newest_message_is_first(tmp_path: Path) -> None:
    export = {"lea.b": [row("yo", "noa", after=2), row("it&#39;s\r\nme", after=1)], "tom": []}
    found = records(save(tmp_path, export, "chat_history.json"))
    assert [(one.timestamp, one.sender, one.text, one.position) for one in found] == [
        ("2022-03-13T13:56:01.007+00:00", "lea.b", "it&#39;s\nme", 2),
        ("2022-03-13T13:56:02.007+00:00", "noa", "yo", 1),
    ]
    assert {one.chat.title for one in found} == {"lea.b"}


def test_a_group_has_an_id_and_a_title(tmp_path: Path) -> None:
    named = {"Conversation Title": "Trip"}
    (one, two) = records(save(tmp_path, {"f-00-1": [row("a", "tom", **named), row("b", **named)]}))
    assert one.chat == two.chat
    assert (one.chat.key, one.chat.title, one.chat.is_id) == ("f-00-1", "Trip", True)


@pytest.mark.parametrize(
    ("media", "words", "kind"),
    [
        ("TEXT", "hi", Kind.MESSAGE),
        ("TEXT", None, Kind.MESSAGE),  # nobody saved it: too short, as every message without words
        ("MEDIA", None, Kind.MEDIA),
        ("MEDIA", "look", Kind.MESSAGE),
        ("SHARE", "https://example.org", Kind.MEDIA),
        ("STICKER", None, Kind.MEDIA),
        ("NOTE", None, Kind.MEDIA),
        ("LOCATION", None, Kind.LOCATION),
        ("STATUSERASEDMESSAGE", "", Kind.DELETED),
        ("STATUSERASEDSNAPMESSAGE", None, Kind.DELETED),
        ("STATUSCALLMISSEDAUDIO", None, Kind.CALL),
        ("STATUSPARTICIPANTREMOVED", "tom", Kind.SYSTEM),
        ("STATUS", "words of the app", Kind.SYSTEM),
        ("NONPARTICIPANTBOTRESPONSE", "words of a bot", Kind.BOT),
    ],
)
def test_kinds(tmp_path: Path, media: str, words: str | None, kind: Kind) -> None:
    (found,) = records(save(tmp_path, {"lea.b": [row(words, media=media)]}))
    assert found.kind is kind


@pytest.mark.parametrize("account", [True, False])
def test_the_older_form_names_the_other_side_alone(tmp_path: Path, account: bool) -> None:
    created = {"Media Type": "TEXT", "Created": "2021-03-13 13:56:00 UTC"}
    export = {
        "Received Saved Chat History": [created | {"From": "lea.b", "Text": "it&#39;s"}],
        "Sent Saved Chat History": [created | {"To": "lea.b", "Text": "yo"}, created | {"To": "tom", "Text": "oh"}],
        "Received Unsaved Chat History": [created | {"From": "tom", "Text": None}],
    }
    if account:
        save(tmp_path, {"Basic Information": {"Username": "noa", "Name": "Noa"}}, "account.json")
    me = "noa" if account else "Me"
    found = records(save(tmp_path, export, "chat_history.json"))
    assert [(one.chat.key, one.sender, one.text, one.position) for one in found] == [
        ("lea.b", "lea.b", "it's", 1),
        ("tom", me, "oh", 3),
        ("lea.b", me, "yo", 2),
        ("tom", "tom", "", 4),
    ]
    assert {one.timestamp for one in found} == {"2021-03-13T13:56:00.000+00:00"}


def test_snaps_have_no_words_and_are_no_chat(tmp_path: Path) -> None:
    snap = {"From": "lea.b", "Media Type": "IMAGE", "Created": "2022-03-13 13:56:00 UTC", "IsSender": False}
    assert recognise(Source(save(tmp_path, {"lea.b": [snap]}, "snap_history.json"))) is None


def test_what_is_broken_is_counted_and_a_cut_file_is_one_error(tmp_path: Path) -> None:
    path = save(
        tmp_path, {"tom": 5, "lea.b": [row("hi"), 7, row("yo", **{"Created(microseconds)": 0, "Created": "?"})]}
    )
    assert [(one.kind, one.position) for one in records(path)] == [
        (Kind.UNREADABLE, 1),
        (Kind.UNREADABLE, 4),
        (Kind.UNREADABLE, 3),
        (Kind.MESSAGE, 2),
    ]
    path.write_bytes(path.read_bytes()[:-40])
    reading = snapchat.read(Source(path), None).records
    assert [next(reading).kind for _ in range(3)] == [Kind.UNREADABLE, Kind.UNREADABLE, Kind.MESSAGE]
    with pytest.raises(ExportError, match=r"after entry 3 .* export it again"):
        next(reading)


def test_pages_are_refused_unless_the_json_is_there(tmp_path: Path) -> None:
    page = Source(save(tmp_path, "<!DOCTYPE html><html></html>", "html/chat_history.html"))
    with pytest.raises(ExportError, match="Export JSON Files"):
        recognise(page)
    save(tmp_path, {"lea.b": [row("hi")]}, "json/chat_history.json")
    assert recognise(page) is None
    assert main(["extract", str(tmp_path), "--out", str(tmp_path / "out")]) == 0
