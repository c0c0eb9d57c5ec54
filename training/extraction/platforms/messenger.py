"""Facebook Messenger's JSON: the threads of "Download your information", and the download of encrypted chats.

Instagram's threads have the same shape, so that instagram.py reads them from here. Both are read whole: whether a
file's text is damaged shows in all of its strings together, and the newest row is first.
"""

import json
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from io import BytesIO
from typing import Any, NamedTuple

from ghost.errors import ExportError
from training.extraction.json_stream import Broken, Cursor
from training.extraction.platform import Chat, Evidence, Kind, Reading, Record
from training.extraction.source import Source, line_breaks, well_formed

NAME = "messenger"
UNIT = "entry"
NEWEST_FIRST = True  # message_1.json is the newest file
BROAD = False
COMPANIONS: frozenset[str] = frozenset(
    ("autofill_information.json", "secret_conversations.json", "your_chat_settings_on_web.json", "secret_groups.json")
)

PAGE = re.compile(r'class="[^"]*(_3-95|_a6-g)\b')
NUMBERED = re.compile(r"message_\d+\.(json|html)")
MEDIA = frozenset(("photos", "videos", "audio_files", "files", "gifs", "sticker", "share", "media"))
UNSENT = frozenset(("is_unsent", "is_taken_down", "isUnsent"))
EVENTS = ("Subscribe", "Unsubscribe", "placeholder")
NOBODY = re.compile("facebook|messenger|instagram")  # what a deleted account is called, in every language
FOLDERS = re.compile(r"(?:your_)?(instagram|facebook)(?:_activity|-.*)?|your_activity_across_(facebook)|(messenger)")
# Facebook has none of these: its media lie under your_…facebook…, and its groups are joined through m.me.
INSTAGRAM_ONLY = re.compile(
    r'"uri": *"your_(instagram)_activity/|"joinable_mode":[^}]*"https://(ig\.me)/|"(original_content_owner)":'
    r'|"content": *"(Liked a message)\s*"'
)


class Keys(NamedTuple):
    sender: str
    instant: str
    text: str


CLASSIC = Keys("sender_name", "timestamp_ms", "content")
ENCRYPTED = Keys("senderName", "timestamp", "text")


def recognise(source: Source, evidence: Evidence) -> str | None:
    """Instagram's threads have the same shape: where nothing tells, they are Messenger's."""
    if is_instagram(source, evidence):
        return None
    if is_page(source, evidence):
        raise ExportError(
            f"{source}: Messenger's HTML export; on Facebook choose Download your information, Format: JSON, and pass"
            " that download"
        )
    return is_thread(evidence)


def is_page(source: Source, evidence: Evidence) -> bool:
    """Whether this is the HTML form of a thread."""
    is_html = re.match(r"\s*<(!doctype html|html)", evidence.head, re.IGNORECASE) is not None
    return is_html and (PAGE.search(evidence.head) or NUMBERED.fullmatch(source.name)) is not None


def is_thread(evidence: Evidence) -> str | None:
    """The reason why this is a thread, of whichever of the two apps."""
    paths = evidence.paths
    if "messages" not in paths:
        return None
    if "messages.item.senderName" in paths or "threadName" in paths or "participants.item=" in paths:
        return "a JSON object with participants and senderName, as in Messenger's end-to-end-encrypted download"
    if "participants.item.name" in paths or {"participants", "thread_path"} <= paths:
        return "a JSON object with participants and messages"
    if {"messages.item.sender_name", "messages.item.timestamp_ms"} <= paths:
        return "a JSON object whose messages have sender_name and timestamp_ms"
    return None


def is_instagram(source: Source, evidence: Evidence) -> str | None:
    """How the folders of the download, or else what only Instagram writes, show that a thread is from Instagram."""
    for part in reversed(source.parts):
        if match := FOLDERS.fullmatch(part.casefold()):
            return f"in {part}" if match[1] == "instagram" else None
    sign = INSTAGRAM_ONLY.search(evidence.head)
    if sign is None or _has_more_files(source):
        return None
    return f"with {sign[sign.lastindex or 0]}, which only Instagram writes"


def _has_more_files(source: Source) -> bool:
    """Whether the thread goes on in files that may lack the sign: the files of a thread must not part."""
    if not NUMBERED.fullmatch(source.name):
        return False
    return source.name != "message_1.json" or source.sibling("message_2.json") is not None


def read(source: Source, date_order: str | None) -> Reading:
    thread, defect = _load(source)
    keys = ENCRYPTED if _is_encrypted(thread) else CLASSIC
    broken = _is_mojibake(thread, keys)
    fact = "UTF-8 written byte by byte: repaired" if broken else "as written"
    return Reading(_records(source, thread, keys, broken, defect), {"text": fact})


