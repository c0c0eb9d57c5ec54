import json
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from tests.training.extraction.exports import save, whatsapp
from tests.training.extraction.whatsapp.ordinary import MESSAGES
from training.extraction.platform import Kind, Record
from training.extraction.whatsapp.body import (
    EDITED,
    EXPORT_TITLES,
    android_body,
    ios_body,
    is_event,
    is_event_line,
    is_notice,
    normal,
    unmarked_body,
)

ANDROID = "13/03/2022, 14:56 - "
IOS = "[13/03/2022, 14:56:01] "
NOTICE = f"{IOS}The group: \u200eMessages and calls are end-to-end encrypted.\r\n"


def android(folder: Path, rest: str) -> Record:
    return whatsapp(save(folder, ANDROID + rest))[0]


def ios(folder: Path, rest: str, mark: str = "") -> Record:
    return whatsapp(save(folder, f"{NOTICE}{mark}{IOS}{rest}\r\n"))[1]


VOICE = [
    "I left my keys",
    "You left",
    "Bob added you to the list",
    "image omitted from the report",
    "the <Media omitted> mark is ugly",
    "ok",
    "<3",
    "5 <\u200e 7",
    ":)",
    "👨‍👩‍👧‍👦 🏳️‍🌈 👍🏿 🇫🇷",
    "j’ai l'été à Noël, ça va?",
    "WHAT   two  blanks",
    "missed voice call? no, I was out",
    "plan B: see (file attached) below",
    "https://maps.google.com is down",
    "PS: I love you (3 times)",
    "null and void",
    "e\u0301 decomposed stays decomposed",
]


@pytest.mark.parametrize("words", VOICE)
def test_what_a_person_typed_is_kept_to_the_letter(tmp_path: Path, words: str) -> None:
    for read in (android(tmp_path, f"Lea: {words}"), ios(tmp_path, f"Lea: {words}")):
        assert (read.kind, read.sender, read.text) == (Kind.MESSAGE, "Lea", words)


@pytest.mark.parametrize("mark", ["\u200e", "\u200f"])
def test_ordinary_messages_are_kept_in_every_language(mark: str) -> None:
    ios = ios_body(mark)
    for words in MESSAGES:
        assert android_body(words, False) == ios(words, False) == (Kind.MESSAGE, words)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ("<Media omitted>", Kind.MEDIA),
        ("<Médias omis>", Kind.MEDIA),
        ("<Без медиафайлов>", Kind.MEDIA),
        ("\u200eIMG-20220323-WA0002.jpg (file attached)", Kind.MEDIA),
        ("\u200eAlex.vcf (soubor byl přiložen)", Kind.MEDIA),
        ("<Media omitted>\nResume.pdf", Kind.MEDIA),
        ("null", Kind.MEDIA),
        ("This message was deleted", Kind.DELETED),
        ("Tato zpráva byla odstraněna.", Kind.DELETED),
        ("Missed voice call", Kind.CALL),
        ("location: https://maps.google.com/?q=51.5,-0.12", Kind.LOCATION),
        ("Pimlico Gardens\nLondon\nhttps://foursquare.com/v/4e89af95e5fa82ad4c0aa03b", Kind.LOCATION),
        ("live location shared", Kind.LOCATION),
        ("POLL:\nlunch\nOPTION: pizza (3 votes)\nOPTION: sushi (1 vote)", Kind.POLL),
        ("ANKET:\nöğle\nSEÇENEK: pizza (3 oy)\n", Kind.POLL),
        ("Waiting for this message. This may take a while.", Kind.SYSTEM),
    ],
)
def test_what_android_writes_itself(tmp_path: Path, body: str, kind: Kind) -> None:
    read = android(tmp_path, f"Lea: {body}")
    assert (read.kind, read.text) == (kind, "")


