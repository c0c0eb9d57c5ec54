"""Messages that look like the app's own: rows whose wording recurs as no person's does.

Some apps write rows under people's names and mark them by nothing but their wording, in any language. Three signs need
no list of words: a row that names its sender, again and again or under several names; a sentence that differs only in
an emoji in its middle; a sentence that is often sent, never varied and never part of another message. These are signs,
not proof, so the report shows them and the person decides.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain

from training.extraction.people import WORDS
from training.extraction.platform import Record
from training.extraction.speakers import fold

LONGEST = 200  # characters of a row that is looked at
OFTEN = 5  # rows of one template
UNDER_SEVERAL = 3  # the same, if rows name several senders
UNVARIED, UNVARIED_SHARE = 10, 0.002  # rows of one text, and their share of a run's
EMOJI_KINDS = 3  # different emoji in one template
SHORTEST = 4  # letters of a name by which a user name is recognised
FEWEST = 3  # words of a template, a name among them
SAMPLE = 20_000  # messages of a run in which unvaried texts are looked for
NAME, NUMBER, SYMBOL = "‹name›", "‹number›", "‹emoji›"
DIGITS = re.compile(r"\d[\d.,:]*")
EMOJI = re.compile("[\u2190-\u2bff\u3030\ufe0f\u200d\U0001f000-\U0001faff]+")
UNSPACED = "\u0e00"  # Thai, Chinese, Japanese and Korean stand behind it
LINK = re.compile("@|://|www\\.")


@dataclass(slots=True)
class Template:
    """Rows of one wording.

    text            with slots for names, numbers and emoji
    file, position  of the first row; 0 where records have no position
    """

    text: str
    file: str
    position: int
    rows: int = 0
    senders: set[str] = field(default_factory=set)

    @property
    def shown(self) -> str | None:
        """The wording, or None where it may be one or two people's private words."""
        several = len(self.senders) > (1 if NAME in self.text else 2)
        return self.text if several and not LINK.search(self.text) else None


class Recurring:
    """The templates of a run.

    chats  file name and messages of one chat in one file, for all files
    """

    def __init__(self, chats: Sequence[tuple[str, list[Record]]]) -> None:
        self._step = 1 + sum(len(messages) for _, messages in chats) // SAMPLE
        self._unvaried = _unvaried([messages for _, messages in chats], self._step)
        found: dict[str, Template] = {}
        emoji: defaultdict[str, set[str]] = defaultdict(set)
        for file, messages in chats:
            for row, text, symbol in self._suspects(messages):
                template = found.setdefault(text, Template(text, file, messages[row].position))
                template.rows += 1
                template.senders.add(messages[row].sender)
                emoji[text].add(symbol)
        self._templates = {
            text: template
            for text, template in found.items()
            if text in self._unvaried
            or (text.startswith(NAME) and template.rows >= (OFTEN if len(template.senders) == 1 else UNDER_SEVERAL))
            or (len(emoji[text]) >= EMOJI_KINDS and template.rows >= OFTEN)
        }

    @property
    def templates(self) -> list[Template]:
        """The most frequent first."""
        return sorted(self._templates.values(), key=lambda template: -template.rows)

    def rows(self, messages: list[Record]) -> set[int]:
        """The indexes of a chat's messages that are of a template."""
        return {row for row, text, _ in self._suspects(messages) if text in self._templates}

    def _suspects(self, messages: list[Record]) -> Iterator[tuple[int, str, str]]:
        """Indexes of messages that may be the app's, with their template and the emoji in their middle."""
        names = {sender: _names(sender) for sender in {record.sender for record in messages}}
        for sender, word in _first_words(messages[:: self._step]):
            names[sender] += (word,)
        everybody = sorted(chain.from_iterable(names.values()), key=len, reverse=True)
        for row, (_, _, sender, text, *_) in enumerate(messages):
            if len(text) > LONGEST:
                continue
            if text.startswith(names[sender]) and (template := _of_name(text, names[sender], everybody)):
                yield row, template, ""
            elif text in self._unvaried:
                yield row, text, ""
            elif not text.isascii() and (symbol := EMOJI.search(text)):
                before, after = text[: symbol.start()].split(), text[symbol.end() :].split()
                if before and after and len(before) + len(after) >= FEWEST and "\n" not in text.strip():
                    yield row, _with_slots(text.strip()), symbol[0]


def _with_slots(text: str) -> str:
    return DIGITS.sub(NUMBER, EMOJI.sub(SYMBOL, text))


def _names(sender: str) -> tuple[str, ...]:
    """The names by which a row may speak of its sender, the longest first; none that is a word as well."""
    first = sender.split(" ", 1)[0]
    return tuple(name for name in dict.fromkeys((sender, first)) if len(name) > 1 and fold(name) not in WORDS)


def _of_name(text: str, own: tuple[str, ...], names: list[str]) -> str | None:
    rest = text[len(next(name for name in own if text.startswith(name))) :].rstrip()
    if "\n" in rest or len(rest.split()) < FEWEST - 1 or not (rest[0] == " " or not rest[0].isascii()):
        return None
    for name in names:
        if name in rest:
            rest = rest.replace(name, NAME)
    return NAME + _with_slots(rest)


def _first_words(messages: list[Record]) -> list[tuple[str, str]]:
    """Senders with a word that begins several of their rows, nobody else's, and holds a name of theirs: a user name."""
    found = Counter((record.sender, record.text.split(" ", 1)[0]) for record in messages if len(record.text) <= LONGEST)
    often = [pair for pair, number in found.items() if number >= UNDER_SEVERAL and pair[1] not in pair[0].split()]
    words = Counter(word for _, word in found)
    return [
        (sender, word)
        for sender, word in often
        if words[word] == 1
        and any(len(part) >= SHORTEST and part in fold(word) and part != fold(word) for part in fold(sender).split())
    ]


def _unvaried(chats: Sequence[list[Record]], step: int) -> set[str]:
    """Texts that are sent often and always to the letter, in no other case and never as a part of a message."""
    sample = Counter(record.text for messages in chats for record in messages[::step] if len(record.text) <= LONGEST)
    least = max(UNVARIED, UNVARIED_SHARE * sample.total())
    often = {text for text, number in sample.items() if number >= least and _is_sentence(text)}
    exact: Counter[str] = Counter()
    anywhere: Counter[str] = Counter()
    for messages in chats if often else ():
        exact.update(record.text for record in messages if record.text in often)
        written = "\n".join(record.text for record in messages).casefold()
        for text in often:
            anywhere[text] += written.count(text.strip().casefold())
    return {text for text in often if exact[text] == anywhere[text]}


def _is_sentence(text: str) -> bool:
    """Whether it has three words, and more letters than "oh la la"; or six letters of a script without blanks."""
    words = [word for word in text.split() if any(map(str.isalpha, word))]
    is_long = len(words) >= FEWEST and sum(map(len, words)) >= 3 * FEWEST
    return "\n" not in text.strip() and (is_long or (text > UNSPACED and len(text) >= 2 * FEWEST))
