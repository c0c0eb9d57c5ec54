"""Facebook Messenger's JSON: the threads of "Download your information", and the download of encrypted chats."""

from training.errors import ExportError
from training.extraction import meta
from training.extraction.platform import Evidence, Reading
from training.extraction.source import Source

NAME = "messenger"
UNIT = "entry"
NEWEST_FIRST = True  # message_1.json is the newest file
BROAD = False
COMPANIONS: frozenset[str] = frozenset(
    ("autofill_information.json", "secret_conversations.json", "your_chat_settings_on_web.json", "secret_groups.json")
)


def recognise(source: Source, evidence: Evidence) -> str | None:
    """Instagram's threads have the same shape: where nothing tells, they are Messenger's."""
    if meta.is_instagram(source, evidence):
        return None
    if meta.is_page(source, evidence):
        raise ExportError(
            f"{source}: Messenger's HTML export; on Facebook choose Download your information, Format: JSON, and pass"
            " that download"
        )
    return meta.is_thread(evidence)


def read(source: Source, date_order: str | None) -> Reading:
    return meta.read(source)
