"""What stands between the exports and what is written: one decision for messages, names, files and reports."""

from collections.abc import Iterable, Sequence

from training.extraction.languages import UNDETERMINED, languages
from training.extraction.merging import Conversation
from training.extraction.platform import Record
from training.extraction.privacy.mask import Masker
from training.extraction.privacy.people import Contacts, People, Pseudonyms, identity
from training.extraction.privacy.phone import DEFAULT_REGIONS, regions_of

OWNER = "Me"  # what exports call their owner that do not know the name: SMS, iMessage, Google Voice, Signal
TWO = 2  # people, or one of them alone: the chat's title is then the other one's name
TEXTS = 20_000  # messages from which the sample that tells the languages of a run is drawn


class Shield:
    """Renames people and masks bodies, as far as the person asked for it.

    pii         mask what is personal in bodies, and call people Contact N who are a mere phone number or e-mail address
    pseudonyms  give everyone but `me` an invented name
    """

    def __init__(self, found: Sequence[Conversation], me: Iterable[str], pii: bool, pseudonyms: bool) -> None:
        regions: tuple[str, ...] = DEFAULT_REGIONS
        self._people: People | None = None
        if pii or pseudonyms:
            senders = [{record.sender for record in conversation.messages} for conversation in found]
            names = set().union(*senders)
            titles = {each.chat.title for each, here in zip(found, senders, strict=True) if len(here) <= TWO}
            spoken = [each for each in languages(_texts(found)) if each != UNDETERMINED]
            regions = regions_of(names | {each.chat.title for each in found}, spoken)
            listed = {part for each in found for part in each.chat.title.split(", ") if identity(part, regions)}
            self._people = (Pseudonyms if pseudonyms else Contacts)(names | titles | listed, {*me, OWNER}, regions)
        self._masker = Masker(regions) if pii else None

    @property
    def counts(self) -> dict[str, int]:
        """Replacements in bodies by kind, the most frequent first."""
        return dict(self._masker.counts.most_common()) if self._masker else {}

    def records(self, records: list[Record]) -> list[Record]:
        """The messages as they may be written; those that nothing changes are the same objects."""
        if self._people is None:
            return records
        senders = {name: self._people.sender(name) for name in {record.sender for record in records}}
        rename = self._people.body
        texts = [rename(record.text) for record in records]
        if self._masker:
            texts = list(map(self._masker.mask, texts))
        return [
            record
            if text is record.text and senders[record.sender] is record.sender
            else record._replace(sender=senders[record.sender], text=text)
            for record, text in zip(records, texts, strict=True)
        ]

    def title(self, text: str) -> str:
        """A chat's title, a file's name or a line that holds one."""
        return self._people.title(text) if self._people else text


def _texts(found: Sequence[Conversation]) -> list[str]:
    """Messages of every conversation, of long ones no more than of others of their size."""
    total = sum(len(conversation.messages) for conversation in found)
    step = 1 + total // TEXTS
    return [record.text for conversation in found for record in conversation.messages[::step]]
