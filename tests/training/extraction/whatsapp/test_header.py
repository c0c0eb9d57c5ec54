"""One small chat in every header spelling that WhatsApp has used; one expected result for all of them."""

from pathlib import Path

import pytest

from ghost.errors import ExportError
from tests.training.extraction.exports import records, save, whatsapp
from training.extraction.platform import Kind
from training.extraction.platforms import recognise
from training.extraction.source import Source

# 13 and 14 March 2022: no date fits two orders. `{}` of the second header is a day later.
VARIANTS = {
    "android en-US": ("3/13/22, 2:56 PM - ", "3/14/22, 9:05 AM - "),
    "android en-US, since 2023": ("3/13/22, 2:56\u202fPM - ", "3/14/22, 9:05\u202fAM - "),
    "android en-GB": ("13/03/2022, 14:56 - ", "14/03/2022, 09:05 - "),
    "android en-IN": ("13/03/22, 2:56 pm - ", "14/03/22, 9:05 am - "),
    "android es-MX": ("13/3/2022 2:56 p.\u00a0m. - ", "14/3/2022 9:05 a.\u00a0m. - "),
    "android es, plain blanks": ("13/3/2022, 2:56 p. m. - ", "14/3/2022, 9:05 a. m. - "),
    "android de": ("13.03.22, 14:56 - ", "14.03.22, 09:05 - "),
    "android cs": ("13.03.22 14:56 - ", "14.03.22 09:05 - "),
    "android nl": ("13-03-2022 14:56 - ", "14-03-2022 09:05 - "),
    "android id": ("13/03/22 14.56 - ", "14/03/22 09.05 - "),
    "android en-CA": ("2022-03-13, 2:56 p.m. - ", "2022-03-14, 9:05 a.m. - "),
    "android en-ZA": ("2022/03/13, 14:56 - ", "2022/03/14, 09:05 - "),
    "android, dot after the time": ("2022/03/13, 14:56. - ", "2022/03/14, 09:05. - "),
    "android fi": ("13.3.2022 klo 14.56 - ", "14.3.2022 klo 9.05 - "),
    "android, day periods": ("13/03/2022, 2:56 in the afternoon - ", "14/03/2022, 9:05 in the morning - "),
    "android zh": ("2022/03/13 下午2:56 - ", "2022/03/14 上午9:05 - "),
    "android ko": ("2022/03/13 오후 2:56 - ", "2022/03/14 오전 9:05 - "),
    "android hr, 2018": ("13. 3. 2022. 14:56:00 ", "14. 3. 2022. 9:05:00 "),
    "colon, 2012": ("13/03/2022 14:56:00: ", "14/03/2022 9:05:00: "),
    "colon, 12 hours": ("3/13/22, 2:56:00 PM: ", "3/14/22, 9:05:00 AM: "),
    "ios en": ("[3/13/22, 14:56:00] ", "[3/14/22, 09:05:00] "),
    "ios en, 12 hours": ("[3/13/22, 2:56:00\u202fPM] ", "[3/14/22, 9:05:00\u202fAM] "),
    "ios fr": ("[13/03/2022 14:56:00] ", "[14/03/2022 09:05:00] "),
    "ios de": ("[13.03.22, 14:56:00] ", "[14.03.22, 09:05:00] "),
    "ios id": ("[13/03/22 14.56.00] ", "[14/03/22 09.05.00] "),
    "ios en-CA": ("[2022-03-13, 2:56:00 p.m.] ", "[2022-03-14, 9:05:00 a.m.] "),
    "ios vi, time first": ("[14:56:00, 13/03/2022] ", "[09:05:00, 14/03/2022] "),
    "ios, Buddhist calendar": ("[3/13/2565 BE, 14:56:00] ", "[3/14/2565 BE, 09:05:00] "),
    "ios, Japanese calendar": ("[3/13/R4, 14:56:00] ", "[3/14/R4, 09:05:00] "),
    "ios ar": ("[١٣\u200f/٣\u200f/٢٠٢٢، ٢:٥٦:٠٠\u00a0م] ", "[١٤\u200f/٣\u200f/٢٠٢٢، ٩:٠٥:٠٠\u00a0ص] "),
    "ios, marks before the bracket": ("\u200e[13/03/2022, 14:56:00] ", "\u200e[14/03/2022, 09:05:00] "),
}
FIRST = "on se voit à 5: at the café?\nAmène 10/03 [les clés] 👩🏽‍🚒\n\nj’ai hâte"
SECOND = "I left my keys"


