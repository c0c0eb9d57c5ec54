import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ghost.errors import ExportError
from tests.training.extraction.exports import records, save
from training.extraction.platform import Kind, Record
from training.extraction.platforms import recognise, sms
from training.extraction.source import Source

SAMPLES = Path(__file__).parents[5] / "shared/formats/sms"
DATE = "1600000000123"
ISO = "2020-09-13T12:26:40.123+00:00"


def text_message(
    body: str = "hi", kind: str = "1", address: str = "+15551234", date: str = DATE, name: str = "Lea"
) -> str:
    return (
        f'<sms address="{address}" date="{date}" type="{kind}" subject="null" body="{body}" contact_name="{name}" />\n'
    )


def mms(parts: str, people: str = "", box: str = "1", address: str = "null", **others: str) -> str:
    more = " ".join(f'{key}="{value}"' for key, value in others.items())
    return (
        f'<mms date="{DATE}" msg_box="{box}" address="{address}" {more}><parts>{parts}</parts>'
        f"<addrs>{people}</addrs></mms>\n"
    )


def part(text: str, kind: str = "text/plain") -> str:
    return f'<part seq="0" ct="{kind}" text="{text}" />'


def person(address: str, kind: str) -> str:
    return f'<addr address="{address}" type="{kind}" charset="106" />'


def backup(*entries: str, root: str = "smses") -> str:
    head = "<?xml version='1.0' encoding='UTF-8' standalone='yes' ?>\n<!--File Created By SMS Backup & Restore-->\n"
    return f'{head}<?xml-stylesheet type="text/xsl" href="sms.xsl"?>\n<{root} count="9">{"".join(entries)}</{root}>'


def read(folder: Path, *entries: str, root: str = "smses") -> list[Record]:
    return records(save(folder, backup(*entries, root=root), "sms.xml"))


def test_received_and_sent(tmp_path: Path) -> None:
    found = read(tmp_path, text_message("hi&#10;there"), text_message("yo", kind="2"), text_message(date="1600000000"))
    assert [(each.timestamp, each.sender, each.text, each.position) for each in found] == [
        (ISO, "Lea", "hi\nthere", 1),
        (ISO, "Me", "yo", 2),
        ("2020-09-13T12:26:40.000+00:00", "Lea", "hi", 3),
    ]
    assert {(each.chat.key, each.chat.title, each.chat.is_id) for each in found} == {("+15551234", "Lea", True)}


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        (text_message(kind="3"), Kind.SYSTEM),  # a draft
        (text_message(kind="4"), Kind.MESSAGE),
        (text_message(kind="5"), Kind.MESSAGE),
        (text_message(kind="6"), Kind.MESSAGE),
        (text_message(kind="9"), Kind.UNREADABLE),
        (text_message("null"), Kind.EMPTY),
        (text_message(date="soon"), Kind.UNREADABLE),
        (text_message(date="0"), Kind.UNREADABLE),
        (text_message(date="9" * 30), Kind.UNREADABLE),
        ("<sms />", Kind.UNREADABLE),
        (mms(""), Kind.EMPTY),
        (mms("", m_type="130"), Kind.MEDIA),
        (mms(part("null", "image/png")), Kind.MEDIA),
        (mms(part("null", "application/smil")), Kind.EMPTY),
        (mms(part("words") + part("null", "image/png")), Kind.MESSAGE),
    ],
)
def test_kinds(tmp_path: Path, entry: str, expected: Kind) -> None:
    assert [each.kind for each in read(tmp_path, entry)] == [expected]


def test_nobody_is_called_null(tmp_path: Path) -> None:
    found = read(tmp_path, text_message(name="null"), text_message(name="(Unknown)"))
    assert {(each.sender, each.chat.title) for each in found} == {("+15551234", "+15551234")}


def test_a_group_is_the_set_of_its_numbers(tmp_path: Path) -> None:
    sender = person("+1 (555) 123-4", "137")
    found = read(
        tmp_path,
        text_message(address="+15551234"),
        mms(part("one") + part("two"), sender, address="+15551234~+15559999", contact_name="Lea, Bob"),
        mms(part("three"), person("insert-address-token", "137"), "2", "+1 555-9999~+15551234"),
        mms(
            part("four"),
            person("+15559999", "137") + person("+15551234", "151") + person("insert-address-token", "151"),
        ),
    )
    assert [(each.chat.key, each.sender, each.text) for each in found] == [
        ("+15551234", "Lea", "hi"),
        ("+15551234~+15559999", "Lea", "one\ntwo"),
        ("+15551234~+15559999", "Me", "three"),
        ("+15551234~+15559999", "+15559999", "four"),
    ]
    assert found[1].chat.title == "Lea, Bob"


