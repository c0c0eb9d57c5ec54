"""Random WhatsApp exports whose messages are known: the other half of the round-trip tests and benchmark.

Bodies hold any Unicode, several lines, blank ones between them, and lines that look like headers wherever the format
leaves no doubt that they are none:

- a header of another style than the file's (brackets, dash, colon; date or time first), as long as the file has more
  records than such lines;
- a header without a year, which people copy from one chat into another;
- any header at all where records end in CRLF (iOS) and line breaks inside them are bare LFs.

What no reader could decide is not generated:

- a line in a body that is spelled like the headers of its own file, where CRLF does not tell;
- blank lines at the beginning or the end of a body, which WhatsApp cuts off when sending; a body without any character;
- CR, which is a line break in transport: on Android CRLF and CR are generated and expected as LF; NUL;
- a name with `: ` in it, or that starts with "~"; in `Name:text` (iOS in Chinese) also a colon in the name, `: ` in
  the first line and a blank at its start; in headers without any separator (Croatian) a name that starts with a dash;
- a body equal to WhatsApp's wording (`<Media omitted>` on Android), or, on iOS, one that starts with U+200E or U+200F;
- a chat none of whose headers has a year.
"""

import random
import re
from datetime import datetime, timedelta
from typing import NamedTuple

from tests.training.extraction.whatsapp import spelling

MENTION = re.compile("@\u2068Léa\u2069")  # WhatsApp's marks around a name are no part of what was written
TIGHT = "no blank after the name"
# What a name looks like in the file, and what the person is called.
NAMES = {
    "Léa": "Léa",
    "Jose\u0301": "Jose\u0301",
    "Marc - Paul": "Marc - Paul",
    "User:)": "User:)",
    "a:b::c": "a:b::c",
    "12:30 Club": "12:30 Club",
    "2022": "2022",
    "[Work] Ann": "[Work] Ann",
    "O'Neil, Jr.": "O'Neil, Jr.",
    'José "Pepe" López': 'José "Pepe" López',
    "Mr. X": "Mr. X",
    "Am Kos": "Am Kos",
    "-dash-": "-dash-",
    "Anna ": "Anna",
    "Ann\u00a0Lee": "Ann Lee",
    "~\u202fAnna": "Anna",
    "~\u00a0Bob": "Bob",
    "\u202a+33\u00a06\u00a012\u00a034\u00a056\u00a078\u202c": "+33 6 12 34 56 78",
    "+1 (555) 010-0199": "+1 (555) 010-0199",
    "🙂": "🙂",
    "👩🏽‍🚒 Zoé 🇫🇷": "👩🏽‍🚒 Zoé 🇫🇷",
    "שרה כהן": "שרה כהן",
    "محمد علي": "محمد علي",
    "李雷": "李雷",
    "N" * 60: "N" * 60,
}
WORDS = (
    "hello", "ok", "I left my keys", "j’ai hâte d’être à 5: au café", "l'apostrophe", "e\u0301te\u0301",
    "ça va ?!", "<b>&amp;", "{\"a\": 1}", "=SUM(A1)", "a;b,c\t\"d\"", "http://example.org/?q=1:2",
    "@\u2068Léa\u2069", "18/03/2022!", "14:56", "- 3: x", "12:30 - yes", "1. milk", "2022", "[brackets]",
    "Name: text", "null and void", "the image omitted his face", "he wrote <Media omitted> twice",
    "You deleted this message, why?", "location: my place", "POLL: who is in?", "IMG.jpg is broken",
    "Lea left", "מה שלומך", "كيف حالك", "आप कैसे हैं", "你好，世界", "สวัสดี", "👩‍👩‍👧‍👦", "👍🏿", "🇫🇷🇩🇪", "1️⃣",
    "❤️", "Z̷̢a̸͎l̵g̶o̴", "a\u0085b", "a\u2028b", "a\u2029b", "a\x0bb", "a\x0cb", "a\x1cb\x1db\x1eb",
    "\u00a0nbsp\u202f", "zero\u200bwidth\u200c", "\u2067rtl\u2069", "in\u200eside", "\ufeffbom",
    "\ufffd", "\U0010ffff", "~", ":", "...", " spaces  ",
)  # fmt: skip
EVENTS = ("Lea left", "Lea added Marc", "Lea created group “Trip”")
NOTICE = (
    "Messages and calls are end-to-end encrypted. No one outside of this chat, not even WhatsApp, can read or listen"
    " to them."
)
STRIPPED = re.compile(
    "[\x00-\x20\x7f-\xa0:~\u061c\u1680\u200e\u200f\u2000-\u200a\u2028-\u202f\u205f\u2066-\u2069\u3000\ufeff]"
)


