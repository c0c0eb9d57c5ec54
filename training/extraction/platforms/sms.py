"""SMS Backup & Restore's XML: text messages and calls; Signal's old plaintext backup has the same shape.

Streamed: the pictures of an MMS make files of gigabytes. The text is repaired on its way to the parser, because the
programs that write these files spell an emoji as two halves (`&#55357;&#56838;`), which no XML may hold.
"""

import codecs
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import IO
from xml.parsers import expat

from ghost.errors import ExportError
from replicate_deployment.chat_format import well_formed
from training.extraction.platform import Chat, Evidence, Kind, Reading, Record
from training.extraction.source import Source, line_breaks

NAME = "sms"
UNIT = "entry"
NEWEST_FIRST = False
BROAD = False
COMPANIONS: frozenset[str] = frozenset(("sms.xsl", "calls.xsl"))  # the style sheets that show a backup in a browser

ROOT = re.compile(r"\s*(?:<\?.*?\?>\s*|<!--.*?-->\s*|<!DOCTYPE[^<]*(?:<!E[^<]*)*>\s*)*<(smses|calls)[\s/>]", re.DOTALL)
CHUNK = 1 << 20
ME = "Me"
OWN_NUMBER = "insert-address-token"
RECEIVED, DRAFT = "1", "3"  # `type` of an SMS, `msg_box` of an MMS
SENT = ("2", "4", "5", "6")  # sent, in the outbox, failed, queued: written and sent off by the person
FROM = "137"  # `type` of an MMS address
SECONDS_BELOW = 10**11  # a `date` below it counts seconds: as milliseconds it would lie in 1973

Attributes = dict[str, str]


def recognise(source: Source, evidence: Evidence) -> str | None:
    if match := ROOT.match(evidence.head):
        return f"XML with the root <{match[1]}>, as SMS Backup & Restore writes it"
    return None


def read(source: Source, date_order: str | None) -> Reading:
    return Reading(_records(source))


def _records(source: Source) -> Iterator[Record]:
    entries = _Entries()
    parser = expat.ParserCreate()
    parser.StartElementHandler = entries.start
    parser.EndElementHandler = entries.end
    parser.StartDoctypeDeclHandler = _refuse  # entities can only be declared in one: no bombs, no files from outside
    with source.open() as stream:
        try:
            for text in _repaired(stream):
                parser.Parse(text, False)
                yield from entries.take()
            parser.Parse("", True)
        except expat.ExpatError as error:
            yield from entries.take()
            raise ExportError(
                f"{source}: not valid XML after entry {entries.position:,} ({expat.errors.messages[error.code]}, line"
                f" {error.lineno:,}); a backup that was cut off ends like this: copy or make it again"
            ) from None
        except UnicodeDecodeError:
            raise ExportError(
                f"{source}: not in the encoding that it declares after entry {entries.position:,}; save it as UTF-8, or"
                " make the backup again"
            ) from None
        except _DoctypeError:
            raise ExportError(f"{source}: declares a document type, which no SMS backup does; refused") from None


class _DoctypeError(Exception):
    pass


def _refuse(*_: object) -> None:
    raise _DoctypeError