def test_calls_have_a_root_of_their_own(tmp_path: Path) -> None:
    call = f'<call number="+15551234" duration="3" date="{DATE}" type="1" contact_name="Lea" />'
    assert [(each.kind, each.chat.title) for each in read(tmp_path, call, root="calls")] == [(Kind.CALL, "Lea")]


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("&#55357;&#56838;", "😆"),
        ("&#xD83D;&#xDE06;", "😆"),
        ("&#55357;&#xde06;!", "😆!"),
        ("a&#55357;b", "a\ufffdb"),
        ("&#56838;&#55357;", "\ufffd\ufffd"),
        ("a&#0;&#11;&#x1F;b", "ab"),
        ("&#128518;&amp;&lt;&quot;", '😆&<"'),
        ("a&#13;&#10;b&#13;c", "a\nb\nc"),
        ("&#99999999;x", "x"),
        ("a\x00\x0bb\ufffe", "ab"),
        ("&amp;#55357;", "&#55357;"),
    ],
)
def test_repairs(tmp_path: Path, written: str, expected: str) -> None:
    assert [each.text for each in read(tmp_path, text_message(written))] == [expected]


PIECES = st.sampled_from(
    (
        "&#55357;&#56838;",
        "&#xD83D;",
        "&#56838;",
        "&#10;",
        "&#0;",
        "é",
        "😆",
        "&amp;",
        ' data="',
        "QUJD" * 300,
        '"',
        "<",
        "\n",
    )
)


@given(st.lists(PIECES, max_size=12).map("".join), st.integers(1, 40))
def test_it_makes_no_difference_where_the_stream_is_cut(text: str, size: int) -> None:
    whole = "".join(sms._repaired(io.BytesIO(text.encode())))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sms, "CHUNK", size)
        assert "".join(sms._repaired(io.BytesIO(text.encode()))) == whole


def test_pictures_never_reach_the_parser() -> None:
    picture = f'<part ct="image/png" data="{"QUJD" * 600_000}" text="null" />'
    assert "".join(sms._repaired(io.BytesIO(picture.encode()))) == '<part ct="image/png" data="" text="null" />'


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "iso-8859-1"])
def test_encodings(tmp_path: Path, encoding: str) -> None:
    text = backup(text_message("é")).replace("UTF-8", encoding.removesuffix("-sig"))
    assert [each.text for each in records(save(tmp_path, text.encode(encoding), "sms.xml"))] == ["é"]


def test_what_precedes_a_wrong_byte_is_read(tmp_path: Path) -> None:
    path = save(tmp_path, backup(text_message(), text_message("caf\xe9")).encode("latin-1"), "sms.xml")
    read = sms.read(Source(path), None).records
    assert next(read).text == "hi"
    with pytest.raises(ExportError, match="after entry 1; save it as UTF-8"):
        next(read)


def test_blank_lines_before_the_declaration_do_no_harm(tmp_path: Path) -> None:
    path = save(tmp_path, "\r\n\n" + backup(text_message("é")), "sms.xml")
    assert [each.text for each in records(path)] == ["é"]


@pytest.mark.parametrize("declared", ["base64", "utf-16", "nonsense", "rot13"])
def test_a_declared_encoding_that_cannot_be_is_not_believed(tmp_path: Path, declared: str) -> None:
    text = backup(text_message("é")).replace("UTF-8", declared)
    assert [each.text for each in records(save(tmp_path, text, "sms.xml"))] == ["é"]


def test_what_precedes_a_cut_is_read(tmp_path: Path) -> None:
    path = save(tmp_path, backup(text_message(), text_message())[:-30], "sms.xml")
    recognised = recognise(Source(path))
    assert recognised
    reading = recognised.platform.read(Source(path), None).records
    assert next(reading).text == "hi"
    with pytest.raises(ExportError, match=r"not valid XML after entry 1 .*make it again") as caught:
        list(reading)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "declaration",
    [
        '<!DOCTYPE smses [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;">]>',
        '<!DOCTYPE smses [<!ENTITY a SYSTEM "file:///etc/passwd">]>',
        '<!DOCTYPE smses SYSTEM "http://127.0.0.1/x.dtd">',
    ],
)
def test_entities_are_refused(tmp_path: Path, declaration: str) -> None:
    with pytest.raises(ExportError, match="document type"):
        records(save(tmp_path, f"{declaration}<smses>{text_message('&a;')}</smses>", "sms.xml"))


def test_other_xml_is_nobodys(tmp_path: Path) -> None:
    assert recognise(Source(save(tmp_path, "<html><smses></smses></html>", "a.xml"))) is None
    assert recognise(Source(save(tmp_path, "<!--" * 9000, "b.xml"))) is None


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="the sample exports of ../shared/formats are not here")
@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("_public_issues/surrogate_entities.xml", ["😆", "Yup 👌"]),
        ("kenn-io_msgvault/two_sms.xml", ["hello", "short code reply"]),
        ("kenn-io_msgvault/group_mms.xml", ["photo caption"]),  # 1 MMS of 2 parts, 3 addresses
    ],
)
def test_upstreams_samples(name: str, expected: list[str]) -> None:
    assert [each.text for each in records(SAMPLES / name)] == expected


def test_an_encoding_that_spells_half_a_character_marks_it(tmp_path: Path) -> None:
    """Found by the fuzzer: UTF-7 decodes to lone surrogates, which no other encoding does."""
    body = "<sms address='+15551234' date='1600000000123' type='1' body='+3nk- a'/>"
    xml = f"<?xml version='1.0' encoding='UTF-7' ?><smses>{body}</smses>"
    (read,) = records(save(tmp_path, xml.replace("+1", "+-1"), "sms.xml"))
    assert read.text == "\ufffd a"