class Message(NamedTuple):
    timestamp: str
    sender: str
    text: str


class Export(NamedTuple):
    """A file and what it says.

    order    how the variant writes dates: the answer, should the reader ask
    records  messages and WhatsApp's own lines together
    """

    variant: str
    order: str
    content: bytes
    messages: list[Message]
    records: int


def export(variant: str, seed: int) -> Export:
    """A chat in one header variant, the same one for the same seed."""
    rng = random.Random(f"{variant} {seed}")
    ends_in_crlf = variant in spelling.IOS and rng.random() < 0.5
    newline = "\r\n" if ends_in_crlf or rng.random() < 0.1 else "\n"
    moments = _moments(variant, rng)
    people = [_person(variant, rng) for _ in range(rng.randint(1, 3))]
    bodies = _Bodies(variant, rng, ends_in_crlf and len(moments) > 1, len(moments) - 1)
    records, messages = [], []
    for index, when in enumerate(moments):
        head = spelling.stamp(variant, when, moments[-1])
        if rng.random() < (0.3 if index == 0 else 0.05):
            records.append(head + _event(variant, rng, NOTICE if index == 0 else rng.choice(EVENTS)))
            continue
        written, name = rng.choice(people)
        lines = bodies.lines()
        between = "\n" if ends_in_crlf else newline
        if variant in spelling.ANDROID and rng.random() < 0.05:
            between = rng.choice(["\r\n", "\r"])  # pasted
        colon = ":" if variant.endswith(TIGHT) else ": "
        records.append(head + written + colon + between.join(lines))
        words = MENTION.sub("@Léa", "\n".join(lines))
        messages.append(Message(spelling.iso(variant, when), name, words))
    text = newline.join(records) + rng.choice([newline, newline, ""])
    encoding = rng.choices(["utf-8", "utf-8-sig", "utf-16"], [90, 7, 3])[0]
    return Export(variant, spelling.date_order(variant), text.encode(encoding), messages, len(records))


def _moments(variant: str, rng: random.Random) -> list[datetime]:
    """When the messages were written: in order, but for a late one now and then."""
    old = "2014" in variant
    when = datetime(rng.randint(2010, 2013 if old else 2024), rng.randint(1, 12), rng.randint(1, 28))
    number, pause = (rng.randint(1, 6), 9_000_000) if rng.random() < 0.99 else (rng.randint(50, 300), 200_000)
    moments = []
    for _ in range(number):
        when += timedelta(seconds=rng.choice([0, rng.randrange(200), rng.randrange(90_000), rng.randrange(pause)]))
        moments.append(when)
    if "this year" in variant:  # the year before has its number, and so shows which year this one is
        moments = [each.replace(year=2012, day=min(each.day, 28)) for each in moments]
        moments = sorted(moments) + [each.replace(year=2013, day=min(each.day, 28)) for each in sorted(moments)]
    elif len(moments) > 2 and rng.random() < 0.1:
        late = rng.randrange(1, len(moments))
        moments[late] = moments[late].replace(hour=0)
    return moments