class _Entries:
    """What the parser's events add up to. An MMS is complete when its element ends."""

    def __init__(self) -> None:
        self.position = 0
        self._found: list[Record] = []
        self._chats: dict[str, Chat] = {}
        self._names: dict[str, str] = {}  # number → name, from the entries that have one number
        self._mms: Attributes = {}
        self._parts: list[Attributes] = []
        self._people: list[Attributes] = []

    def take(self) -> list[Record]:
        found, self._found = self._found, []
        return found

    def start(self, element: str, attributes: Attributes) -> None:
        if element == "part":
            self._parts.append(attributes)
        elif element == "addr":
            self._people.append(attributes)
        elif element in ("sms", "call", "mms"):
            self.position += 1
            if element == "sms":
                self._found.append(self._sms(attributes))
            elif element == "call":
                self._found.append(self._call(attributes))
            else:
                self._mms, self._parts, self._people = attributes, [], []

    def end(self, element: str) -> None:
        if element == "mms":
            self._found.append(self._whole_mms())

    def _sms(self, sms: Attributes) -> Record:
        number = _number(_value(sms, "address"))
        chat = self._chat([number], _name(sms))
        box = sms.get("type", "")
        sender = self._name_of(number) if box == RECEIVED else ME
        return self._record(chat, sms, sender, _value(sms, "body"), _kind(box))

    def _call(self, call: Attributes) -> Record:
        chat = self._chat([_number(_value(call, "number"))], _name(call))
        return self._record(chat, call, "", "", Kind.CALL)

    def _whole_mms(self) -> Record:
        mms, box = self._mms, self._mms.get("msg_box", "")
        chat = self._chat(self._members(), _name(mms))
        words, has_media = [], False
        for part in self._parts:
            if part.get("ct") == "text/plain":
                words.append(_value(part, "text"))
            else:
                has_media = has_media or part.get("ct") != "application/smil"  # the slide that arranges the others
        is_notice = mms.get("m_type") == "130"  # of a message that was never fetched
        kind = Kind.MEDIA if has_media or is_notice else Kind.EMPTY
        text = "\n".join(filter(None, words))
        sender = self._mms_sender(chat) if box == RECEIVED else ME
        return self._record(chat, mms, sender, text, _kind(box), without_text=kind)

    def _members(self) -> list[str]:
        if address := _value(self._mms, "address"):
            return [_number(each) for each in address.split("~")]
        return [_number(each) for person in self._people if (each := _value(person, "address")) != OWN_NUMBER]

    def _mms_sender(self, chat: Chat) -> str:
        for person in self._people:
            if person.get("type") == FROM and _value(person, "address") not in ("", OWN_NUMBER):
                return self._name_of(_number(_value(person, "address")))
        return self._name_of(chat.key)  # without addresses the chat is with one person

    def _chat(self, members: list[str], name: str) -> Chat:
        """A thread is the set of its numbers; its title is the contact's name where the backup has one."""
        key = "~".join(sorted(set(members)))
        if name and "~" not in key:
            self._names[key] = name
        if key not in self._chats:
            self._chats[key] = Chat(key, name or key.replace("~", ", ") or "unknown", is_id=bool(key))
        return self._chats[key]

    def _name_of(self, number: str) -> str:
        return self._names.get(number, number)

    def _record(
        self, chat: Chat, entry: Attributes, sender: str, text: str, kind: Kind, without_text: Kind = Kind.EMPTY
    ) -> Record:
        timestamp = _timestamp(entry.get("date", ""))
        if timestamp is None or kind is Kind.UNREADABLE:
            return Record(chat, "", "", "", Kind.UNREADABLE, self.position)
        if kind is Kind.MESSAGE and not text:
            kind = without_text
        return Record(chat, timestamp, sender, line_breaks(text), kind, self.position)


def _kind(box: str) -> Kind:
    if box == DRAFT:
        return Kind.SYSTEM  # words that nobody was sent
    return Kind.MESSAGE if box == RECEIVED or box in SENT else Kind.UNREADABLE


def _value(attributes: Attributes, key: str) -> str:
    """These programs write the word `null` for what is absent."""
    value = attributes.get(key, "")
    return "" if value == "null" else value


def _name(attributes: Attributes) -> str:
    name = _value(attributes, "contact_name").strip()
    return "" if name == "(Unknown)" else name


def _number(address: str) -> str:
    """One spelling of a number: "+1 (555) 123-4567" and "+15551234567" are one thread; names of senders stay."""
    bare = re.sub(r"[\s().-]", "", address)
    return bare if re.fullmatch(r"\+?\d+", bare) else address.strip()


def _timestamp(date: str) -> str | None:
    try:
        moment = int(date)
        if moment <= 0:
            return None
        if moment < SECONDS_BELOW:
            moment *= 1000
        return datetime.fromtimestamp(moment / 1000, UTC).isoformat(timespec="milliseconds")
    except (ValueError, OverflowError, OSError):
        return None


