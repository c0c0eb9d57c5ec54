"""Tell the rows that Messenger and Instagram write themselves from people's messages.

Recent exports mark such rows by nothing but their wording, in the account's language, and a person could write the
same. So a row is the app's only if it is, from its first character to its last, one of the app's sentences, and if that
sentence is about the one who "sent" the row: a name of theirs in the third person, or "You" where the row is the
account owner's. In doubt, a row stays a message. The sentences are in meta_rows.txt.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator
from functools import cache
from importlib.resources import files

from training.extraction.platform import Kind
from training.extraction.speakers import without_accents

LONGEST = 300  # characters: a poll's question is the longest thing that these sentences quote
NAME_WORDS = 6  # of a nickname or user name that the file's fields do not have
SHORTEST = 3  # letters of a name by which a user name is recognised
YOU = (
    *("You ", "Vous ", "Du ", "Tú ", "Você ", "Je ", "Jij ", "U ", "Ty ", "Sinä ", "Вы ", "Ви ", "Bạn ", "Anda ", "คุณ"),
    *("あなた", "你", "您", "회원님이 ", "आप", "तुम्ही ", "আপনি ", "நீங்கள் ", "మీరు ", "Εσείς ", "אתה ", "את "),
)
# In languages that drop the pronoun, the verb says "you".
YOU_BY_VERB = (
    *("Has ", "Hai ", "Ai ", "Enviaste ", "Iniciaste ", "Cambiaste ", "Compartiste ", "Creaste ", "Saliste "),
    *("Alteraste ", "أرسلت ", "بدأت "),
)
STOPS = ".。।"
SURE = "_sure"
ATTACHMENT = "attachment"  # a section of its own: no person writes such a sentence beside an attachment
OFTEN = 3  # rows of the app that an unknown name must begin
LOOK_ALIKE = str.maketrans("“”„«»‘’\u00a0\u202f", '"""""\'\'  ')
SLOTS = {"{}": r"[^\x00-\x7f]\S*", "…": ".+", "#": r"\d[\d.,:]*", "{name}": "(?P<name>.+)"}
SYNTAX = re.compile(r"\{name\}|\{\}|…|#|[^{…#]+")
SLOT = re.compile(r"\{\}|…|#")
INNERMOST = re.compile(r"\[([^\[\]]*)\]")
# A missed call: the row is the caller's and the sentence is about the one who was called, or the reverse.
WHICH = "(?: video| audio| voice)?"
MISSED = re.compile(
    rf"(?:You missed an?{WHICH} (?:call|chat) (?:from|with) (.+?)|(.+?) missed your{WHICH} (?:call|chat).*"
    r"|Vous avez manqué un appel(?: vidéo| audio)? (?:de |d')(.+?)|(.+?) a manqué votre appel.*?)\.?"
)
# "You called it." is what a person says; the app says whom.
TO_SOMEBODY = re.compile(
    r"(?:called|waved|added|removed .+ from|made|set the nickname|cleared the nickname"
    r"|avez (?:appelé|ajouté|retiré .+ du groupe|supprimé .+ du groupe|exclu|surnommé|défini le pseudo))\b"
)
PRONOUNS = frozenset(("i", "he", "she", "it", "we", "they", "you", "who"))
LETTERS = re.compile(r"[^\W\d_]+")


