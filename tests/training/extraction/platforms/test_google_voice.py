"""Google Voice's Takeout: texts, pictures, groups and calls, a thread joined from its pages by number."""

import zipfile
from collections import Counter
from pathlib import Path

import pytest

from ghost.errors import ExportError
from tests.training.extraction.exports import records, save
from training.extraction.extract import gather
from training.extraction.platform import Kind
from training.extraction.platforms import google_voice
from training.extraction.source import Source

FORMATS = Path(__file__).parents[5] / "shared" / "formats" / "google_voice" / "kenn-io_msgvault"

KAY = '<a class="tel" href="tel:+12025550136"><span class="fn">Kay Example</span></a>'
BO = '<a class="tel" href="tel:+12025550137"><span class="fn">Bo &amp; Co</span></a>'
NOBODY = '<a class="tel" href="tel:22395"><span class="fn"></span></a>'
ME = '<a class="tel" href="tel:+15755550122"><abbr class="fn" title="">Me</abbr></a>'
PICTURE = '<div><img src="Kay Example - Text - 1-1" alt="Image MMS Attachment" /></div>'


def said(person: str, words: str, second: int = 0, more: str = "", when: str = "") -> str:
    when = when or f"2020-02-03T11:37:{second:02}.632-06:00"
    return (
        f'<div class="message"><abbr class="dt" title="{when}">Feb 3</abbr>:\n'
        f'<cite class="sender vcard">{person}</cite>:\n<q>{words}</q>{more}\n</div>'
    )


def page(*parts: str, title: str = "Kay Example") -> str:
    head = f'<?xml version="1.0" ?>\n<html xmlns="http://www.w3.org/1999/xhtml"><head><title>{title}</title></head>'
    return f'{head}<body><div class="hChatLog hfeed">{"".join(parts)}</div><div class="tags">Labels</div></body></html>'


def call(what: str, person: str = KAY, more: str = "") -> str:
    return (
        f'<html><head><title>{what}\nKay Example</title></head><body><div class="haudio"><span class="fn">{what}\n'
        f'Kay Example</span><div class="contributor vcard">{what}\n{person}</div>\n'
        f'<abbr class="published" title="2020-02-03T14:05:20.000-06:00">Feb 3</abbr>{more}</div></body></html>'
    )


def test_texts(tmp_path: Path) -> None:
    html = page(
        said(KAY, "you&#39;re &lt;here&gt;?<br>\nAwesome 😀"), said(ME, "<br>soon <a href='x'>a.example</a>", 9)
    )
    kay, me = records(save(tmp_path, html, "Kay Example - Text - 2020-02-03T17_37_45Z.html"))
    text = "you're <here>?\n\nAwesome 😀"
    assert kay[1:7] == ("2020-02-03T11:37:00.632-06:00", "Kay Example", text, Kind.MESSAGE, 1, "")
    assert (kay.chat.key, kay.chat.title, kay.chat.is_id) == ("+12025550136", "Kay Example", True)
    assert (me.sender, me.text, me.chat) == ("Me", "\nsoon a.example", kay.chat)


def test_pictures_and_what_stands_for_them(tmp_path: Path) -> None:
    video = '<div><a class="video" href="x">Video attachment</a></div>'
    html = page(
        said(KAY, "", 1, PICTURE),
        said(ME, "MMS Sent", 2, video),
        said(KAY, "look<br>", 3, PICTURE),
        said(KAY, "MMS Sent", 4),
        said(KAY, "", 5),
    )
    found = [(record.kind, record.text) for record in records(save(tmp_path, html, "a.html"))]
    assert found == [
        (Kind.MEDIA, ""),
        (Kind.MEDIA, ""),
        (Kind.MESSAGE, "look"),
        (Kind.MESSAGE, "MMS Sent"),
        (Kind.MESSAGE, ""),
    ]


def test_a_group(tmp_path: Path) -> None:
    people = f'<div class="participants">Group conversation with:\n<cite class="sender">{KAY}</cite>, {BO}</div>'
    first = page(people, said(BO, "hey"), title="Group Conversation")
    second = page(people, said(ME, "hey all", 7), title="Group Conversation")
    save(tmp_path, first, "Group Conversation - 2020-02-03T17_37_45Z.html")
    save(tmp_path, second, "Group Conversation - 2020-02-04T17_37_45Z.html")
    _, (conversation,) = gather([tmp_path], None, None, 1)
    assert conversation.chat.title == "Bo & Co, Kay Example"
    assert [record.sender for record in conversation.messages] == ["Bo & Co", "Me"]