# A run of character references, what XML cannot hold, and base64 long enough that nobody typed it.
REFERENCES = re.compile(r"(?:&#(?:[xX][0-9a-fA-F]{1,8}|[0-9]{1,10});)+")
REFERENCE = re.compile(r"&#(?:[xX]([0-9a-fA-F]+)|([0-9]+));")
FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
FIRST_HALF = re.compile(
    r"&#(?:[xX]0{0,4}[dD][89abAB][0-9a-fA-F]{2}|0{0,5}5(?:529[6-9]|5[3-9]\d\d|6[0-2]\d\d|63[01]\d));\Z"
)
LONGEST = 14  # characters of a reference
PICTURE = re.compile(' data="[A-Za-z0-9+/=]{1024,}')
BASE64 = re.compile("[A-Za-z0-9+/=]*")
OPEN_DATA = re.compile(' (?:d|da|dat|data|data=|data="[A-Za-z0-9+/=]{0,1023})?\\Z')


def _repaired(stream: IO[bytes]) -> Iterator[str]:
    """The file's text in pieces, halves of emoji joined, illegal characters and pictures left out."""
    chunk = stream.read(CHUNK).lstrip()  # expat refuses blank lines before the declaration
    encoding = _encoding(chunk)
    decoder = codecs.getincrementaldecoder(encoding)()
    rest, in_picture = "", False
    wrong: UnicodeDecodeError | None = None

    def without(picture: re.Match[str]) -> str:
        nonlocal in_picture
        in_picture = picture.end() == len(picture.string)  # it goes on in the next piece
        return ' data="'

    while chunk:
        following = stream.read(CHUNK)
        try:
            decoded = decoder.decode(chunk)  # a character that the end cuts is left out: the XML is cut there too
        except UnicodeDecodeError as error:  # what precedes it is still read
            decoded, following, wrong = error.object[: error.start].decode(encoding), b"", error
        text = rest + well_formed(decoded)  # UTF-7 decodes to halves, too
        if in_picture and (picture := BASE64.match(text)):
            text = text[picture.end() :]
            in_picture = not text
        text = PICTURE.sub(without, text)
        cut = _cut(text) if following and not in_picture else len(text)
        text, rest = text[:cut], text[cut:]
        yield FORBIDDEN.sub("", REFERENCES.sub(_joined, text) if "&#" in text else text)
        chunk = following
    if wrong:
        raise wrong


def _cut(text: str) -> int:
    """Where a piece may end: not inside a reference, not between two halves, not early in a picture."""
    end = len(text)
    start = text.rfind("&", max(0, end - LONGEST))
    if start >= 0 and ";" not in text[start:]:
        end = start
    if half := FIRST_HALF.search(text, max(0, end - LONGEST), end):
        end = half.start()
    data = OPEN_DATA.search(text, max(0, end - 1100), end)
    return data.start() if data else end


def _joined(run: re.Match[str]) -> str:
    """Halves of emoji joined, half an emoji marked as such; without what XML forbids, and the rest as it was."""
    references = run[0]
    codes = [
        int(hexadecimal, 16) if hexadecimal else int(decimal) for hexadecimal, decimal in REFERENCE.findall(references)
    ]
    if all(
        code in (9, 10, 13) or 32 <= code < 0xD800 or 0xE000 <= code < 0xFFFE or 0xFFFF < code < 0x110000
        for code in codes
    ):
        return references
    text = well_formed("".join(chr(code) for code in codes if code < 0x110000))
    return "".join(f"&#{ord(character)};" for character in FORBIDDEN.sub("", text))


def _encoding(head: bytes) -> str:
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return "utf-16"
    declared = re.match(rb"""(?:\xef\xbb\xbf)?\s*<\?xml[^>]*?encoding=["']([\w.-]{1,40})["']""", head)
    try:
        encoding = codecs.lookup(declared[1].decode()).name if declared else "utf-8"
        if b"<?xml".decode(encoding) != "<?xml":  # the declaration reads as ASCII and names something else
            encoding = "utf-8"
    except (LookupError, UnicodeError):
        encoding = "utf-8"
    return "utf-8-sig" if encoding == "utf-8" else encoding