# Media, file, deleted, call: what Android writes in twelve more languages.
LANGUAGES = {
    "pl": ("<pominięto multimedia>", "a.pdf (załączony plik)", "Ta wiadomość została usunięta",
           "Nieodebrane połączenie"),
    "uk": ("<Медіа пропущено>", "a.pdf (файл додано)", "Це повідомлення було видалено", "Пропущений аудіодзвінок"),
    "zh": ("<省略多媒体文件>", "a.pdf (文件附件)", "此訊息已刪除。", "未接语音通话"),
    "ko": ("<미디어 파일 제외됨>", "a.pdf (파일 첨부됨)", "이 메시지는 삭제되었습니다", "부재중 전화"),
    "hi": ("<मीडिया के बिना>", "a.pdf (फाइल अटैच कर दी गई है)", "यह मैसेज डिलीट कर दिया गया है.", "वॉइस कॉल मिस हुई"),
    "he": ("<המדיה לא נכללה>", "a.pdf (קובץ מצורף)", "הודעה זו נמחקה", "שיחה קולית שלא נענתה"),
    "fa": ("<رسانه حذف شد>", "فایل پیوست شد a.pdf", "این پیام حذف شد", "تماس صوتی پاسخ داده نشده"),
    "vi": ("<Bỏ qua Media>", "a.pdf (tệp đính kèm)", "Tin nhắn này đã bị xoá", "Cuộc gọi nhỡ"),
    "fi": ("<Media jätettiin pois>", "a.pdf (liitetiedosto)", "Tämä viesti poistettiin.", "Vastaamaton äänipuhelu"),
    "sv": ("<Media utelämnat>", "a.pdf (bifogad fil)", "Detta meddelande raderades", "Missat röstsamtal"),
    "el": ("<Εξαίρεση πολυμέσων>", "a.pdf (συνημμένο αρχείο)", "Αυτό το μήνυμα διαγράφηκε",
           "Αναπάντητη φωνητική κλήση"),
    "ta": ("< ஊடகங்கள் நீக்கப்பட்டது >", "a.pdf இணைக்கப்பட்டது", "இத்தகவல் திரும்பப்பெறப்பட்டது", "தவறிய குரல் அழைப்பு"),
}  # fmt: skip


@pytest.mark.parametrize("language", LANGUAGES)
def test_android_in_other_languages(language: str) -> None:
    kinds = (Kind.MEDIA, Kind.MEDIA, Kind.DELETED, Kind.CALL)
    for body, kind in zip(LANGUAGES[language], kinds, strict=True):
        assert android_body(body, False) == (kind, ""), body
        for words in (f"{body}?", f"hm\n{body}", f"{body} (no)"):
            assert android_body(words, False) == (Kind.MESSAGE, words)


def test_a_caption_is_kept_in_every_language() -> None:
    for media, file, _, _ in LANGUAGES.values():
        for placeholder in (media, file, f"\u200e{file}"):
            assert android_body(f"{placeholder}\nla mer\n🌊", False) == (Kind.MESSAGE, "la mer\n🌊")


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ("\u200e照片已忽略", Kind.MEDIA),
        ("\u200e이미지 생략됨", Kind.MEDIA),
        ("\u200eobraz pominięty", Kind.MEDIA),
        ("\u200e<附件：00000035-PHOTO-2022-03-27-21-41-55.jpg>", Kind.MEDIA),
        ("\u200eThis message was deleted by admin Zoé: la vraie.", Kind.DELETED),
        ("\u200eКористувач Bob розпочав дзвінок", Kind.CALL),
        ("\u200eVoice call. \u200e12 min", Kind.CALL),
        ("\u200eLokalizacja: https://maps.google.com/?q=52.2,21.0", Kind.LOCATION),
        ("\u200ePOLL:\nlunch\n\u200eOPTION: pizza (\u200e3 votes)\n\u200eOPTION: sushi (\u200e1 vote)", Kind.POLL),
        ("\u200eBoris created group “X: Y”", Kind.SYSTEM),
        ("\u200eYou're now an admin", Kind.SYSTEM),
        ("\u200eimage omitted \u200e<This message was edited>", Kind.MEDIA),
    ],
)
def test_what_ios_marks_in_other_languages(body: str, kind: Kind) -> None:
    assert ios_body("\u200e")(body, False) == (kind, "")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("\u200e+33 6 12 34 56 78", "\u200e+33 6 12 34 56 78"),
        ("\u200epasted\nfrom elsewhere", "\u200epasted\nfrom elsewhere"),
        ("so \u200ethat is it", "so \u200ethat is it"),
        ("two words \u200e<edytowano>", "two words"),
        ("a < b > c>", "a < b > c>"),
    ],
)
def test_a_mark_that_a_person_pasted_takes_no_words(body: str, words: str) -> None:
    assert ios_body("\u200e")(body, False) == (Kind.MESSAGE, words)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ("\u200eimage omitted", Kind.MEDIA),
        ("\u200eVideo weggelassen", Kind.MEDIA),
        ("\u200e<attached: 00000035-PHOTO-2022-03-27-21-41-55.jpg>", Kind.MEDIA),
        ("\u200e<00000035-PHOTO-2022-03-27-21-41-55.jpg eklendi>", Kind.MEDIA),
        ("Some file.txt \u200edocument omitted", Kind.MEDIA),
        ("Resume.pdf • \u200e2 pages \u200e<attached: 00000047-Resume.pdf>", Kind.MEDIA),
        ("\u200eThis message was deleted.", Kind.DELETED),
        ("\u200eThis message was deleted by admin Bob.", Kind.DELETED),
        ("\u200eMissed voice call. \u200eTap to call back", Kind.CALL),
        ("\u200eLocation: https://maps.google.com/?q=-51.5,0.12", Kind.LOCATION),
        ("Gardens (London): https://foursquare.com/v/4e89af95e5fa82ad4c0aa03b", Kind.LOCATION),
        ("\u200eBob added you", Kind.SYSTEM),
        ("\u200e\u200eYour security code with Bob changed. \u200eTap to learn more.", Kind.SYSTEM),
    ],
)
def test_what_ios_writes_itself_starts_with_a_mark(tmp_path: Path, body: str, kind: Kind) -> None:
    read = ios(tmp_path, f"Lea: {body}")
    assert (read.kind, read.text) == (kind, "")


