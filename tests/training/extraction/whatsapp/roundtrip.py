"""One generated export through the reader's public path: file, recognition, records."""

from pathlib import Path
from typing import NamedTuple

from ghost.errors import ExportError
from tests.training.extraction.whatsapp.generator import Export, Message
from training.extraction.platform import Kind
from training.extraction.platforms import recognise
from training.extraction.source import Source

ASKS = "--date-order"


class Outcome(NamedTuple):
    """asked      the reader could not tell day from month, and was told
    complaint  what differs from the export; empty when nothing does
    """

    asked: bool
    complaint: str


def round_trip(export: Export, path: Path) -> Outcome:
    """Write the export to `path` and read it back."""
    path.write_bytes(export.content)
    source = Source(path)
    asked = False
    try:
        recognised = recognise(source)
        if recognised is None or recognised.platform.NAME != "whatsapp":
            return Outcome(asked, f"taken for {recognised.platform.NAME if recognised else 'no chat'}")
        try:
            records = list(recognised.platform.read(source, None).records)
        except ExportError as error:
            if ASKS not in str(error):
                raise
            asked = True
            records = list(recognised.platform.read(source, export.order).records)
    except ExportError as error:
        return Outcome(asked, str(error))
    messages = [Message(each.timestamp, each.sender, each.text) for each in records if each.kind is Kind.MESSAGE]
    for number, (want, got) in enumerate(zip(export.messages, messages, strict=False), start=1):
        if want != got:
            return Outcome(asked, f"message {number}: {want} came back as {got}")
    if len(messages) != len(export.messages):
        return Outcome(asked, f"{len(messages)} messages of {len(export.messages)}")
    if len(records) != export.records:
        return Outcome(asked, f"{len(records)} records of {export.records}")
    return Outcome(asked, "")
