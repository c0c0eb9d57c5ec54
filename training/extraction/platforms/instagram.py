"""Instagram's JSON ("Download your information"): Messenger's threads in another folder."""

from ghost.errors import ExportError
from training.extraction.platform import Evidence, Reading
from training.extraction.platforms import messenger
from training.extraction.source import Source

NAME = "instagram"
UNIT = "entry"
NEWEST_FIRST = True  # message_1.json is the newest file
BROAD = False
COMPANIONS: frozenset[str] = frozenset(("secret_conversations.json", "reported_conversations.json"))


def recognise(source: Source, evidence: Evidence) -> str | None:
    sign = messenger.is_instagram(source, evidence)
    if sign is None:
        return None
    if messenger.is_page(source, evidence):
        raise ExportError(
            f"{source}: Instagram's HTML export; in Instagram choose Download your information, Format: JSON, and pass"
            " that download"
        )
    reason = messenger.is_thread(evidence)
    return f"{reason}, {sign}" if reason else None


def read(source: Source, date_order: str | None) -> Reading:
    return messenger.read(source, date_order)