def _load(source: Source) -> tuple[dict[str, Any], ExportError | None]:
    """The thread, and what is wrong with its file, to be said after what precedes it."""
    with source.open() as stream:
        content = stream.read()
    defect = None
    try:
        thread = json.loads(content)
    except (ValueError, RecursionError) as error:
        thread, broken = _whole_part(content)
        rows = thread.get("messages")
        entries = len(rows) if isinstance(rows, list) else 0
        if broken or not entries:
            reason = " ".join(str(broken or error).split())[:80]
            defect = ExportError(f"{source}: not valid JSON after entry {entries:,} ({reason}); download it again")
        if defect and not entries:
            raise defect from None
    if not isinstance(thread, dict) or not isinstance(thread.get("messages"), list):
        raise ExportError(f"{source}: no list of messages in it; is this a thread's message_N.json? Download it again")
    return thread, defect


def _whole_part(content: bytes) -> tuple[dict[str, Any], Broken | None]:
    """What a damaged file holds until it breaks off, None for a row that is damaged by itself."""
    thread: dict[str, Any] = {}
    cursor = Cursor(BytesIO(content))
    try:
        for key in cursor.names():
            if key == "messages" and cursor.peek() == "[":
                rows = thread["messages"] = []
                rows.extend(cursor.values())  # keeps what came before an error
            else:
                thread[key] = cursor.value()
    except Broken as error:
        return thread, error
    return thread, None


def _is_encrypted(thread: Mapping[str, Any]) -> bool:
    rows = (row for row in thread["messages"] if isinstance(row, dict))
    return "threadName" in thread or any("senderName" in row for row in rows)


def _records(
    source: Source, thread: Mapping[str, Any], keys: Keys, broken: bool, defect: ExportError | None
) -> Iterator[Record]:
    def text_of(value: Any) -> str:
        if not isinstance(value, str) or value.isascii():
            return line_breaks(value) if isinstance(value, str) else ""
        return line_breaks(well_formed(_repair(value) if broken else value))

    people = [text_of(name) for name in _people(thread)]
    chat = _chat(source, thread, people, text_of)
    entries = [
        (position, row, text_of(row.get(keys.sender)), text_of(row.get(keys.text)))
        if isinstance(row, dict)
        else (position, {}, "", "")
        for position, row in enumerate(thread["messages"], start=1)
    ]
    app = AppRows(people, ((sender, text) for _, _, sender, text in entries), chat.title)
    if keys is CLASSIC or _runs_backwards(thread["messages"]):
        entries.reverse()
    for position, row, sender, text in entries:
        timestamp = _timestamp(row.get(keys.instant))
        if timestamp is None or not isinstance(row.get(keys.text), str | None):
            yield Record(chat, "", "", "", Kind.UNREADABLE, position)
        else:
            yield Record(chat, timestamp, sender, text, _kind(row, sender, text, app), position)
    if defect is not None:
        raise defect


def _kind(row: Mapping[str, Any], sender: str, text: str, app: "AppRows") -> Kind:
    has_media = any(row[key] for key in MEDIA & row.keys())
    if any(row[key] for key in UNSENT & row.keys()):
        return Kind.DELETED
    if "call_duration" in row or row.get("type") == "Call":
        return Kind.CALL
    if row.get("users") or (row.get("type") in EVENTS and not has_media):
        return Kind.SYSTEM
    if not text.strip():
        return Kind.MEDIA if has_media else Kind.EMPTY
    return app.kind(sender, text, has_media) or Kind.MESSAGE  # a caption is what the person wrote


def _chat(source: Source, thread: Mapping[str, Any], people: list[str], text_of: Any) -> Chat:
    """Classic threads have an id, their folder's name; encrypted ones have a name that a counter was added to."""
    if _is_encrypted(thread):
        name = text_of(thread.get("threadName")) or source.name.removesuffix(".json")
        title = re.sub(r"_\d+$", "", name)
        alias = _alias(people, title)
        return Chat(alias or name, title, is_id=False, alias=alias)
    # The box (inbox, archived_threads, e2ee_cutover) changes between downloads; the thread's folder does not.
    path = text_of(thread.get("thread_path"))
    is_id = bool(path) or NUMBERED.fullmatch(source.name) is not None
    key = (path or "/".join(source.parts[:-1])).rsplit("/", 1)[-1] if is_id else source.name.removesuffix(".json")
    title = text_of(thread.get("title")) or key
    return Chat(key, title, is_id, _alias(people, title))


