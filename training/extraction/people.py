"""Rename people: `Contact N` for a phone number or e-mail address, or invented names for everyone (`--pseudonyms`).

`Anonymizer` applies the names, and the masks of pii.py, to messages, titles, files and reports alike.
"""

import hashlib
import re
import unicodedata
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import count, pairwise

from training.extraction.deduplication import Conversation
from training.extraction.languages import UNDETERMINED, languages
from training.extraction.pii import (
    DEFAULT_REGIONS,
    PHONE_GAP,
    Masker,
    canonical,
    emails,
    international_end,
    phones,
    plain,
    regions_of,
)
from training.extraction.platform import Record
from training.extraction.speakers import fold, without_accents

STARTS = (
    "Ba Be Bo Da De Do Fa Fe Fo Ga Gi Go Ja Je Jo Ka Ke Ko La Le Lo Lu Ma Me Mi Na Ne No"
    " Pa Pe Po Ra Re Ro Sa Se So Ta Te To Va Ve Vo Za Ze Zo"
)
ENDS = ("lvo", "ndrul", "rzia", "skel", "mbiro", "tvan")
INVENTED = tuple(start + end for end in ENDS for start in STARTS.split())
"""276 first names that are easy to say in most languages and mean nothing in French or English."""

# First words of names, folded, that are far more often words. Alone, they count as a name only with a capital in the
# middle of a sentence.
EVERYDAY_WORDS = """
aimé aimée ambre ange avril blanche brice cerise chance claire clémence clément colombe constance cyprès céleste
dieudonné désiré désirée fleur florence france franc gentil honoré iris jade jasmin juste lune lys marine marin
marguerite mercedes modeste neige noël océan olive parfait pascal perle pie pierre placide prune prudence reine rémi
roman rose rubis sage soleil sylvestre toussaint victoire violette

amber angel april art august autumn ben bill bob bud buddy candy carol chase chip chuck cliff clay crystal daisy dale
dawn dean dick dot drew duke earl eve faith fern frank gene ginger glen grace grant guy hazel harry heath heather holly
honey hope hunter ivy jack jay jean jewel joy june king lance lane lily major mark mason max may melody mercy miles
misty norm olive pat patience paris pearl penny peter pierce poppy prince queen reed rich river rob robin rocky rod
rowan ruby rusty sally sandy scarlet sky skip sterling stew sue summer sunny trace van wade ward warren will willow
woody young zip

maman papa mamie mamy papi papy tata tonton tatie cousin cousine frère sœur soeur oncle tante parrain marraine chéri
chérie bébé amour coeur cœur mon ma mes le la les un une de du des dr docteur prof monsieur mme madame mr mrs ms miss
mister sir lady mum mom mam dad daddy mummy mommy gran granny grandma grandpa nan nana aunt auntie uncle bro brother
sis sister baby babe love boss chef coach the my our a an big little petit petite grand gros vieux old new saint san el
al

info infos service services support client orange free apple google amazon facebook instagram telegram whatsapp discord
bot admin system user unknown me you team groupe group famille family pizza taxi hotel hôtel école school plombier
voisin voisine proprio médecin dentiste garage banque bank post home contact deleted former member membre account
compte no not ok moi toi
"""  # by paragraph: French and English first names, names in an address book and titles, companies and groups
EVERYDAY = frozenset(EVERYDAY_WORDS.split())

# WhatsApp isolates a mentioned name (U+2068 … U+2069); of a number it writes the digits, with or without the plus.
MENTION = re.compile(r"@(?:\u2068([^\u2068\u2069\n]{1,200})\u2069|(?=\+?\d))")
DIGITS = re.compile(r"\d{8,15}(?!\w)")
LIKE_A_NUMBER = re.compile(rf"(?<![^\W_])\+?\d(?:{PHONE_GAP}{{0,2}}\d){{6,14}}")
WORD = re.compile(r"[^\W_]+")
BETWEEN = re.compile(r"[ \u00a0\u202f.'’-]{1,2}")  # words of one name
SENTENCE_END = re.compile(r"(?:^|[.!?…\n:])[\s\"'«“(*_~-]*$")


@lru_cache(maxsize=65_536)  # a name may be mentioned in every message
def identity(name: str, regions: tuple[str, ...]) -> str | None:
    """A phone number or e-mail address in one spelling; None for any other name."""
    if number := canonical(name, regions):
        return number
    bare = plain(name)
    return bare.casefold() if any(span == (0, len(bare)) for span in emails(bare)) else None