@pytest.mark.parametrize("newline", ["\n", "\r\n"], ids=["lf", "crlf"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_header_spelling_gives_the_same_messages(tmp_path: Path, variant: str, newline: str) -> None:
    first, second = VARIANTS[variant]
    text = f"{first}Léa :): {FIRST}{newline}{second}Marc - Paul: {SECOND}{newline}"
    read = records(save(tmp_path, text))
    assert [(each.timestamp, each.sender, each.text, each.kind) for each in read] == [
        ("2022-03-13T14:56:00", "Léa :)", FIRST, Kind.MESSAGE),
        ("2022-03-14T09:05:00", "Marc - Paul", SECOND, Kind.MESSAGE),
    ]


@pytest.mark.parametrize("prefix", [b"\xef\xbb\xbf", "\u200e".encode()], ids=["BOM", "LRM"])
def test_a_mark_at_the_start_of_the_file_hides_nothing(tmp_path: Path, prefix: bytes) -> None:
    read = whatsapp(save(tmp_path, prefix + b"13/03/2022, 14:56 - Lea: hi"))
    assert [(each.sender, each.text) for each in read] == [("Lea", "hi")]


def test_utf16_is_read_when_it_says_so(tmp_path: Path) -> None:
    read = whatsapp(save(tmp_path, "13/03/2022, 14:56 - Léa: été".encode("utf-16")))
    assert [(each.sender, each.text) for each in read] == [("Léa", "été")]


@pytest.mark.parametrize(
    ("clock", "expected"),
    [
        ("12:05 AM", "00:05"),
        ("12:05 PM", "12:05"),
        ("00:08 a. m.", "00:08"),
        ("13:37 p.m.", "13:37"),
        ("4:20 p.m.", "16:20"),
    ],
)
def test_twelve_hour_clocks(tmp_path: Path, clock: str, expected: str) -> None:
    (read,) = whatsapp(save(tmp_path, f"13/03/2022, {clock} - Lea: hi"))
    assert read.timestamp == f"2022-03-13T{expected}:00"


def test_in_a_crlf_ios_file_a_pasted_chat_stays_in_its_message(tmp_path: Path) -> None:
    pasted = "look:\n[13/03/2022, 14:56:00] Bob: pasted\n[13/03/2022, 14:57:00] Eve: pasted too"
    bodies = ["lol"] * 20 + [pasted] + ["lol"] * 20
    text = "".join(f"[14/03/2022, 09:05:00] Lea: {body}\r\n" for body in bodies)
    assert [each.text for each in whatsapp(save(tmp_path, text))] == bodies


def test_pasted_stamps_without_a_year_are_no_headers(tmp_path: Path) -> None:
    pasted = "look:\n[9/8, 4:15 PM] Bob: pasted\n[10/03 10:30] Eve: pasted"
    text = f"13/03/2022, 14:56 - Lea: {pasted}\n13/03/2022, 14:57 - Marc: lol"
    assert [each.text for each in whatsapp(save(tmp_path, text))] == [pasted, "lol"]


def test_unicode_line_separators_are_text(tmp_path: Path) -> None:
    odd = "a\u2028b\u0085c\u000bd\u001ee"
    text = f"13/03/2022, 14:56 - Lea: {odd}\n13/03/2022, 14:57 - Marc: lol"
    assert [each.text for each in whatsapp(save(tmp_path, text))] == [odd, "lol"]


def test_a_date_that_does_not_exist_is_unreadable_and_named_by_its_line(tmp_path: Path) -> None:
    text = "13/03/2022, 14:56 - Lea: a\nb\n31/02/2022, 10:00 - Lea: c\n14/03/2022, 25:61 - Lea: d\n"
    read = whatsapp(save(tmp_path, text))
    assert [(each.kind, each.position) for each in read] == [
        (Kind.MESSAGE, 1),
        (Kind.UNREADABLE, 3),
        (Kind.UNREADABLE, 4),
    ]


def test_lines_before_the_first_header_are_not_lost(tmp_path: Path) -> None:
    text = "Messages and calls are end-to-end encrypted.\n???\n13/03/2022, 14:56 - Lea: a"
    assert [(each.kind, each.position) for each in whatsapp(save(tmp_path, text))] == [
        (Kind.SYSTEM, 1),
        (Kind.UNREADABLE, 2),
        (Kind.MESSAGE, 3),
    ]


def test_on_ios_a_name_may_be_followed_at_once_by_the_body(tmp_path: Path) -> None:
    text = "[2026/7/9 02:28:09] Alice: Hey: you\n[2026/7/9 02:28:37] Bob:Hi\n"
    assert [(each.sender, each.text) for each in whatsapp(save(tmp_path, text))] == [
        ("Alice", "Hey: you"),
        ("Bob", "Hi"),
    ]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"13/03/2022, 14:56 - L\xe9a: a", "not UTF-8 at byte 21"),
        (b"13/03/2022, 14:56 - L: a\0\0\0", "3 NUL bytes"),
        (b"", "no line"),
    ],
)
def test_what_is_no_text_is_refused_in_one_line(tmp_path: Path, content: bytes, says: str) -> None:
    with pytest.raises(ExportError, match=says) as caught:
        whatsapp(save(tmp_path, content))
    assert "\n" not in str(caught.value)