def test_an_unknown_language_is_told_by_the_mark_on_the_header(tmp_path: Path) -> None:
    assert ios(tmp_path, "Lea: \u200ekuva puuttuu", mark="\u200e").kind is Kind.MEDIA
    assert ios(tmp_path, "Lea: \u200eBob liittyi").kind is Kind.SYSTEM


@pytest.mark.parametrize(
    "mark", [" <This message was edited>", " \u200e<Se editó este mensaje.>", " <Mensagem editada>"]
)
def test_an_edit_mark_goes_and_the_words_stay(tmp_path: Path, mark: str) -> None:
    for read in (android(tmp_path, f"Lea: two\nlines{mark}"), ios(tmp_path, f"Lea: two\nlines{mark}")):
        assert (read.kind, read.text) == (Kind.MESSAGE, "two\nlines")


NOTICES = [
    "Messages and calls are end-to-end encrypted. Only people in this chat can read, listen to, or share them.",
    "Messages you send to this group are now secured with end-to-end encryption. Tap for more info.",
    "Los mensajes y las llamadas están cifrados de extremo a extremo. Nadie fuera de este chat puede leerlos.",
    "メッセージと通話はエンドツーエンド暗号化されています。",
]


@pytest.mark.parametrize("words", NOTICES)
def test_the_encryption_notice_may_have_a_sender(tmp_path: Path, words: str) -> None:
    assert android(tmp_path, f"Lea: {words}").kind is Kind.SYSTEM
    assert ios(tmp_path, f"Trip: {words}").kind is Kind.SYSTEM


@pytest.mark.parametrize(
    "words",
    [
        "is this end-to-end encrypted or not? my address is 5 Elm Street",
        "Messages here are end-to-end encrypted, I read",
        "mira: los mensajes están cifrados de extremo a extremo",
    ],
)
def test_people_talk_about_encryption_too(tmp_path: Path, words: str) -> None:
    for read in (android(tmp_path, f"Lea: {words}"), ios(tmp_path, f"Lea: {words}")):
        assert (read.kind, read.text) == (Kind.MESSAGE, words)


def test_captions_are_messages(tmp_path: Path) -> None:
    for body in ("<Media omitted>\nsunset 🌅\nhere", "IMG-20220323-WA0002.jpg (file attached)\nsunset 🌅\nhere"):
        assert android(tmp_path, f"Lea: {body}").text == "sunset 🌅\nhere"
    assert ios(tmp_path, "Lea: sunset \u200e<attached: 00000035-PHOTO.jpg>").text == "sunset"