def _alias(people: list[str], title: str) -> str:
    """Two people have one conversation; more of them may have many, and the title tells which."""
    names = sorted({unicodedata.normalize("NFC", name).casefold() for name in people if name})
    if len(names) < 2 or any(map(NOBODY.search, names)):
        return ""
    return "\n".join(names if len(names) == 2 else [title.casefold(), *names])


def _people(thread: Mapping[str, Any]) -> list[Any]:
    people = thread.get("participants")
    return [each.get("name") if isinstance(each, dict) else each for each in people] if isinstance(people, list) else []


def _runs_backwards(messages: list[Any]) -> bool:
    instants = [row["timestamp"] for row in messages if isinstance(row, dict) and isinstance(row.get("timestamp"), int)]
    return len(instants) > 1 and instants[0] > instants[-1]


def _timestamp(milliseconds: Any) -> str | None:
    """None for what is no instant; 0 stands for an unknown one."""
    try:
        instant = datetime.fromtimestamp(int(milliseconds) / 1000, UTC) if int(milliseconds) > 0 else None
    except (ValueError, TypeError, OverflowError, OSError):
        return None
    return instant.isoformat(timespec="milliseconds") if instant else None


def _is_mojibake(thread: Mapping[str, Any], keys: Keys) -> bool:
    """Facebook writes each UTF-8 byte as its own character, in every name and text of a file or in none.

    A character above U+00FF proves a clean file. Otherwise the strings vote: damaged ones decode as UTF-8, while a
    clean "café" does not.
    """
    votes = 0
    rows = (row for row in thread["messages"] if isinstance(row, dict))
    strings = [thread.get("title"), thread.get("threadName"), *_people(thread)]
    for text in (*strings, *(row.get(key) for row in rows for key in (keys.sender, keys.text))):
        if not isinstance(text, str) or text.isascii():
            continue
        try:
            text.encode("latin-1").decode("utf-8")
            votes += 1
        except UnicodeEncodeError:
            return False
        except UnicodeDecodeError:
            votes -= 1
    return votes > 0


def _repair(text: str) -> str:
    try:
        return text.encode("latin-1").decode("utf-8")
    except UnicodeError:
        return text


# The rows that the two apps write into a chat by themselves, in the account's language. Recent exports mark them by
# nothing but their words, and words may be anybody's. So a row counts as the app's only when it is, from its first
# character to its last, one of the app's sentences, and when that sentence is about the one who "sent" the row: his own
# name in the third person, or "You" where the row is the account owner's. What cannot be told apart stays a message.
LONGEST = 300  # characters: a poll's question is the longest thing that these sentences quote
YOU = ("You ", "Vous ")
EMOJI = r"[^\x00-\x7f]\S*"


def _one_of(sentences: Mapping[Kind, tuple[str, ...]]) -> re.Pattern[str]:
    """A pattern whose `lastgroup` names the kind."""
    return re.compile("|".join(f"(?P<{kind}>{'|'.join(shapes)})" for kind, shapes in sentences.items()))