def test_a_stray_nul_is_dropped_and_said(tmp_path: Path) -> None:
    path = save(tmp_path, "13/03/2022, 14:56 - Lea: a\0b\n13/03/2022, 14:57 - Marc: ok\n")
    recognised = recognise(Source(path))
    assert recognised is not None
    reading = recognised.platform.read(Source(path), None)
    assert [each.text for each in reading.records] == ["ab", "ok"]
    assert reading.facts["note"] == "dropped 1 NUL byte"


# What stands beside 10:05 in the morning and 1:15 and 8:01 in the afternoon, as phones write it.
HALVES = {
    "el": ("10:05 π.μ.", "1:15 μ.μ.", "8:01 μ.μ."),
    "tr": ("10:05 ÖÖ", "1:15 ÖS", "8:01 ÖS"),
    "tr, before the time": ("ÖÖ 10:05", "ÖS 1:15", "ÖS 8:01"),
    "bg": ("10:05 пр.об.", "1:15 сл.об.", "8:01 сл.об."),
    "bg, 24 hours": ("10:05 ч.", "13:15 ч.", "20:01 ч."),
    "fa": ("۱۰:۰۵ ق.ظ.", "۱:۱۵ ب.ظ.", "۸:۰۱ ب.ظ."),
    "ar": ("١٠:٠٥ ص", "١:١٥ م", "٨:٠١ م"),
    "hi": ("१०:०५ पूर्वाह्न", "१:१५ अपराह्न", "८:०१ अपराह्न"),
    "bn": ("১০:০৫ AM", "১:১৫ PM", "৮:০১ PM"),
    "th": ("10:05 ก่อนเที่ยง", "1:15 หลังเที่ยง", "8:01 หลังเที่ยง"),
    "my": ("၁၀:၀၅ နံနက်", "၁:၁၅ ညနေ", "၈:၀၁ ညနေ"),
    "am": ("10:05 ጥዋት", "1:15 ከሰዓት", "8:01 ከሰዓት"),
    "vi": ("10:05 SA", "1:15 CH", "8:01 CH"),
    "hu": ("de. 10:05", "du. 1:15", "du. 8:01"),
    "sq": ("10:05 e paradites", "1:15 e pasdites", "8:01 e pasdites"),
    "he": ("10:05 לפנה״צ", "1:15 אחה״צ", "8:01 אחה״צ"),
    "es, periods": ("10:05 de la mañana", "1:15 de la tarde", "8:01 de la noche"),
    "zh, periods": ("上午10:05", "下午1:15", "晚上8:01"),
    "fr-CA": ("10 h 05", "13 h 15", "20 h 01"),
    "el, in parentheses": ("10:05 (π.μ.)", "1:15 (μ.μ.)", "8:01 (μ.μ.)"),
    "en, in parentheses": ("10:05 (a.m.)", "1:15 (PM)", "8:01 (p. m.)"),
    "en, a letter": ("10:05a", "1:15 p", "8:01\u202fP."),
    "en, in other spellings": ("10:05\u2007AM.", "1:15Pm", "8:01\u3000P.M."),
    "a word that no list has, beside 13 o'clock": ("10:05 zzt", "13:15 zzt", "20:01 zzt"),
}


