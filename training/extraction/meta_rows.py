"""The rows that Messenger and Instagram write into a chat by themselves, in the account's language.

Recent exports mark them by nothing but their words, and words may be anybody's. So a row counts as the app's only when
it is, from its first character to its last, one of the app's sentences, and when that sentence is about the one who
"sent" the row: his own name in the third person, or "You" where the row is the account owner's. What cannot be told
apart stays a message.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping

from training.extraction.platform import Kind

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