HAS = "(?:a|avez)"
WHICH = "(?: video| audio| voice)?"
# What follows the name (or "You"): English and French, then what is certain of German, Spanish, Italian, Portuguese.
DEEDS = _one_of({
    Kind.SYSTEM: (
        r"(?:re)?named the group .+", r"created the group", r"changed the group name.*",
        r"(?:changed|removed) the group photo", r"removed the group name", r"(?:left|joined) the group",
        r"joined the group (?:using|via|with|through) .+", r"added .+ to the group", r"removed .+ from the group",
        r"(?:added|removed|made) .+ (?:as )?an? (?:group )?admin",
        r"set (?:the nickname for .+|(?:your|his|her|their)(?: own)? nickname) to .+",
        r"cleared (?:the nickname for .+|(?:your|his|her|their)(?: own)? nickname)",
        r"set the (?:emoji|quick reaction) to .+", r"(?:changed|set) the (?:chat )?(?:theme|colou?rs?)(?: to .+)?",
        r"(?:un)?pinned a message", r"waved at .+", r"joined Messenger", r"started sharing video",
        r"turned (?:on|off) (?:disappearing messages|vanish mode|member approval|auto-translation).*",
        r"(?:started|created|updated|deleted) (?:a|the) (?:plan|reminder).*",
        r"responded (?:Going|Not Going|Can't Go|Maybe|Interested)\b.*",
        rf"{HAS} nommé le groupe .+", rf"{HAS} créé le groupe",
        rf"{HAS} (?:changé|modifié|retiré|supprimé) (?:la photo|le nom) (?:du|de) groupe.*",
        rf"{HAS} (?:quitté|rejoint) le groupe.*",
        rf"(?:vous )?{HAS} ajouté(?:\(e\)|e)?(?: .+)? au groupe",
        rf"(?:vous )?{HAS} (?:retiré|supprimé|exclu)(?:\(e\)|e)?(?: .+)? du groupe", rf"{HAS} surnommé .+",
        rf"{HAS} (?:défini|choisi|changé|modifié|effacé|supprimé) (?:le|son(?: propre)?|votre(?: propre)?) pseudo\b.*",
        rf"{HAS} défini l[’']emoji sur .+",
        rf"{HAS} (?:changé|modifié|défini|choisi) (?:le thème|les couleurs|la couleur)\b.*",
        rf"{HAS} (?:dés)?épinglé un message", rf"{HAS} commencé à partager une vidéo",
        rf"{HAS} (?:activé|désactivé) (?:les messages éphémères|l[’']approbation des membres|la traduction).*",
        rf"{HAS} (?:commencé|créé|mis à jour|supprimé) (?:un|le) plan.*",
        rf"{HAS} remplacé le (?:nom|lieu) du plan .+", rf"{HAS} répondu (?:Ne participe pas|Participe|Peut-être).*",
        r"hat die Gruppe (?:verlassen|.+ genannt)", r"hat .+ zur Gruppe hinzugefügt", r"hat das Gruppenfoto geändert",
        r"(?:salió del|abandonó el) grupo", r"(?:agregó|añadió) a .+ al grupo", r"cambió la foto del grupo",
        r"ha (?:abbandonato|lasciato) il gruppo", r"ha aggiunto .+ al gruppo", r"ha cambiato la foto del gruppo",
        r"saiu do grupo", r"adicionou .+ ao grupo", r"mudou a foto do grupo",
    ),
    Kind.CALL: (
        r"called .+", rf"missed your{WHICH} (?:call|chat).*", rf"started an?{WHICH} (?:call|chat)",
        rf"(?:joined|left|ended) the{WHICH} (?:call|chat)",
        r"vous a appelé(?:\(e\)|e)?", r"avez appelé .+", r"a manqué votre appel.*",
        rf"{HAS} (?:démarré|commencé|lancé) (?:un appel|une discussion (?:vidéo|audio))\b.*",
        rf"{HAS} rejoint (?:l[’']appel|la discussion (?:vidéo|audio))\b.*",
        r"hat dich angerufen", r"te llamó", r"ti ha chiamato", r"ligou para você",
    ),
    Kind.POLL: (
        r"created a poll\b.*", r"voted for .+ in the poll\b.*", r"['’]s poll has (?:multiple )?updates",
        r"(?:changed|removed) (?:his|her|their|your) vote\b.* in the poll\b.*",
        rf"{HAS} créé un sondage.*", rf"{HAS} voté pour «.+» dans le sondage.*",
        rf"{HAS} (?:modifié|changé|retiré) (?:son|votre) vote .*«.+",
    ),
    Kind.LOCATION: (
        r"(?:sent|shared) (?:a|their|his|her|your)(?: live| pinned)? location",
        r"(?:started|stopped) sharing .*location",
        rf"{HAS} (?:envoyé|partagé) (?:une|sa|votre) position",
    ),
    Kind.DELETED: (r"unsent a message", rf"{HAS} (?:annulé l[’']envoi d[’']un|retiré un|supprimé un) message"),
    Kind.MEDIA: (
        r"sent (?:an attachment|a (?:photo|video|GIF|sticker|voice message|link|file|contact)|\d+ (?:photos|videos))",
        r"shared a (?:story|post|reel|photo|video|profile)",
        rf"{HAS} envoyé (?:une (?:pièce jointe|photo|vidéo)|un (?:GIF|sticker|lien|fichier|message vocal)|\d+ photos)",
        rf"{HAS} partagé (?:une (?:story|publication|photo|vidéo)|un reel)",
        r"hat einen Anhang gesendet", r"envió un archivo adjunto", r"ha inviato un allegato", r"enviou um anexo",
    ),
})  # fmt: skip