@pytest.mark.parametrize("language", HALVES)
@pytest.mark.parametrize(
    "form", ["25/11/2021, {} - ", "25/11/2021 {} - ", "[25/11/2021, {}] "], ids=["", "no comma", "ios"]
)
def test_halves_of_the_day_in_every_language(tmp_path: Path, language: str, form: str) -> None:
    text = "".join(f"{form.format(time)}Lea: hi\n" for time in HALVES[language])
    read = records(save(tmp_path, text))
    assert [(each.timestamp[11:16], each.sender) for each in read] == [
        ("10:05", "Lea"),
        ("13:15", "Lea"),
        ("20:01", "Lea"),
    ]


@pytest.mark.parametrize("form", ["25/11/2021, {} - ", "[25/11/2021, {}:01] "])
def test_a_12_hour_clock_without_halves_of_the_day_is_refused(tmp_path: Path, form: str) -> None:
    def chat(*times: str) -> Path:
        return save(tmp_path, "".join(f"{form.format(time)}Lea: hi\n" for time in times))

    with pytest.raises(ExportError, match=r"12:59.* comes before 1:04.* on 25/11/2021.* 24-hour clock"):
        records(chat("9:30", "12:59", "1:04"))
    # 24 hours: a late message of the same hour, an hour after noon, a day without a message after noon.
    for times in (("9:30", "10:01", "9:59"), ("11:30", "13:04", "1:04"), ("8:30", "9:59", "12:04")):
        assert len(records(chat(*times))) == 3


@pytest.mark.parametrize("time", ["10:05 zzt", "zzt 10:05"])
def test_an_unknown_word_beside_the_time_asks(tmp_path: Path, time: str) -> None:
    path = save(tmp_path, f"25/11/2021, {time} - Lea: hi\n25/11/2021, {time} - Marc: yo\n")
    with pytest.raises(ExportError, match=r"“zzt” stands beside the time of 2 of 2 messages .* Write AM or PM"):
        records(path)


def test_an_unknown_word_in_one_line_of_many_is_unreadable_and_named(tmp_path: Path) -> None:
    known = "25/11/2021, 1:15 PM - Lea: hi\n" * 99
    read = records(save(tmp_path, f"{known}25/11/2021, 1:15 zzt - Lea: hi\n"))
    assert [(each.kind, each.position) for each in read if each.kind is not Kind.MESSAGE] == [(Kind.UNREADABLE, 100)]