def test_a_line_without_a_sender_is_whatsapps(tmp_path: Path) -> None:
    for rest in (
        "You left",
        'Bob created group "Fun"',
        'You changed the subject from "fun" to "fun: the sequel"',
        "Bob added you to a group in the community: Fans",
    ):
        assert android(tmp_path, rest).kind is Kind.SYSTEM
    assert ios(tmp_path, "\u200eBob changed the subject to “fun: the sequel”").kind is Kind.SYSTEM


def test_what_only_whatsapp_writes_with_a_mark_or_brackets_is_a_persons_without(tmp_path: Path) -> None:
    poll = "POLL:\nlunch\nOPTION: pizza (3 votes)"
    read = whatsapp(
        save(tmp_path, f"[13/03/2022, 14:56:00] Lea: \u200eimage omitted\n[13/03/2022, 14:57:00] Bob: {poll}")
    )
    assert [(each.kind, each.text) for each in read] == [(Kind.MEDIA, ""), (Kind.MESSAGE, poll)]
    for words in ("null\nis what it says", "image omitted\nis what it says"):
        assert android_body(words, False) == unmarked_body(words, False) == (Kind.MESSAGE, words)


def test_a_vanished_message_is_empty(tmp_path: Path) -> None:
    assert android(tmp_path, "Lea:.").kind is Kind.EMPTY
    assert android(tmp_path, "Lea: .").text == "."


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("~\u202fYSL", "YSL"),
        ("\u202a+44\u00a07722\u00a0123\u202c", "+44 7722 123"),
        ("🤓", "🤓"),
        ("Zoë 👩‍💻", "Zoë 👩‍💻"),
    ],
)
def test_names_lose_their_invisible_wrapping(tmp_path: Path, written: str, name: str) -> None:
    assert android(tmp_path, f"{written}: hi").sender == ios(tmp_path, f"{written}: hi").sender == name


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("WhatsApp Chat with Bob.txt", "Bob"),
        ("WhatsApp_Chat_with_Bob_B (1).txt", "Bob B"),
        ("Discussion WhatsApp avec Bob.txt", "Bob"),
        ("Bob ile WhatsApp Sohbeti.txt", "Bob"),
        ("Trip/_chat.txt", "Trip"),
        ("anything.txt", "anything"),
    ],
)
def test_the_file_name_gives_the_chats_title(tmp_path: Path, name: str, title: str) -> None:
    assert whatsapp(save(tmp_path, f"{ANDROID}Lea: hi", name))[0].chat.title == title


@pytest.mark.parametrize(
    "line",
    [
        'You changed the subject from "fun" to "fun: the sequel"',
        'Bob changed the subject to "a: b"',
        'Zoé created group "Trip: 2024"',
        "+44 7700 900123 added you to a group in the community: Fans",
        "You added Zoé: la vraie",
        "Vous avez changé le sujet “a: b” en “c”",
        'Léa a créé le groupe "Vacances: été"',
        'Du hast den Betreff von "a: b" zu "c" geändert',
        "U hebt het onderwerp gewijzigd van 'a: b' naar 'c'",
        'Creaste el grupo "Viaje: Roma"',
        "Hai cambiato l'oggetto da “a: b” a “c”",
        'Você alterou o nome de "a: b" para "c"',
        'Ali, "a: b" olan konuyu "c" olarak değiştirdi',
        'Вы изменили тему с "а: б" на "в"',
        'أنت غيّرت اسم المجموعة من "a: b" إلى "c"',
        '您把主题从 "a: b" 改为 "c"',
        "ボブがグループ「旅: 2024」を作成しました",
        'आपने विषय को "a: b" से "c" में बदला है',
        "Eltávolítottad őt: Bob",
    ],
)
def test_an_event_may_hold_a_colon(line: str) -> None:
    assert is_event_line(line)
    assert is_event(line.partition(": ")[0])


