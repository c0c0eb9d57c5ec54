import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from ghost.errors import ExportError
from tests.training.extraction.exports import records, save
from training.extraction.platform import Kind
from training.extraction.platforms import recognise, skype
from training.extraction.source import Source


def row(content: str = "hi", number: int = 1, by: str = "8:live:lea", form: str = "RichText", **more: Any) -> Any:
    message = {"id": str(number), "originalarrivaltime": f"2020-05-01T09:30:{number:02}.5Z", "messagetype": form}
    return message | {"displayName": None, "from": by, "content": content, "properties": None} | more


def export(*newest_first: Any, key: str = "8:live:lea", **more: Any) -> dict[str, Any]:
    conversation = {"id": key, "displayName": "Lea", "threadProperties": None} | more
    return {"userId": "8:live:noa", "conversations": [conversation | {"MessageList": list(newest_first)}]}


def test_the_newest_message_is_first_and_people_have_one_name(tmp_path: Path) -> None:
    found = records(save(tmp_path, export(row("c", 3), row("b", 2, "8:live:noa"), row("a", 1)), "messages.json"))
    assert [(one.timestamp, one.sender, one.text, one.id, one.position) for one in found] == [
        ("2020-05-01T09:30:01.500+00:00", "Lea", "a", "1", 3),
        ("2020-05-01T09:30:02.500+00:00", "live:noa", "b", "2", 2),
        ("2020-05-01T09:30:03.500+00:00", "Lea", "c", "3", 1),
    ]
    assert {(one.chat.key, one.chat.title) for one in found} == {("8:live:lea", "Lea")}


def test_a_group_has_a_topic_and_its_messages_names(tmp_path: Path) -> None:
    group = export(
        row("b", 2, displayName="Tom"),
        row("a", 1),
        key="19:x@thread.skype",
        displayName=None,
        threadProperties={"topic": "Trip", "members": '["8:live:lea"]'},
    )
    found = records(save(tmp_path, group))
    assert [(one.chat.title, one.sender) for one in found] == [("Trip", "Tom"), ("Trip", "Tom")]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("a &lt;b&gt; &amp; <ss type=\"smile\">:)</ss> <3", "a <b> & :) <3"),
        ('<at id="8:live:tom">Tom</at> look: <a href="https://example.org/?a=1">https://example.org/?a=1</a>',
         "Tom look: https://example.org/?a=1"),
        ("<b raw_pre=\"*\" raw_post=\"*\">so</b> it is&apos;nt", "so it is'nt"),
        ("one\r\ntwo", "one\ntwo"),
        ("\n <b>so</b>\n", "\n so\n"),
        ("<p>one</p><p>two<br/>three</p>", "one\ntwo\nthree"),
        ('new words<e_m a="live:lea" ts_ms="1588325430123" ts="1588325430" t="61"></e_m>', "new words"),
        ('Edited previous message: new<e_m ts="1"/>', "new"),
        ("Edited previous message: typed", "Edited previous message: typed"),
    ],
)  # fmt: skip
def test_tags_become_text(tmp_path: Path, content: str, text: str) -> None:
    (found,) = records(save(tmp_path, export(row(content))))
    assert (found.text, found.kind) == (text, Kind.MESSAGE)


def test_plain_text_has_no_tags(tmp_path: Path) -> None:
    (found,) = records(save(tmp_path, export(row("a &lt; <b>", form="Text"))))
    assert found.text == "a &lt; <b>"


QUOTE = (
    '<quote author="live:lea" authorname="Lea" timestamp="1588325430" conversation="c" messageid="1" cuid="2">'
    "<legacyquote>[1588325430] Lea: </legacyquote>somebody&apos;s %s"
    "<legacyquote>\n\n&lt;&lt;&lt; </legacyquote></quote>"
)