def _key(name: str, regions: tuple[str, ...]) -> str:
    return identity(name, regions) or fold(plain(name))


class Contacts:
    """Call people `Contact N` who are known only by a phone number or an e-mail address. N counts them as they come;
    each has one N, in all conversations of a run, however the number is spelled. Keep senders in `me`: `ghost prepare
    --me` must find them.

    names  as for Pseudonyms; a title's digits are a person's number if they are among these names, and the N of one of
           these names is nobody else's
    kept   each person's N by a hash, of earlier runs; new ones are added. Otherwise another export could give the N of
           somebody who is left out to another person
    """

    def __init__(
        self,
        names: Iterable[str] = (),
        me: Iterable[str] = (),
        regions: tuple[str, ...] = DEFAULT_REGIONS,
        kept: dict[str, int] | None = None,
    ) -> None:
        self._me = frozenset(_key(name, regions) for name in me)
        self._regions = regions
        names = set(names)
        self._known = frozenset(filter(None, (identity(name, regions) for name in names)))
        self._kept = {} if kept is None else kept
        self._last = max(self._kept.values(), default=0)
        self._contacts: dict[str, str] = {}
        called_so = (re.fullmatch(r"contact (\d{1,9})", fold(name)) for name in names)
        self._taken = {int(match[1]) for match in called_so if match}

    def sender(self, name: str) -> str:
        """Rename a sender. Returns the same object when the name stays."""
        if _key(name, self._regions) in self._me:
            return name
        key = identity(name, self._regions)
        return self._contact(key) if key else numbers(name, self._regions, self._contact, self._known)

    def title(self, title: str) -> str:
        """Rename the people in the title of a chat or the name of its file; keep the rest."""
        return self.sender(title)

    def body(self, text: str) -> str:
        """Rename the people whom a message mentions. Call it before `Masker.mask`. Returns the same object when
        nothing changes."""
        return mentions(text, self._regions, self._mentioned) if "@" in text else text

    def _mentioned(self, name: str) -> str:
        key = identity(name, self._regions)
        return self._contact(key) if key else name

    def _contact(self, key: str) -> str:
        if key not in self._contacts:
            # Dozens of numbers share a hash, so that it does not tell one; among 500 people two do with 0.7%.
            short = hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()[:6]
            number = self._kept.get(short)
            if number is None or number in self._taken:
                number = next(free for free in count(self._last + 1) if free not in self._taken)
                self._kept[short] = self._last = number
            self._taken.add(number)
            self._contacts[key] = f"Contact {number}"
        return self._contacts[key]