@pytest.mark.parametrize(
    "line",
    ["Bob left", "You left", "👩‍💻 Anna joined using this group's invite link", "José-María est parti·e",
     "+49 151 0000000 hat die Gruppe verlassen", "You're now an admin",
     "Ana salió del grupo.", "Боб покинул(-а) группу"],
)  # fmt: skip
def test_an_event_is_a_whole_line(line: str) -> None:
    assert is_event_line(line)
    assert not is_event_line(f"{line}, and then what")
    assert not is_event_line(f"Alice: {line}")


@pytest.mark.parametrize(
    "line",
    [
        "Bob: You changed the subject",
        'Bob: you changed the subject from "a" to "b"',
        "Bob: I was removed",
        "José: Ana salió",
        'José "Pepe" López: hola',
        "Zoé: la vraie left",
        "Номер Такси: выезжаю",
        'Bob 5": ok',
    ],
)
def test_a_name_and_a_colon_make_a_message(line: str) -> None:
    assert not is_event_line(line)


@pytest.mark.parametrize(
    "name",
    ["Bob", "José-María", 'José "Pepe" López', "12:30 Club", "+44 7700 900123", "Added Value Ltd.", "ながれ", "선생님",
     "O'Neil, Jr.", "The Left", "Family: new", "ХИМИЯ на дому", "小明"],
)  # fmt: skip
def test_names_are_no_events(name: str) -> None:
    assert not is_event(name)


@pytest.mark.parametrize(
    "words",
    [
        "Messages and calls are end-to-end encrypted. Only people in this chat can read, listen to, or share them.",
        "Les messages et les appels sont chiffrés de bout en bout. Seules les personnes de cette discussion…",
        "Wiadomości i połączenia są w pełni zaszyfrowane. Nikt spoza czatu…",
        "\u200fההודעות והשיחות מוצפנות מקצה-לקצה. לאף אחד…",
        "消息和通话都进行端到端加密。对话之外的任何人…",
        "Tin nhắn và cuộc gọi được mã hóa đầu cuối. Những người…",
    ],
)
def test_the_notice_is_known_whatever_follows_its_first_sentence(words: str) -> None:
    assert is_notice(words)
    assert not is_notice(f"he wrote: {words}")


def chat(folder: Path, *lines: str) -> list[tuple[str, str, Kind]]:
    return [(each.sender, each.text, each.kind) for each in whatsapp(save(folder, "".join(lines)))]


@pytest.mark.parametrize("name", ["~", "~\u202f\u200e", "\u200e", "~ "])
def test_somebody_without_a_visible_name_is_a_person(tmp_path: Path, name: str) -> None:
    for header in (ANDROID, IOS):
        assert chat(tmp_path, f"{header}Lea: hi\n", f"{header}{name}: yes, and bring the map\n") == [
            ("Lea", "hi", Kind.MESSAGE),
            ("~", "yes, and bring the map", Kind.MESSAGE),
        ]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("<\u200eimage omitted>", (Kind.MEDIA, "")),
        ("<\u200eVideo weggelassen>", (Kind.MEDIA, "")),
        ("a caption <\u200eimage omitted>", (Kind.MESSAGE, "a caption")),
        ("<\u200eimage omitted>\na caption", (Kind.MESSAGE, "a caption")),
        ("two words <\u200eThis message was edited>", (Kind.MESSAGE, "two words")),
    ],
)
def test_until_2018_ios_put_its_mark_inside_the_brackets(tmp_path: Path, body: str, expected: tuple[Kind, str]) -> None:
    (read,) = chat(tmp_path, f"{IOS}Lea: {body}\r\n")
    assert read == ("Lea", expected[1], expected[0])


POLLS = [
    ("UMFRAGE:", "OPTION: See (25\u00a0Stimmen)", "OPTION: Berg (0\u00a0Stimmen)"),
    ("SONDAGE\u00a0:", "OPTION\u00a0: lac (3 votes)", "OPTION\u00a0: mont (0 vote)"),
    ("पोल:", "विकल्प: झील (3 वोट)", "विकल्प: पहाड़ (0 वोट)"),
    ("投票:", "選択肢: 湖 (3票)", "選択肢: 山 (0票)"),
    ("投票：", "选项：湖（3 票）", "选项：山（0 票）"),
    ("استطلاع رأي:", "الخيار: بحيرة (٣ أصوات)", "الخيار: جبل (٠ أصوات)"),
    ("ОПРОС:", "ВАРИАНТ: озеро (3 голоса)", "ВАРИАНТ: гора (0 голосов)"),
]