@pytest.mark.parametrize("quote", [QUOTE % "words", QUOTE % (QUOTE % "inner words")])
def test_what_is_quoted_is_answered_and_not_repeated(tmp_path: Path, quote: str) -> None:
    found = records(save(tmp_path, export(row(f"{quote}\nmine", 2), row("somebody's words", 1))))
    assert [(one.text, one.answers, one.kind) for one in found] == [
        ("somebody's words", "", Kind.MESSAGE),
        ("mine", "1", Kind.MESSAGE),
    ]


def test_a_quote_alone_is_a_forward(tmp_path: Path) -> None:
    (found,) = records(save(tmp_path, export(row(QUOTE % "words"))))
    assert (found.kind, found.text) == (Kind.FORWARD, "")


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        (row("<partlist type=\"ended\"><name>Lea</name></partlist>", form="Event/Call"), Kind.CALL),
        (row("<URIObject>To view this photo</URIObject>", form="RichText/UriObject"), Kind.MEDIA),
        (row("<URIObject/>", form="RichText/Media_AudioMsg"), Kind.MEDIA),
        (row("<location/>", form="RichText/Location"), Kind.LOCATION),
        (row("<call/>", form="RichText/ScheduledCallInvite"), Kind.CALL),
        (row("{}", form="Poll"), Kind.POLL),
        (row("<addmember/>", form="ThreadActivity/AddMember"), Kind.SYSTEM),
        (row("{}", form="PopCard"), Kind.SYSTEM),
        (row("{}", form="Something/New"), Kind.SYSTEM),
        (row("words", form="RichText/Html"), Kind.MESSAGE),
        (row("words of a bot", by="28:helper"), Kind.BOT),
        (row("", properties={"deletetime": "1588325440000"}), Kind.DELETED),
        (row(originalarrivaltime="?"), Kind.UNREADABLE),
        (None, Kind.UNREADABLE),
    ],
)  # fmt: skip
def test_kinds(tmp_path: Path, message: Any, kind: Kind) -> None:
    (found,) = records(save(tmp_path, export(message)))
    assert found.kind is kind


@pytest.mark.parametrize(
    ("key", "kind"), [("48:calllogs", Kind.CALL), ("48:drafts", Kind.SYSTEM), ("48:notes", Kind.MESSAGE)]
)
def test_the_accounts_own_lists_are_no_chats(tmp_path: Path, key: str, kind: Kind) -> None:
    (found,) = records(save(tmp_path, export(row(), key=key)))
    assert found.kind is kind


def test_an_earlier_version_is_counted(tmp_path: Path) -> None:
    found = records(save(tmp_path, export(row("right", 2, skypeeditedid="1"), row("rihgt", 1, skypeeditedid="1"))))
    assert [(one.text, one.kind) for one in found] == [("rihgt", Kind.SUPERSEDED), ("right", Kind.MESSAGE)]


@pytest.mark.parametrize("as_text", [True, False])
def test_reactions_are_counted(tmp_path: Path, as_text: bool) -> None:
    emotions: Any = [{"key": "like", "users": [{"mri": "8:a"}, {"mri": "8:b"}]}, {"key": "sad", "users": [{}]}]
    properties = {"emotions": json.dumps(emotions) if as_text else emotions}
    (found,) = records(save(tmp_path, export(row(properties=properties))))
    assert (found.reactions, found.text) == (3, "hi")


def test_a_cut_file_is_one_error(tmp_path: Path) -> None:
    text = json.dumps(export(row("new", 2), row("old", 1)))
    reading = skype.read(Source(save(tmp_path, text[:-60])), None).records
    assert next(reading).text == "new"
    with pytest.raises(ExportError, match=r"after entry 1 .* export it again"):
        next(reading)


def test_a_tar_is_to_be_unpacked(tmp_path: Path) -> None:
    save(tmp_path, export(row()), "messages.json")
    with tarfile.open(tmp_path / "8_live_noa_export.tar", "w") as pack:
        pack.add(tmp_path / "messages.json", "messages.json")
    with pytest.raises(ExportError, match="unpack it and pass"):
        recognise(Source(tmp_path / "8_live_noa_export.tar"))