class Pseudonyms:
    """As Contacts, but give everyone but `me` an invented name, numbers included; no two people share one.

    names  every sender of the run and the title of every chat of two. All are needed at the start, so that the invented
           names do not depend on the order of the files

    In messages, replace full names and first names too, in any case, with or without accents. Not replaced: surnames
    and nicknames alone, user names, names in scripts without spaces, people who neither wrote nor are mentioned, and
    first names that are also words (Rose, Will) unless they have a capital in the middle of a sentence.
    """

    def __init__(
        self, names: Iterable[str], me: Iterable[str] = (), regions: tuple[str, ...] = DEFAULT_REGIONS
    ) -> None:
        self._me = frozenset(_key(name, regions) for name in me)
        self._regions = regions
        everyone = set(names)
        words = {word for name in (*everyone, *self._me) for word in WORD.findall(fold(name))}
        self._free = [name for name in INVENTED if name.casefold() not in words]
        self._invented: dict[str, str] = {}
        self._taken: set[str] = set()
        keys = {key for name in everyone if (key := _key(name, regions)) not in self._me}
        for key in sorted(keys):
            self._invent(key)
        self._by_word = self._spellings(key for key in keys if not identity(key, regions))

    def sender(self, name: str) -> str:
        key = _key(name, self._regions)
        return name if key in self._me else self._invent(key)

    def title(self, title: str) -> str:
        key = _key(title, self._regions)
        if key in self._me or key in self._invented:
            return self.sender(title)
        title = numbers(title, self._regions, self._invent, self._invented)
        spaced = title.replace("_", " ")  # in a file's name it is a blank, in a message a part of a user name
        renamed = self._plain(spaced)
        return title if renamed == spaced else renamed

    def body(self, text: str) -> str:
        if "@" in text:
            text = mentions(text, self._regions, self.sender)
        return self._plain(text)

    def _invent(self, key: str) -> str:
        """Choose by the key's hash. If that name is taken, use the next one; when all are, go on with "Name 2"."""
        if key not in self._invented:
            first = int.from_bytes(hashlib.sha256(key.encode("utf-8", "replace")).digest()[:8], "big")
            round_, place = divmod(len(self._invented), len(self._free))
            names = self._free if not round_ else [f"{name} {round_ + 1}" for name in self._free]
            place = first % len(names)
            while names[place] in self._taken:
                place = (place + 1) % len(names)
            self._invented[key] = names[place]
            self._taken.add(names[place])
        return self._invented[key]

    def _spellings(self, keys: Iterable[str]) -> dict[str, list[tuple[list[str], str]]]:
        """By first word, the spellings to replace in messages and their invented names, longest first."""
        spellings: dict[str, dict[tuple[str, ...], set[str]]] = {}
        for key in sorted(keys):
            for spelling in dict.fromkeys((key, without_accents(key))):
                if words := WORD.findall(spelling):
                    of_word = spellings.setdefault(words[0], {})
                    of_word.setdefault(tuple(words), set()).add(key)
                    of_word.setdefault(_first(spelling), set()).add(key)
        mine = {_first(spelling) for name in self._me for spelling in (name, without_accents(name))}
        by_word = {}
        for word, wanted in spellings.items():
            for first in mine.intersection(wanted):
                del wanted[first]
            # A first name that two people share gets an invented name of its own.
            by_word[word] = [
                (list(words), self._invent(keys.pop() if len(keys) == 1 else without_accents(" ".join(words))))
                for words, keys in sorted(wanted.items(), key=lambda item: -len(item[0]))
            ]
        return by_word

    def _plain(self, text: str) -> str:
        if not unicodedata.is_normalized("NFC", text):  # Macs write é as two characters, which are not one word
            composed = unicodedata.normalize("NFC", text)
            renamed = self._plain(composed)
            return text if renamed == composed else renamed
        if self._by_word.keys().isdisjoint(WORD.findall(text.casefold())):
            return text
        tokens = [(match.start(), match.end(), fold(match[0])) for match in WORD.finditer(text)]
        pieces: list[str] = []
        end = index = 0
        while index < len(tokens):
            start, _, word = tokens[index]
            step = 1
            for words, invented in self._by_word.get(word, ()):
                here = tokens[index : index + len(words)]
                if [token[2] for token in here] == words and _is_name(text, here):
                    pieces += text[end:start], invented
                    end, step = here[-1][1], len(words)
                    break
            index += step
        return "".join(pieces) + text[end:] if pieces else text


def _first(name: str) -> tuple[str, ...]:
    """The words of a first name; Jean-Pierre has two, and neither alone is his name."""
    return next((words for part in name.split() if (words := tuple(WORD.findall(part)))), ())


WORDS = frozenset(map(without_accents, EVERYDAY))


def _is_name(text: str, tokens: list[tuple[int, int, str]]) -> bool:
    """Whether words that spell a name are one: adjacent words, or a single one that is no everyday word or is
    capitalised in the middle of a sentence."""
    if "_" in (text[max(0, tokens[0][0] - 1) : tokens[0][0]], text[tokens[-1][1] : tokens[-1][1] + 1]):
        return False  # part of a user name
    if len(tokens) > 1:
        return all(BETWEEN.fullmatch(text, left[1], right[0]) for left, right in pairwise(tokens))
    start, _, word = tokens[0]
    if len(word) > 2 and without_accents(word) not in WORDS:
        return True
    if start and text[start - 1] in "@\u2068":
        return True
    return text[start].isupper() and not SENTENCE_END.search(text[max(0, start - 16) : start])


def mentions(text: str, regions: tuple[str, ...], rename: Callable[[str], str]) -> str:
    """Rename every mention of a number or an isolated name; keep the @ and the isolates."""
    pieces: list[str] = []
    end = 0
    for match in MENTION.finditer(text):
        if match[1]:
            start, stop = match.span(1)
        else:
            start = match.end()
            digits = DIGITS.match(text, start)
            stop = digits.end() if digits else international_end(text, start) or start
        if start < stop and not (match.start() and text[match.start() - 1].isalnum()):
            # Bare digits start with the country code: read as national ones they could be another country's.
            bare = match[1] is None and text[start].isdigit()
            pieces += text[end:start], rename(f"+{text[start:stop]}" if bare else text[start:stop])
            end = stop
    return "".join(pieces) + text[end:] if pieces else text