@pytest.mark.parametrize("poll", POLLS, ids=[label for label, *_ in POLLS])
def test_polls_of_every_language(tmp_path: Path, poll: tuple[str, str, str]) -> None:
    label, one, other = poll
    assert chat(tmp_path, f"{ANDROID}Lea: {label}\nwhere?\n{one}\n{other}\n") == [("Lea", "", Kind.POLL)]
    marked = f"{IOS}Lea: \u200e{label}\nwhere?\n\u200e{one}\n\u200e{other}\r\n"
    assert chat(tmp_path, marked) == [("Lea", "", Kind.POLL)]


@pytest.mark.parametrize(
    "words",
    [
        "Plan:\nwhere to\nlake: by bus (3 of us)\nhill: on foot (2 of us)",
        "PLAN:\nwhere to\nBUS: to the lake (3 of us)\nFOOT: to the hill (2 of us)",
        "PLAN:\nwhere to\nBUS: lake (all)\nBUS: hill (none)",
    ],
)
def test_lists_that_people_type_are_no_polls(tmp_path: Path, words: str) -> None:
    assert chat(tmp_path, f"{ANDROID}Lea: {words}\n") == [("Lea", words, Kind.MESSAGE)]


@pytest.mark.parametrize(
    "name", ["DOC-20220831-WA0000.", "main.c", "route.geojson", "DOC-20220831-WA0001", "my notes.md"]
)
def test_attached_files_of_any_extension(tmp_path: Path, name: str) -> None:
    assert chat(tmp_path, f"{ANDROID}Lea: {name} (file attached)\n") == [("Lea", "", Kind.MEDIA)]
    words = "I sent it. (file attached)"
    assert chat(tmp_path, f"{ANDROID}Lea: {words}\n") == [("Lea", words, Kind.MESSAGE)]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("@\u2068Piet Vos\u2069 are you in?", "@Piet Vos are you in?"),
        ("yes @\u2068~\u202fPiet\u2069 and @\u2068Lea\u2069", "yes @Piet and @Lea"),
        ("\u2067rtl\u2069", "\u2067rtl\u2069"),
    ],
)
def test_the_marks_around_a_mention_go(tmp_path: Path, body: str, words: str) -> None:
    for header in (ANDROID, IOS):
        assert chat(tmp_path, f"{header}Lea: {body}\n") == [("Lea", words, Kind.MESSAGE)]


OLD = "19:23, 28 Aug 2013 - "


def test_events_under_a_name_in_2013(tmp_path: Path) -> None:
    events = [
        "Bob changed the subject to “Lake: 2013”",
        "Bob joined",
        "\u202a+31 6 00000000\u202c left",
        "Changed the group icon",
    ]
    read = chat(
        tmp_path, f"{OLD}Bob: yes\n", *(f"{OLD}Lea: {event}\n" for event in events), f"{OLD}Lea: Everybody left\n"
    )
    assert [kind for *_, kind in read] == [Kind.MESSAGE, *[Kind.SYSTEM] * 4, Kind.MESSAGE]


def test_events_under_a_name_are_words_where_events_have_none(tmp_path: Path) -> None:
    read = chat(tmp_path, f"{OLD}Bob joined\n", f"{OLD}Bob: yes\n", f"{OLD}Lea: Bob joined\n")
    assert [kind for *_, kind in read] == [Kind.SYSTEM, Kind.MESSAGE, Kind.MESSAGE]
    read = chat(tmp_path, f"{ANDROID}Bob: yes\n", f"{ANDROID}Lea: Bob joined\n")
    assert [kind for *_, kind in read] == [Kind.MESSAGE, Kind.MESSAGE]