# Sentences that name nobody, to the letter: "call ended" may be anybody's.
NAMELESS = _one_of({
    Kind.SYSTEM: (
        rf"Reacted {EMOJI} to your message", r"Liked a message", rf"A réagi {EMOJI} à votre message",
        r"A aimé un message", rf"Hat mit {EMOJI} auf deine Nachricht reagiert",
        rf"Reaccionó con {EMOJI} a tu mensaje", rf"Ha reagito con {EMOJI} al tuo messaggio",
        rf"Reagiu com {EMOJI} à sua mensagem",
        r"You(?: are|['’]re) now connected on Messenger\.?",
        r"You can now (?:message and )?call each other and see info.* when you['’]ve read messages\.?",
        r"Say hi to your new Facebook friend, .+",
        r"Messages and calls are (?:secured|protected) with end-to-end encryption\..*",
        r"Vous êtes (?:maintenant|désormais) (?:connectés|en contact) sur Messenger\.?",
        r"Vous pouvez (?:maintenant|désormais) .*vous appeler et voir des informations.*",
        r"Les messages et les appels sont (?:sécurisés|protégés) (?:avec|par) le chiffrement de bout en bout\..*",
    ),
    Kind.CALL: (
        r"The (?:video |audio )?call ended\.", r"The (?:video|audio) chat ended\.",
        r"(?:Video|Audio) (?:call|chat) ended\.?", r"Missed an? (?:video|audio|voice) (?:call|chat)\.?",
        r"L[’']appel(?: vidéo| audio)? est terminé\.", r"La discussion vidéo est terminée\.",
        r"Discussion vidéo terminée\.", r"Der (?:Anruf|Videochat) wurde beendet\.",
    ),
    Kind.POLL: (r"This poll is no longer available\.", r"Ce sondage n[’']est plus disponible\."),
})  # fmt: skip

# The other one's missed call: the row is the caller's, the sentence is about the one who was called, or the reverse.
MISSED = re.compile(
    rf"(?:You missed an?{WHICH} (?:call|chat) (?:from|with) (.+?)|(.+?) missed your{WHICH} (?:call|chat).*"
    r"|Vous avez manqué un appel(?: vidéo| audio)? (?:de |d[’'])(.+?)|(.+?) a manqué votre appel.*?)\.?"
)
# "You called it." is what a person says; the app says whom.
TO_SOMEBODY = re.compile(
    r"(?:called|waved|added|removed .+ from|made|set the nickname|cleared the nickname"
    r"|avez (?:appelé|ajouté|retiré .+ du groupe|supprimé .+ du groupe|exclu|surnommé|défini le pseudo))\b"
)


class AppRows:
    """Tells the app's rows of one thread.

    people  names of the participants
    rows    sender and text of every row of the file
    title   in a thread of two it is the other's name, which shows who the owner is
    """

    def __init__(self, people: Iterable[str], rows: Iterable[tuple[str, str]], title: str) -> None:
        rows = list(rows)
        everybody = {*people, *(sender for sender, _ in rows)} - {""}
        first_names = Counter(name.split()[0] for name in everybody if name.split())
        # "Robert left." by one of two Roberts may be about the other.
        self._names = {
            name: {name, *(first for first in name.split()[:1] if first_names[first] == 1 and len(first) > 1)}
            for name in everybody
        }
        self._known = set().union(*self._names.values())
        self._is_pair = len(everybody) == 2
        others = everybody - {title}
        if self._is_pair and len(others) == 1:
            self._owner = others.pop()
        else:
            you = Counter(sender for sender, text in rows if self._yours(text) is not None)
            (self._owner, most), (_, second) = (*you.most_common(2), ("", 0), ("", 0))[:2]
            self._owner = self._owner if most > second else ""

    def kind(self, sender: str, text: str, has_media: bool) -> Kind | None:
        """What the app says happened, or None for a person's own words."""
        text = text.strip()
        if len(text) > LONGEST or "\n" in text:
            return None
        if match := NAMELESS.fullmatch(text):
            return Kind(str(match.lastgroup))
        for name in self._names.get(sender, ()):
            if text.startswith(name) and (kind := _deed(text[len(name) :])):
                return kind
        if sender == self._owner and (kind := self._yours(text)):
            return kind
        if (match := MISSED.fullmatch(text)) and self._is_pair and next(filter(None, match.groups())) in self._known:
            return Kind.CALL
        # What somebody forwards arrives as its first sender's attachment.
        if has_media and any(text.startswith(name) and _deed(text[len(name) :]) is Kind.MEDIA for name in self._known):
            return Kind.MEDIA
        return None

    def _yours(self, text: str) -> Kind | None:
        if not text.startswith(YOU) or not text.endswith(".") or len(text) > LONGEST:
            return None
        rest = text.partition(" ")[2]
        if TO_SOMEBODY.match(rest) and not any(name in rest for name in self._known):
            return None
        return _deed(rest)


def _deed(rest: str) -> Kind | None:
    match = DEEDS.fullmatch(rest.removeprefix(" ").removesuffix("."))
    return Kind(str(match.lastgroup)) if match else None