def numbers(name: str, regions: tuple[str, ...], rename: Callable[[str], str], known: Container[str] = ()) -> str:
    """Rename every phone number and e-mail address in a name or title.

    known  identities of people; digits that are one of them always count as a number
    """
    pieces: list[str] = []
    end = 0
    found = [*_known_numbers(name, regions, known), *phones(name, regions), *emails(name)]
    for start, stop in sorted(found, key=lambda span: (span[0], -span[1])):
        if start >= end and (key := identity(name[start:stop], regions)):
            pieces += name[end:start], rename(key)
            end = stop
    return "".join(pieces) + name[end:] if pieces else name


def _known_numbers(name: str, regions: tuple[str, ...], known: Container[str]) -> Iterator[tuple[int, int]]:
    """Spans of the known numbers. One may end before the digits do, as in `33612345678 (1).txt`."""
    for match in LIKE_A_NUMBER.finditer(name):
        for group in reversed(list(re.finditer(r"\d+", match[0]))):
            start, end = match.start(), match.start() + group.end()
            if not name[end : end + 1].isdigit() and identity(name[start:end], regions) in known:
                yield start, end
                break


OWNER = "Me"  # the owner in exports that lack their name: SMS, iMessage, Google Voice, Signal, Snapchat
TWO = 2  # people; the title of a chat of two, or of one of them alone, is the other one's name
TEXTS = 20_000  # messages of a run from which to sample those whose language is detected


class Anonymizer:
    """Renames people and masks messages. Does nothing unless one of the two is set.

    pii         mask personal data in messages, and call people Contact N who are known only by a number or address
    pseudonyms  give everyone but `me` an invented name
    contacts    `kept` of Contacts
    """

    def __init__(
        self,
        found: Sequence[Conversation],
        me: Iterable[str],
        pii: bool,
        pseudonyms: bool,
        contacts: dict[str, int] | None = None,
    ) -> None:
        regions: tuple[str, ...] = DEFAULT_REGIONS
        self._people: Contacts | Pseudonyms | None = None
        if pii or pseudonyms:
            senders = [{record.sender for record in conversation.messages} for conversation in found]
            names = set().union(*senders)
            titles = {each.chat.title for each, here in zip(found, senders, strict=True) if len(here) <= TWO}
            spoken = [each for each in languages(_texts(found)) if each != UNDETERMINED]
            regions = regions_of(names | {each.chat.title for each in found}, spoken)
            listed = {part for each in found for part in each.chat.title.split(", ") if identity(part, regions)}
            named, owners = names | titles | listed, {*me, OWNER}
            if pseudonyms:
                self._people = Pseudonyms(named, owners, regions)
            else:
                self._people = Contacts(named, owners, regions, contacts)
        self._masker = Masker(regions) if pii else None

    @property
    def counts(self) -> dict[str, int]:
        """Replacements in messages by kind, most frequent first."""
        return dict(self._masker.counts.most_common()) if self._masker else {}

    def records(self, records: list[Record]) -> list[Record]:
        """The messages, renamed and masked; unchanged ones are the same objects."""
        if self._people is None:
            return records
        senders = {name: self._people.sender(name) for name in dict.fromkeys(record.sender for record in records)}
        are_kept = all(name == renamed for name, renamed in senders.items())
        rename = self._people.body
        texts = [rename(record.text) for record in records]
        if self._masker:
            texts = self._masker.mask_all(texts)
        return [
            record
            if text is record.text and (are_kept or senders[record.sender] == record.sender)
            else record._replace(sender=senders[record.sender], text=text)
            for record, text in zip(records, texts, strict=True)
        ]

    def title(self, text: str) -> str:
        """Rename the people in a chat's title, a file's name, or a line that holds one."""
        return self._people.title(text) if self._people else text


def _texts(found: Sequence[Conversation]) -> list[str]:
    """About TEXTS messages, from every conversation in proportion to its size."""
    total = sum(len(conversation.messages) for conversation in found)
    step = 1 + total // TEXTS
    return [record.text for conversation in found for record in conversation.messages[::step]]
