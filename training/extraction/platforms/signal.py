"""Signal: its own plaintext export, the rows that sigtop takes from its desktop database, and signal-export's files."""

import re
from collections.abc import Iterator

from training.errors import ExportError
from training.extraction.platform import Evidence, Reading, Record
from training.extraction.signal import export, markdown, rows
from training.extraction.source import Source

NAME = "signal"
UNIT = "line or entry"  # a line of JSON lines and of text, an entry of sigtop's array
NEWEST_FIRST = False
BROAD = False
COMPANIONS = frozenset(("metadata.json",))

RECIPIENTS = {"recipient.self", "recipient.contact", "recipient.group", "recipient.distributionList"}
ROW = {"date", "sender", "body", "quote", "reactions"}
# A date, no seconds, and none of the marks that WhatsApp for iOS puts around names and notices.
OLD_HEADER = re.compile(r"\[\d{4}-\d\d-\d\d, \d\d:\d\d\] [^\n]*?: ", re.ASCII)
MARKS = re.compile("[\u200e\u200f\u202a-\u202e]")
# The first frame of an Android backup in the clear: its length, then an initialisation vector and a salt.
BACKUP = re.compile(rb"\0\0\0.\x0a.\x0a\x10.{16}\x12\x20", re.DOTALL)


def recognise(source: Source, evidence: Evidence) -> str | None:
    _refuse_backup(source, evidence)
    paths = evidence.paths
    if "chatItem.chatId" in paths or ("recipient.id" in paths and RECIPIENTS & paths):
        return "JSON lines with the frames of Signal's own export"
    if {"item.sent_at", "item.conversationId"} <= paths:
        return "a JSON array of Signal Desktop's rows, as sigtop writes it"
    if paths >= ROW:
        return "JSON lines with signal-export's fields"
    head = evidence.head.lstrip("\ufeff \t\r\n")
    if source.name in ("chat.md", "index.md") and markdown.HEADER.match(head):
        return "signal-export's Markdown"
    if source.name == "index.html" and "style.css" in head and _twin(source):
        return "signal-export's page"
    if OLD_HEADER.match(head) and not MARKS.search(head):
        return "lines that start with signal-export's [2019-12-24, 12:23]"
    return None


def read(source: Source, date_order: str | None) -> Reading:
    if source.name.endswith((".md", ".html")) and (twin := _twin(source)):
        nothing: Iterator[Record] = iter(())
        return Reading(nothing, {"form": "signal-export", "passed_over": f"{twin.name} beside it is the same chat"})
    head = source.head().decode("utf-8-sig", "replace").lstrip()
    if head.startswith("[") and not markdown.HEADER.match(head):
        return Reading(rows.records(source), {"form": "rows of Signal Desktop"})
    if not head.startswith("{"):
        return Reading(markdown.text_records(source), {"form": "signal-export's text"})
    if source.name == "data.json":
        return Reading(markdown.json_records(source), {"form": "signal-export's JSON lines"})
    return Reading(export.records(source, export.directory(source)), {"form": "Signal's own export"})


def _twin(source: Source) -> Source | None:
    """The fullest of the files that signal-export writes for one chat, if this is not it."""
    for name in ("data.json", "chat.md"):
        if name == source.name:
            return None
        if twin := source.sibling(name):
            return twin
    return None


def _refuse_backup(source: Source, evidence: Evidence) -> None:
    is_named = source.name.startswith("signal-") and source.name.endswith(".backup")
    if is_named or (evidence.head.startswith("\0\0\0") and BACKUP.match(source.head())):
        raise ExportError(
            f"{source}: Signal's encrypted backup; export the chats as plain text from Signal on Android or Desktop and"
            " pass that folder with its main.jsonl"
        )
