"""Every export under some paths, read into conversations; what cannot be read is accounted for and the rest goes on."""

import re
from collections.abc import Sequence
from itertools import groupby, islice
from operator import itemgetter
from pathlib import Path

from training import collector
from training.console import Bar, progress
from training.errors import ExportError
from training.extraction.account import Account, FileAccount
from training.extraction.deduplication import Conversation, Conversations
from training.extraction.platform import Chat, Kind, Reading, Record
from training.extraction.recognise import PLATFORMS, Recognised, recognise
from training.extraction.source import OwnFolder, Source, discover, printable

BATCH = 20_000  # records between two signs of life
CHAT = itemgetter(Record._fields.index("chat"))
EXPORTS = re.compile(r"message_\d+\.json|result\.json|main\.jsonl|messages\.json|_chat\.txt")
HINT = f"; if it is a chat export, say which: --platform {'|'.join(PLATFORMS)}"


def gather(
    paths: Sequence[Path], platform: str | None, date_order: str | None, min_chars: int
) -> tuple[Account, list[Conversation]]:
    """Read every export under `paths`. Conversations are in the order in which they were met; none is empty."""
    account = Account()
    recognised = _recognise_all(_sources(paths, account), platform, account)
    conversations = Conversations()
    with progress("Extracting", total=len(recognised)) as bar, collector.at_rest():
        for source, (reader, reason) in recognised:
            bar.describe(source.name)
            try:
                reading = reader.read(source, date_order)
            except ExportError as error:
                account.refused.append(str(error))
            else:
                file = FileAccount(str(source), reader.NAME, reason, reading.facts, reader.UNIT)
                account.files.append(file)
                for chat, messages in _read(reading, file, min_chars, bar).items():
                    file.move_to_duplicates(conversations.of(reader.NAME, chat, messages).add(messages))
            bar.advance()
    return account, conversations.all


def _sources(paths: Sequence[Path], account: Account) -> list[Source]:
    sources = []
    for found in discover(paths):
        if isinstance(found, ExportError):
            account.refused.append(str(found))
        elif isinstance(found, OwnFolder):
            account.own_folders.append(printable(str(found.path)))
        elif found.is_attachment:
            account.attachments += 1
        else:
            sources.append(found)
    names = {str(source) for source in sources}
    html = [source for source in sources if source.name.endswith(".html")]
    pages = {source for source in html if f"{str(source).removesuffix('.html')}.json" in names}
    account.beside_json += len(pages)
    return [source for source in sources if source not in pages]


def _recognise_all(
    sources: Sequence[Source], platform: str | None, account: Account
) -> list[tuple[Source, Recognised]]:
    """What can be read, platform by platform, the files of each from the oldest to the newest."""
    recognised: list[tuple[Source, Recognised]] = []
    unknown: list[Source] = []
    with progress("Recognising", total=len(sources)) as bar:
        for _, group in groupby(sources, key=lambda source: source.path):
            matches = []
            others = []
            for source in group:
                try:
                    match = recognise(source, platform)
                except ExportError as error:
                    account.refused.append(str(error))
                else:
                    if match is None:
                        others.append(source)
                    else:
                        matches.append((source, match))
                bar.advance()
            recognised += matches
            for source in others:
                # In a zip with a chat, another file is what somebody sent in it, unless it is called like a chat.
                if matches and not EXPORTS.fullmatch(source.name):
                    account.attachments += 1
                else:
                    unknown.append(source)
    companions = frozenset().union(*(match.platform.COMPANIONS for _, match in recognised))
    for source in unknown:
        if source.name in companions:
            account.attachments += 1
        else:
            account.refused.append(
                f"{source}: no chat export we know{HINT}" if source.head() else f"{source}: empty file"
            )
    ordered: list[tuple[Source, Recognised]] = []
    for known in PLATFORMS.values():
        ours = [pair for pair in recognised if pair[1].platform is known]
        ordered += reversed(ours) if known.NEWEST_FIRST else ours
    return ordered


def _read(reading: Reading, file: FileAccount, min_chars: int, bar: Bar) -> dict[Chat, list[Record]]:
    """The messages of one file by chat; everything else is counted. What precedes a defect is kept and reported."""
    message = Kind.MESSAGE
    chats: dict[Chat, list[Record]] = {}
    records = iter(reading.records)
    batch: list[Record] = []
    while file.error is None:
        batch.clear()
        try:
            batch.extend(islice(records, BATCH))  # keeps what came before an error
        except ExportError as error:
            file.error = str(error)
        if not batch:
            break
        file.records += len(batch)
        kept = []
        for record in batch:
            if record.kind is not message:
                file.leave_out(record)
            elif len(record.text.strip()) < min_chars:
                file.kinds[Kind.EMPTY] += 1
            else:
                kept.append(record)
        for chat, messages in groupby(kept, key=CHAT):
            chats.setdefault(chat, []).extend(messages)
        bar.describe(f"{file.records:,} records of {file.file}")
    file.kinds[message] = sum(map(len, chats.values()))
    assert file.records == file.kinds.total(), (
        f"{file.file}: {file.records} records, {file.kinds.total()} accounted for"
    )
    return chats