def _person(variant: str, rng: random.Random) -> tuple[str, str]:
    """A name as the file has it, and as the person is called."""
    if rng.random() < 0.7:
        written = rng.choice(list(NAMES))
    else:
        written = STRIPPED.sub("", _characters(rng, rng.randint(1, 15))) or "x"
    if variant.endswith(TIGHT):
        written = written.replace(":", ";").replace('"', "'")[:40]
    if "no separator" in variant:
        written = written.lstrip("-–")
    return written, NAMES.get(written, written)


def _event(variant: str, rng: random.Random, words: str) -> str:
    if variant in spelling.ANDROID:
        return words
    mark = "\u200f" if re.match("ios (ar|fa|he)", variant) else "\u200e"
    is_named = rng.random() < 0.5 and not variant.endswith(TIGHT)
    return f"Lea: {mark}{words}" if is_named else mark + words


def _characters(rng: random.Random, number: int) -> str:
    """Any Unicode but surrogates, NUL and line breaks, the separators that Python takes for line breaks included."""
    tops = (0x7F, 0x300, 0x2100, 0xFFFF, 0x1FAFF, 0x10FFFF)
    points = (rng.randint(1, rng.choice(tops)) for _ in range(number))
    return "".join(chr(point) for point in points if point not in (0x0A, 0x0D) and not 0xD800 <= point <= 0xDFFF)


class _Bodies:
    """What people wrote in one chat.

    may_quote   lines in the chat's own header style may stand in a body: CRLF tells them from headers
    look_alikes  how many lines in another header style may
    """

    def __init__(self, variant: str, rng: random.Random, may_quote: bool, look_alikes: int) -> None:
        self._variant, self._rng = variant, rng
        self._may_quote, self._look_alikes = may_quote, 99 if may_quote else look_alikes

    def lines(self) -> list[str]:
        rng = self._rng
        lines = [self._words() for _ in range(rng.choices([1, 2, 3, 5], [70, 15, 10, 5])[0])]
        if rng.random() < 0.05:
            lines[0] = f"{self._own()}Lea: {lines[0]}"
        for index in range(1, len(lines)):
            if rng.random() < 0.35:
                lines[index] = self._look_alike() + lines[index]
        if len(lines) > 2 and rng.random() < 0.3:
            lines[1] = ""
        for index in (0, -1):
            lines[index] = lines[index] or "x"
        if lines[0][0] in "\u200e\u200f" or not "".join(lines).strip():
            lines[0] = "x" + lines[0]
        if self._variant.endswith(TIGHT):
            lines[0] = lines[0].replace(":", "：").lstrip() or "x"
        return lines

    def _words(self) -> str:
        rng = self._rng
        if rng.random() < 0.3:
            return _characters(rng, rng.randint(0, 30))
        words = rng.choices(WORDS, k=rng.randint(1, 4))
        if rng.random() < 0.1:  # only a line feed can end the line before a header
            words.append(rng.choice(["", "\u2028", "\u0085", "\x0b", "\x0c", "\x1e"]) + self._own() + "Lea: hi")
        return " ".join(words)

    def _own(self) -> str:
        return spelling.stamp(self._variant, datetime(2014, 3, self._rng.randint(1, 28), self._rng.randrange(24), 56))

    def _look_alike(self) -> str:
        """The start of a line that looks like a header and is none."""
        rng = self._rng
        if self._may_quote and rng.random() < 0.5:
            return f"{self._own()}Bob: "
        if self._look_alikes > 0 and rng.random() < 0.7:
            foreign = rng.choice(spelling.of_other_styles(self._variant))
            self._look_alikes -= 1
            return spelling.stamp(foreign, datetime(2014, 3, rng.randint(1, 28), rng.randrange(24), 56)) + "Bob: "
        return rng.choice(["[9/8, 4:15 PM] Bob: ", "[4:15 PM] Bob: ", "[10/03 10:30] Bob: ", "[9/8 16:15:01] Bob: "])