def test_a_name_may_hold_a_colon(tmp_path: Path) -> None:
    texts = ["yes", "I'll bring: the map", "<Media omitted>", "and tea"]
    read = chat(tmp_path, f"{ANDROID}Lea: PS: hi\n", *(f"{ANDROID}Work: Piet: {text}\n" for text in texts))
    assert read == [
        ("Lea", "PS: hi", Kind.MESSAGE),
        ("Work: Piet", "yes", Kind.MESSAGE),
        ("Work: Piet", "I'll bring: the map", Kind.MESSAGE),
        ("Work: Piet", "", Kind.MEDIA),
        ("Work: Piet", "and tea", Kind.MESSAGE),
    ]
    lines = [f"{ANDROID}Piet: Note: {text}\n" for text in texts]
    assert {name for name, *_ in chat(tmp_path, *lines, f"{ANDROID}Piet: ok\n")} == {"Piet"}


@pytest.mark.parametrize(
    ("words", "others", "kind"),
    [
        ("I would rather walk", [], Kind.MESSAGE),
        ("Bob zzt zzt", [], Kind.SYSTEM),  # names somebody
        ("Zzt zzt 3", ["Lea: \u200eZzt zzt 4"], Kind.SYSTEM),  # recurs
    ],
)
def test_words_behind_a_mark_that_no_list_knows(tmp_path: Path, words: str, others: list[str], kind: Kind) -> None:
    lines = ["Lea: meet at 7?", f"Lea: \u200e{words}", "Bob: \u200eimage omitted", *others]
    read = chat(tmp_path, *(f"{IOS}{line}\r\n" for line in lines))
    assert read[1] == ("Lea", words if kind is Kind.MESSAGE else "", kind)


# WhatsApp's own string tables, read in place beside the checkout: every phrase of every locale is known as its own.


TABLES = Path(__file__).parents[5] / "shared" / "formats" / "markers.json"
MARKERS: dict[str, Any] = json.loads(TABLES.read_text("utf-8")) if TABLES.is_file() else {"ios": {}, "android": {}}
pytestmark = pytest.mark.skipif(not TABLES.is_file(), reason="the string tables of ../shared/formats are not here")

RIGHT_TO_LEFT = {"AR", "FA", "HE", "UR"}
NAMES = ["José-María", "+44 7700 900123", "👩‍💻 Anna", "Zoé: la vraie"]
PHOTO = "00000035-PHOTO-2022-03-27-21-41-55.jpg"
MAP = "https://maps.google.com/?q=-51.5,0.12"
BODIES = {
    "deleted": Kind.DELETED,
    "deleted_by_you": Kind.DELETED,
    "deleted_by_admin": Kind.DELETED,
    "waiting_for_message": Kind.SYSTEM,
    "view_once_received": Kind.SYSTEM,
    "live_location": Kind.LOCATION,
    "call_started": Kind.CALL,
}
ELSEWHERE = {"attached", "file_attached", "location", "encryption_notice", "export_title", "tap_to_learn_more"}
# "Left" mistaken for what is left over; two letters before a name that holds a colon.
NOT_TOLD = {"还剩 {1}", "Si {1} ay sumali gamit ang invite link ng grupo"}


def expected(key: str) -> Kind | None:
    """What a body of this kind is; None for events, which are lines of their own."""
    if key.endswith("_omitted"):
        return Kind.MEDIA
    return Kind.CALL if key.startswith("missed_") else BODIES.get(key)


def filled(template: str) -> Iterator[str]:
    for shift in range(len(NAMES)):
        yield re.sub(r"\{(\d)\}", lambda blank, by=shift: NAMES[(int(blank[1]) + by) % len(NAMES)], template)  # type: ignore[misc]


def events(table: dict[str, list[str]]) -> Iterator[str]:
    return chain.from_iterable(table[key] for key in table if key not in ELSEWHERE and expected(key) is None)


@pytest.mark.parametrize("locale", MARKERS["ios"])
def test_ios_marks_its_words(locale: str) -> None:
    table = MARKERS["ios"][locale]
    mark = "\u200f" if locale in RIGHT_TO_LEFT else "\u200e"
    classify = ios_body(mark)
    for key, templates in table.items():
        for body in chain.from_iterable(map(filled, templates)):
            kind = expected(key) or Kind.SYSTEM
            if key not in ELSEWHERE:
                assert classify(mark + body, False) == (kind, ""), (key, body)
    for template in table["attached"]:
        body = mark + template.replace("{1}", PHOTO)
        assert classify(body, True) == classify(f"sea.pdf • {body}", True) == (Kind.MEDIA, "")
        assert classify(f"{body}\nthe sea", True) == classify(f"the sea {body}", True) == (Kind.MESSAGE, "the sea")
    assert all(map(is_notice, table["encryption_notice"]))