@pytest.mark.parametrize(
    ("stamp", "day"),
    [
        ("Mar 5, 2015, 8:11 PM - ", "2015-03-05"),
        ("5 de mar. de 2015 20:11 - ", "2015-03-05"),
        ("20:11, 5 мая 2015 - ", "2015-05-05"),
        ("20:11, 5 Μαΐ 2015 - ", "2015-05-05"),
        ("20:11, 5 मार्च 2015 - ", "2015-03-05"),
        ("2015年3月5日 20:11 - ", "2015-03-05"),
        ("25.11.21 г., 20:11 ч. - ", "2021-11-25"),
        ("[25.11.21 г., 20:11:00 ч.] ", "2021-11-25"),
        ("[۱۴۰۰/۹/۴،\u200f ۲۰:۱۱:۰۰] ", "2021-11-25"),
        ("4/9/1400, 20:11 - ", "2021-11-25"),
        ("25/11/2564, 20:11 - ", "2021-11-25"),
        ("25/11/64, 20:11 - ", "2021-11-25"),
        ("[110/11/25 20:11:00] ", "2021-11-25"),
        ("[令和3/11/25 20:11:00] ", "2021-11-25"),
        ("[民國110/11/25 20:11:00] ", "2021-11-25"),
    ],
)
def test_dates_of_every_language_and_calendar(tmp_path: Path, stamp: str, day: str) -> None:
    read = records(save(tmp_path, f"{stamp}Lea: hi\n{stamp}Marc: yo\n"), "dmy")
    assert [(each.timestamp, each.sender) for each in read] == [(f"{day}T20:11:00", "Lea"), (f"{day}T20:11:00", "Marc")]


def test_a_line_that_somebody_typed_with_a_word_beside_its_time_is_no_header(tmp_path: Path) -> None:
    typed = "look:\n13.03.22 um 15:00 Uhr - Treffen: am See"
    text = f"13.03.22, 14:56 - Lea: {typed}\n13.03.22, 14:57 - Marc: ok\n"
    assert [each.text for each in records(save(tmp_path, text))] == [typed, "ok"]


HEADS = {
    "ios": "[13/03/2022, 14:56:00] ",
    "ios without seconds": "[13/03/22 14:56] ",
    "ios, 12 hours": "[13/03/2022, 2:56:00 PM] ",
    "android": "13/03/2022, 14:56 - ",
    "android, 12 hours": "13/03/2022, 2:56 PM - ",
    "colon": "13/03/2022 14:56:00: ",
}
TYPED = (
    "2:05p meet me: at five",
    "[12/03 lunch: with Piet",
    "[12/03/2022 lunch: with Piet",
    "[12/03/2022, 14:00 lunch: with Piet",
    "12/03/2022, 14:00] lunch: with Piet",
    "12/03/2022, 2:05 (PM) - meet me: at five",
    "12/03/2022 14:00 (outside): with Piet",
)


@pytest.mark.parametrize("typed", TYPED)
@pytest.mark.parametrize("head", HEADS)
def test_a_line_in_another_style_than_the_files_is_text(tmp_path: Path, head: str, typed: str) -> None:
    bodies = [f"hi\n{typed}", "ok", "yes", "no"]
    text = "".join(f"{HEADS[head]}Lea: {body}\n" for body in bodies)
    assert [each.text for each in records(save(tmp_path, text))] == bodies


def test_one_letter_beside_one_time_of_many_is_no_half_of_the_day(tmp_path: Path) -> None:
    known = "25/11/2021, 1:15 PM - Lea: hi\n" * 99
    read = records(save(tmp_path, f"{known}25/11/2021, 1:15p - meet me: at five\n"))
    assert [(each.kind, each.position) for each in read if each.kind is not Kind.MESSAGE] == [(Kind.UNREADABLE, 100)]


def test_one_of_two_lines_may_have_a_word_beside_its_time(tmp_path: Path) -> None:
    text = "13.6.2018 klo 21.25.15 - Lea: hei\n13.06.2018, 21.26 - Marc: ok\n"
    assert [each.timestamp for each in records(save(tmp_path, text))] == ["2018-06-13T21:25:15", "2018-06-13T21:26:00"]