class Shapes:
    """Sentences with slots, filed by their first word, so that a text is held against few of them."""

    def __init__(self, shapes: Iterable[tuple[str, str]]) -> None:
        self._filed: defaultdict[str, defaultdict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
        for kind, shape in shapes:
            for one in _spelt_out(shape.translate(LOOK_ALIKE)):
                word = one.split(" ", 1)[0]
                self._filed["" if SLOT.search(word) else word][kind].append(one)
        # What precedes the first slot decides nearly always; compiling all the sentences takes half a second.
        self._beginnings = {
            word: tuple(SLOT.split(one, 1)[0] for each in kinds.values() for one in each)
            for word, kinds in self._filed.items()
        }
        self._compiled: dict[str, re.Pattern[str]] = {}

    @property
    def first_words(self) -> Collection[str]:
        """What the sentences begin with; besides, each may begin with any word that is not plain ASCII."""
        return self._filed.keys()

    def kind(self, text: str) -> str | None:
        """The section whose sentence this is, from its first character to its last."""
        for key in (text.split(" ", 1)[0], ""):
            if not text.startswith(self._beginnings.get(key, ())) or (not key and text.isascii()):
                continue
            if key not in self._compiled:
                kinds = self._filed[key].items()
                self._compiled[key] = re.compile(
                    "|".join(f"(?P<{kind}>{'|'.join(map(_expression, each))})" for kind, each in kinds)
                )
            if match := self._compiled[key].fullmatch(text):
                return match.lastgroup
        return None


def _kind_of(section: str) -> Kind:
    section = section.removesuffix(SURE)
    return Kind.MEDIA if section == ATTACHMENT else Kind(section)


def _spelt_out(shape: str) -> Iterator[str]:
    """One shape for each choice that a shape with [a|b] leaves."""
    choice = INNERMOST.search(shape)
    if choice is None:
        yield shape
        return
    for each in choice[1].split("|"):
        yield from _spelt_out(shape[: choice.start()] + each + shape[choice.end() :])


def _expression(shape: str) -> str:
    return "".join(SLOTS.get(part) or re.escape(part) for part in SYNTAX.findall(shape))


class Sentences:
    """meta_rows.txt.

    after_name  what follows a name; sections that end in SURE also count after "You" without a full stop
    alone       whole rows that name nobody
    whole       whole rows with a name in the middle
    """

    def __init__(self) -> None:
        after_name, alone = list[tuple[str, str]](), list[tuple[str, str]]()
        self.whole: list[tuple[Kind, re.Pattern[str]]] = []
        section = ""
        for line in files(__package__).joinpath("meta_rows.txt").read_text("utf-8").splitlines():
            if line.startswith(":"):
                section = line[1:]
            elif not line or line == "#" or line.startswith("# "):
                continue
            elif section.startswith("alone "):
                kind = section.removeprefix("alone ")
                alone += [(kind, line)] if line.endswith(".") else [(kind, line), (kind, f"{line}.")]
            elif "{name}" in line:
                self.whole += [(_kind_of(section), re.compile(_expression(one))) for one in _spelt_out(line)]
            elif line.endswith("*"):
                after_name.insert(0, (section + SURE, line.removesuffix("*")))
            else:
                after_name.append((section, line))
        self.after_name, self.alone = Shapes(after_name), Shapes(alone)


@cache
def sentences() -> Sentences:
    return Sentences()


class AppRows:
    """Recognises the app's rows in one thread.

    people  names of the participants
    rows    sender and text of every row of the file
    title   in a thread of two it is the other's name, which shows who the owner is
    """

    def __init__(self, people: Iterable[str], rows: Iterable[tuple[str, str]], title: str) -> None:
        rows = [(sender, _folded(text)) for sender, text in rows if len(text) <= LONGEST]
        everybody = {*people, *(sender for sender, _ in rows)} - {""}
        parts = Counter(part for name in everybody for part in {*_parts(name)})
        first_names = Counter(name.split()[0] for name in everybody if name.split())
        # "Robert left." by one of two Roberts may be about the other.
        self._names = {
            name: {name, *(first for first in name.split()[:1] if first_names[first] == 1 and len(first) > 1)}
            for name in everybody
        }
        self._parts = {name: {part for part in _parts(name) if parts[part] == 1} for name in everybody}
        self._known = set().union(*self._names.values())
        self._is_pair = len(everybody) == 2
        others = everybody - {title}
        if self._is_pair and len(others) == 1:
            self._owner = others.pop()
        else:
            you = Counter(sender for sender, text in rows if text.startswith(YOU) and self._yours(text))
            (self._owner, most), (_, second) = (*you.most_common(2), ("", 0), ("", 0))[:2]
            self._owner = self._owner if most > second else ""
        while self._learn(rows):  # under a nickname, one may give the next
            pass

    def kind(self, sender: str, text: str, has_media: bool) -> Kind | None:
        """What the app says happened, or None for a person's own words."""
        if len(text) > LONGEST or "\n" in text.strip():
            return None
        text = _folded(text)
        if alone := sentences().alone.kind(text):
            return Kind(alone)
        bare = text.rstrip(STOPS)
        if _is_reaction(bare):
            return Kind.REACTION
        for name in self._names.get(sender, ()):
            if bare.startswith(name) and (kind := _deed(bare[len(name) :])):
                return kind
            if name in bare:
                for kind, whole in sentences().whole:
                    if (match := whole.fullmatch(bare)) and match["name"] == name:
                        return kind
        if sender == self._owner and (kind := self._yours(text)):
            return kind
        if (match := MISSED.fullmatch(text)) and self._is_pair and next(filter(None, match.groups())) in self._known:
            return Kind.CALL
        # What somebody forwards arrives as its first sender's attachment, and a nickname may be in no other row.
        if has_media and (
            any(bare.startswith(name) and _deed(bare[len(name) :]) is Kind.MEDIA for name in self._known)
            or any(
                _is_like_a_name(name) and (sentences().after_name.kind(rest) or "").startswith(ATTACHMENT)
                for name, rest in _openings(bare)
            )
        ):
            return Kind.MEDIA
        return None

    def _yours(self, text: str) -> Kind | None:
        bare = text.rstrip(STOPS)
        if not bare.startswith(YOU + YOU_BY_VERB):
            return None
        you = next((you for you in YOU if bare.startswith(you)), "")
        rest = bare[len(you) :] if you else _uncapitalised(bare)
        section = sentences().after_name.kind(rest)
        if section is None or section.endswith(SURE):
            return _kind_of(section) if section else None
        if bare == text or (TO_SOMEBODY.match(rest) and not any(name in rest for name in self._known)):
            return None
        return _kind_of(section)

    def _learn(self, rows: list[tuple[str, str]]) -> bool:
        """Add the nicknames and user names that the rows give to people, beside the names in the file's fields.

        Before one of the app's sentences stands the sender's name. An unknown one is theirs if it holds a name of
        theirs (`lea.roy` is Lea Roy, but `lea` may be somebody's typing), if the app reports that it was given as a
        nickname, or if it comes before three such sentences of theirs, two of them different, and before nothing else.

        Returns whether there was one that was not known before.
        """
        found: defaultdict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        for sender, text in rows:
            for name, rest in _openings(text.rstrip(STOPS)):
                if name not in self._known and f"{name} " not in YOU and _deed(rest):
                    found[sender, name][rest] += 1
        bearers = Counter(name for _, name in found)
        fresh = {pair: deeds for pair, deeds in found.items() if pair[1] not in self._names.get(pair[0], {pair[1]})}
        if not fresh:
            return False
        names = {name for _, name in fresh}
        opened = Counter(name for _, text in rows for name, _ in _openings(text, any_word=True) if name in names)
        endings = tuple(name.rpartition(" ")[2] for name in names)
        given = [
            text.rstrip(STOPS)
            for sender, text in rows
            if text.rstrip(STOPS).endswith(endings) and self.kind(sender, text, False) is Kind.SYSTEM
        ]
        learnt = [
            (sender, name)
            for (sender, name), deeds in fresh.items()
            if self._is_user_name(sender, name)
            or any(text.endswith(f" {name}") and self._is_about(sender, text, bearers[name]) for text in given)
            or (len(deeds) > 1 and deeds.total() == opened[name] >= OFTEN)
        ]
        for sender, name in learnt:
            self._names[sender].add(name)
        return bool(learnt)

    def _is_user_name(self, sender: str, name: str) -> bool:
        letters = "".join(_parts(name))
        parts = (part for part in self._parts[sender] if len(part) >= SHORTEST)
        return " " not in name and any(part in letters and part != without_accents(name.casefold()) for part in parts)

    def _is_about(self, sender: str, text: str, bearers: int) -> bool:
        """Whether a row about a nickname is about this person's.

        It names whose it is, unless it is the owner's ("your") or of the one whose row it is ("their own"): which of
        the two is open where both have rows that begin with it.
        """
        if any(text.find(name) > 0 for name in self._names[sender]):
            return True
        is_of_another = any(text.find(name) > 0 for name in self._names.keys() - {sender})
        is_open = sender == self._owner or any(text.startswith(name) for name in self._names[sender])
        return is_open and not is_of_another and bearers == 1


def _openings(text: str, any_word: bool = False) -> Iterator[tuple[str, str]]:
    """The ways to read a row as a name of some words and what the app says of it; with `any_word`, whatever follows."""
    words = text.split(" ", NAME_WORDS + 1)
    first_words = sentences().after_name.first_words
    for count, word in enumerate(words[1 : NAME_WORDS + 1], start=1):
        if any_word or word in first_words or not word.isascii():
            yield " ".join(words[:count]), " ".join(words[count:])


def _parts(name: str) -> list[str]:
    """The words of a name, without accents."""
    return LETTERS.findall(without_accents(name.casefold()))


def _is_like_a_name(name: str) -> bool:
    return name.casefold() not in PRONOUNS and (" " not in name or name.istitle())


def _folded(text: str) -> str:
    """With one form of quotes and blanks."""
    return " ".join((text if text.isascii() else text.translate(LOOK_ALIKE)).split())


def _uncapitalised(text: str) -> str:
    return text[:1].lower() + text[1:]


def _is_reaction(text: str) -> bool:
    """Whether this is a reaction that names nobody; the app writes it with a capital."""
    if text[:1].islower():
        return False
    return sentences().after_name.kind(_uncapitalised(text)) == Kind.REACTION + SURE


def _deed(rest: str) -> Kind | None:
    """What the app says of the one whose name stands before."""
    section = sentences().after_name.kind(rest.removeprefix(" "))
    return _kind_of(section) if section else None