@pytest.mark.parametrize("archived", [False, True])
def test_pages_of_one_number_are_one_conversation(tmp_path: Path, archived: bool) -> None:
    """Where only the owner writes, the page has no number: another page of that name shows it."""
    pages = {
        "Kay Example - Placed - 2020-02-01T17_37_45Z.html": call("Placed call to"),
        "Kay Example - Text - 2020-02-03T17_37_45Z.html": page(said(ME, "hello?")),
        "Kay Example - Text - 2020-02-04T17_37_45Z.html": page(said(KAY, "hi", 5)),
        "Kay - Text - 2020-02-04T17_37_45Z.html": page(said(BO, "not me", 5)),
        "Bills.html": "<html></html>",
    }
    for name, html in pages.items():
        save(tmp_path / "Calls", html, name)
    if archived:
        with zipfile.ZipFile(tmp_path / "takeout.zip", "w") as archive:
            for name in pages:
                archive.write(tmp_path / "Calls" / name, f"Takeout/Voice/Calls/{name}")
    account, found = gather([tmp_path / ("takeout.zip" if archived else "Calls")], None, None, 1)
    assert sorted(len(conversation.messages) for conversation in found) == [1, 2]
    assert not account.problems


def test_a_page_of_the_owner_alone_without_a_number(tmp_path: Path) -> None:
    html = page(said(ME, "hello?"))
    save(tmp_path, b"\xff", "Kay Example - Text - 2020-02-01T17_37_45Z.html")
    (record,) = records(save(tmp_path, html, "Kay Example - Text - 2020-02-03T17_37_45Z.html"))
    assert (record.chat.key, record.chat.title, record.chat.is_id) == ("kay example", "Kay Example", False)


def test_a_sender_without_a_name_is_the_number(tmp_path: Path) -> None:
    (record,) = records(save(tmp_path, page(said(NOBODY, "code"), title=""), " - Text - 2020-02-03T17_37_45Z.html"))
    assert (record.sender, record.chat.key, record.chat.title) == ("22395", "22395", "22395")


@pytest.mark.parametrize(
    "html",
    [
        call("Received call from"),
        call("Voicemail from", more='<span class="full-text">hello it is me</span><audio src="x"></audio>'),
        call("Missed call from", person='<a class="tel" href="tel:"><span class="fn"></span></a>'),
    ],
)
def test_calls_and_voicemail(tmp_path: Path, html: str) -> None:
    (record,) = records(save(tmp_path, html, "Kay Example - Received - 2020-02-03T17_37_45Z.html"))
    assert (record.kind, record.timestamp) == (Kind.CALL, "2020-02-03T14:05:20.000-06:00")
    assert record.sender == "Kay Example"


def test_a_bad_time_is_unreadable(tmp_path: Path) -> None:
    html = page(said(KAY, "a", when="soon"), said(KAY, "b", when="2020-02-03T11:37:00"))
    found = records(save(tmp_path, html, "a.html"))
    assert [record.kind for record in found] == [Kind.UNREADABLE, Kind.MESSAGE]
    assert found[1].timestamp == "2020-02-03T11:37:00"


def test_a_page_that_breaks_off(tmp_path: Path) -> None:
    html = page(said(KAY, "one"), said(KAY, "two is cut"))
    path = save(tmp_path, html[: html.index(" is cut")], "a.html")
    reading = iter(google_voice.read(Source(path), None).records)
    assert next(reading).text == "one"
    with pytest.raises(ExportError, match="cut off after entry 1"):
        next(reading)


@pytest.mark.parametrize("junk", ["<!--", "<![junk[", "<q", '<a href="', "<a ", "<div class='message'>", "&#", "<a b"])
def test_a_page_full_of_junk_is_refused(tmp_path: Path, junk: str) -> None:
    """In milliseconds; a parser that goes back to the beginning of each piece takes 40 s."""
    html = page(said(KAY, "one")).replace("</html>", junk * (100_000 // len(junk)))
    with pytest.raises(ExportError):
        records(save(tmp_path, html, "a.html"))


def test_bytes_that_are_not_utf_8_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path, page(said(KAY, "one")).encode() + b"\xff", "a.html")
    with pytest.raises(ExportError, match="not UTF-8 at byte"):
        records(path)


def test_an_empty_page(tmp_path: Path) -> None:
    assert records(save(tmp_path, page(), "Kay Example - Text - 2020-02-03T17_37_45Z.html")) == []


SAMPLES = {
    "sampleTextHTML.html": {Kind.MESSAGE: 2},
    "sampleGroupHTML.html": {Kind.MESSAGE: 2},
    "sampleMMS.html": {Kind.MEDIA: 1},
    "samplePlacedCallHTML.html": {Kind.CALL: 1},
    "sampleReceivedCallHTML.html": {Kind.CALL: 1},
}


@pytest.mark.skipif(not FORMATS.is_dir(), reason="the sample exports of ../shared/formats are not here")
@pytest.mark.parametrize("name", SAMPLES)
def test_msgvaults_samples(name: str) -> None:
    assert Counter(record.kind for record in records(FORMATS / name)) == SAMPLES[name]
