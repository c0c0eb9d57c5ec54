"""What signal-export (carderne) writes for each chat: chat.md, in its older versions index.md, and data.json.

Times are local, without an offset. data.json, JSON lines, keeps apart what chat.md runs together: read it where there
are both.
"""

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import PurePath
from typing import Any

from training.extraction.json_stream import lines
from training.extraction.platform import Chat, Kind, Record
from training.extraction.source import Source, decode, line_breaks, well_formed

HEADER = re.compile(r"\[(\d{4}-\d\d-\d\d),? (\d\d:\d\d(?::\d\d)?)\] ([^\n]*?): ?", re.ASCII)
NAMES = ("chat.md", "index.md", "data.json", "index.html")
MARGIN = "  "  # behind each body, so that Markdown breaks the line
DELETED = "(This message was deleted)"
QUOTE = re.compile(r"\n\n(?:>[^\n]*\n)+\n")  # of the message that is answered
# Behind a body: attachments and stickers as links, what was not exported, stickers by name, reactions. A link's target
# has its blanks escaped; it and the label are kept short so that a file of nothing but brackets takes no longer.
TRAILER = re.compile(
    r"!?\[[^\[\]\n]*\]\(\.{1,2}/(?:media|exported_stickers)/\S{0,400}\)  |\((?:media|attachment) not exported\)  "
    r"|\n\(\( [^\n]* \)\)|\n\(- [^\n]* -\)"
)


def chat_of(source: Source) -> Chat:
    """signal-export's folder is the chat's name."""
    title = source.parts[-2] if source.name in NAMES else PurePath(source.name).stem
    return Chat(title.casefold(), title, is_id=False)


def text_records(source: Source) -> Iterator[Record]:
    text = line_breaks(decode(source, "export the chat again", may_hold_nul=True))
    chat, is_markdown = chat_of(source), source.name.endswith(".md")
    header: re.Match[str] | None = None
    start, body = 0, [""]
    for number, line in enumerate(text.split("\n"), start=1):
        if found := HEADER.match(line):
            if header:
                yield _record(chat, header, "\n".join(body), start, is_markdown)
            header, start, body = found, number, [line[found.end() :]]
        elif header:
            body.append(line)
        elif line.strip():
            yield Record(chat, "", "", "", Kind.UNREADABLE, number)
    if header:
        yield _record(chat, header, "\n".join(body), start, is_markdown)


def _record(chat: Chat, header: re.Match[str], body: str, number: int, is_markdown: bool) -> Record:
    try:
        timestamp = datetime.fromisoformat(f"{header[1]}T{header[2]}").isoformat(timespec="seconds")
    except ValueError:
        return Record(chat, "", "", "", Kind.UNREADABLE, number)
    body = body.rstrip("\n")
    kind = Kind.MESSAGE
    if is_markdown:
        if body == DELETED:
            return Record(chat, timestamp, header[3], "", Kind.DELETED, number)
        if quote := QUOTE.match(body):
            body = body[quote.end() :]
        words = _without_trailers(body)
        kind = Kind.MEDIA if words != body and not words.strip() else Kind.MESSAGE
        body = words.removesuffix(MARGIN)
    return Record(chat, timestamp, header[3], body, kind, number)


def _without_trailers(body: str) -> str:
    """Only an unbroken row of them at the end is the exporter's."""
    start = end = 0
    for trailer in TRAILER.finditer(body):
        if trailer.start() != end:
            start = trailer.start()
        end = trailer.end()
    return body[:start] if end == len(body) else body


def json_records(source: Source) -> Iterator[Record]:
    chat = chat_of(source)
    for number, row in lines(source):
        try:
            moment = datetime.fromisoformat(str(row["date"]))
        except (ValueError, TypeError, KeyError):
            yield Record(chat, "", "", "", Kind.UNREADABLE, number)
            continue
        timestamp = moment.isoformat(timespec="milliseconds" if moment.tzinfo else "seconds")
        text = line_breaks(well_formed(str(row.get("body") or ""))).removesuffix(MARGIN)
        sender = well_formed(str(row.get("sender") or ""))
        yield Record(chat, timestamp, sender, text, _kind(row, text), number)


def _kind(row: Mapping[str, Any], text: str) -> Kind:
    if row.get("deleted"):
        return Kind.DELETED
    if row.get("call"):
        return Kind.CALL
    return Kind.MEDIA if not text and (row.get("attachments") or row.get("sticker")) else Kind.MESSAGE