@pytest.mark.parametrize("locale", MARKERS["ios"])
def test_ios_words_that_lost_their_marks_count_as_whole_bodies(locale: str) -> None:
    for key, templates in MARKERS["ios"][locale].items():
        kind = expected(key)
        for body in templates:
            if kind and key != "call_started" and "{" not in body:
                assert unmarked_body(body, False) == (kind, ""), (key, body)
                assert unmarked_body(f"{body} haha", False) == (Kind.MESSAGE, f"{body} haha")
    assert all(
        is_event_line(line) for each in events(MARKERS["ios"][locale]) for line in filled(each) if ": " not in line
    )


@pytest.mark.parametrize("locale", MARKERS["android"])
def test_android_bodies(locale: str) -> None:
    table = MARKERS["android"][locale]
    for key, phrases in table.items():
        kind = expected(key)
        for body in phrases:
            if kind:
                assert android_body(body, False) == android_body(f"\u200e{body}", False) == (kind, ""), (key, body)
                assert android_body(f"{body} haha", False) == (Kind.MESSAGE, f"{body} haha")
    for template in table["media_omitted"]:
        assert android_body(f"{template}\nthe sea", False) == (Kind.MESSAGE, "the sea")
    for template in table["file_attached"]:
        body = template.replace("{1}", "IMG-20220323-WA0002.jpg")
        assert android_body(body, False) == android_body(f"\u200e{body}", False) == (Kind.MEDIA, "")
        assert android_body(f"{body}\nthe sea", False) == (Kind.MESSAGE, "the sea")
    for template in table["location"]:
        assert android_body(template.replace("{1}", MAP), False) == (Kind.LOCATION, "")
    assert all(map(is_notice, table["encryption_notice"]))
    titles = {normal(title) for title in EXPORT_TITLES}
    assert {normal(title.replace("{1}", "{}")) for title in table["export_title"]} <= titles


@pytest.mark.parametrize("locale", MARKERS["android"])
def test_android_events_have_no_sender(locale: str) -> None:
    for template in events(MARKERS["android"][locale]):
        for line in filled(template):
            before, colon, _ = line.partition(": ")
            if not colon:
                assert is_event_line(line), template
            elif before != "Zoé" and template not in NOT_TOLD:
                # A name with a colon in it, behind words that tell the event.
                assert is_event_line(line) or template.startswith("{"), template
                assert is_event(before) or template.startswith("{"), template
            assert not is_event_line(f"Alice: {line}")


def test_edit_marks() -> None:
    for mark in chain.from_iterable([each] if isinstance(each, str) else each for each in MARKERS["edited"].values()):
        assert normal(mark.strip("<>")) in map(normal, EDITED)
        for body in (f"two words {mark}", f"two words \u200e{mark}"):
            assert android_body(body, False) == ios_body("\u200e")(body, False) == (Kind.MESSAGE, "two words")


@pytest.mark.parametrize("mark", ["\u200e", "\u200f", "\u200f\u202b"])
@pytest.mark.parametrize("head", ["13/03/2022, 14:56 - ", "[13/03/2022, 14:56:00] "])
def test_a_name_that_starts_with_a_mark_is_a_sender_and_events_are_not(mark: str, head: str, tmp_path: Path) -> None:
    named = [f"{head}{mark}עדי: {text}\n" for text in ("shalom", "ma", "nishma: tov")]
    events = [f"{head}\u200eBob changed the subject from “Work: one” to “two”\n"] * 4
    read = whatsapp(save(tmp_path, f"{head}Bob: hi\n" + "".join(named + events)))
    assert [(each.sender, each.text) for each in read if each.kind is Kind.MESSAGE] == [
        *[("Bob", "hi"), ("עדי", "shalom"), ("עדי", "ma"), ("עדי", "nishma: tov")]
    ]
