"""`ghost extract`: read chat exports, write one CSV per conversation and a report that counts every record.

Unreadable files and lines are reported; extraction continues with the rest.
"""

import argparse
import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby, islice
from operator import itemgetter
from pathlib import Path

from ghost import atomic
from ghost.console import Bar, echo, progress
from ghost.errors import ExportError, UsageError
from training.extraction import csv_file, removals, speakers
from training.extraction.date_order import NAMES as DATE_ORDERS
from training.extraction.deduplication import Conversation, Conversations
from training.extraction.languages import language_report
from training.extraction.people import Anonymizer
from training.extraction.platform import Chat, Kind, Reading, Record
from training.extraction.platforms import HINT, PLATFORMS, Recognised, mistaken, recognise
from training.extraction.recurring import Recurring
from training.extraction.removals import ROWS, Removals
from training.extraction.report import Account, FileAccount, show
from training.extraction.source import OwnFolder, Source, discover, printable

REPORT = "extraction_report.json"
LANGUAGES = "languages.json"
BATCH = 20_000  # records between two updates of the progress bar
NAMELESS = "Unknown"  # who wrote a message whose export names nobody: a CSV's row needs a sender
CHAT = itemgetter(Record._fields.index("chat"))
EXPORTS = re.compile(r"message_\d+\.json|result\.json|main\.jsonl|messages\.json|_chat\.txt")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="exports: files, folders or zips")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("data/cleaned"),
        help="folder for the CSV files; each run replaces it, without what you deleted there (default: %(default)s)",
    )
    parser.add_argument(
        "--me", action="append", default=[], metavar="NAME", help="your name in these chats (repeat for each spelling)"
    )
    parser.add_argument(
        "--user-config", type=Path, help=f"config file with your names (default: {speakers.CONFIG}, if it exists)"
    )
    parser.add_argument(
        "--pii",
        choices=("mask", "off"),
        default="mask",
        help="mask: replace personal data with [phone], [email], …, and senders known only by a number with Contact N"
        " (default: %(default)s)",
    )
    parser.add_argument("--pseudonyms", action="store_true", help="give everyone but you an invented name")
    parser.add_argument(
        "--private", action="store_true", help="for a model that others may use: the same as --pii mask --pseudonyms"
    )
    parser.add_argument("--platform", choices=PLATFORMS, help="read every file as an export of this platform")
    parser.add_argument("--date-order", choices=DATE_ORDERS, help="date order to use where a file fits more than one")
    parser.add_argument("--min-chars", type=int, default=1, help="drop shorter messages (default: %(default)s)")
    parser.add_argument(
        "--without-app-rows",
        action="store_true",
        help="leave out messages whose recurring wording looks like the app's own; the report lists them",
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON, and nothing else")


def run(args: argparse.Namespace) -> int:
    if args.min_chars < 1:
        raise UsageError(f"--min-chars {args.min_chars}: must be at least 1")
    if args.private and args.pii == "off":
        raise UsageError("--private masks personal data, and --pii off keeps it; leave one of them out")
    args.pseudonyms |= args.private
    atomic.refuse_foreign_files(args.out, own_files(args.out))
    config = speakers.load(args.user_config)
    removed = removals.read_removals(args.out, config.exclude_messages)
    account, found = gather(args.paths, args.platform, args.date_order, args.min_chars, args.without_app_rows, removed)
    me = _me(config, args, found)
    anonymizer = Anonymizer(found, me, args.pii == "mask", args.pseudonyms, removed.contacts)
    problems = account.problems  # before renaming, so that the paths can be opened
    account.rename(anonymizer.title)
    if account.messages:
        save(account, found, args.out, anonymizer, removed)
    if args.json:
        echo(json.dumps(account.as_json(), ensure_ascii=False, indent=2))
    else:
        show(account, problems, args.out, REPORT)
    if not account.messages:
        raise ExportError(f"{nothing(account, args.paths, args.out)}; {args.out} is left as it was")
    return 1 if problems else 0


def _me(config: speakers.UserConfig, args: argparse.Namespace, found: Sequence[Conversation]) -> set[str]:
    """The senders that are you. Only needed when everyone else is renamed."""
    if not args.me and not args.pseudonyms:
        return set(config.names)
    if not found:
        return set()
    chats = {
        f"{conversation.platform}/{number}": Counter(record.sender for record in conversation.messages)
        for number, conversation in enumerate(found)
    }
    path = args.user_config or speakers.CONFIG
    return set().union(*speakers.recognise(config, args.me, chats, path).values())


def gather(
    paths: Sequence[Path],
    platform: str | None,
    date_order: str | None,
    min_chars: int,
    without_app_rows: bool = False,
    removed: Removals | None = None,
) -> tuple[Account, list[Conversation]]:
    """Read every export under `paths`. Conversations come in reading order; none is empty.

    without_app_rows  count messages whose recurring wording looks like the app's own as system rows
    removed           what the person deleted before, or excludes
    """
    account, removed = Account(), removed or Removals()
    recognised = _recognise_all(_sources(paths, account), platform, account)
    chats: list[tuple[FileAccount, Chat, list[Record]]] = []
    with progress("Extracting", total=len(recognised)) as bar, csv_file.gc_paused():
        for source, (reader, reason) in recognised:
            bar.describe(source.name)
            problem, read = "", {}
            try:
                reading = reader.read(source, date_order)
                file = FileAccount(str(source), reader.NAME, reason, reading.facts, reader.UNIT)
                read = _read(reading, file, min_chars, bar)
            except ExportError as error:
                problem = str(error)
            if platform and not read:
                problem = mistaken(source, platform) or _form(source) or problem
            if problem:
                account.refused.append(problem)
            else:
                account.files.append(file)
                for chat, messages in read.items():
                    kept, deleted, excluded = removed.keep(file.platform, messages)
                    file.move(deleted, Kind.REMOVED)
                    file.move(excluded, Kind.EXCLUDED)
                    if kept:
                        chats.append((file, chat, kept))
            bar.advance()
        account.excluded = [removed.matched[number] for number in range(len(removed.patterns))]
        recurring = Recurring([(file.file, messages) for file, _, messages in chats])
        account.recurring, account.is_without_recurring = recurring.templates, without_app_rows
        conversations = Conversations()
        for file, chat, messages in chats:
            if without_app_rows and (rows := recurring.rows(messages)):
                file.move(len(rows), Kind.SYSTEM)
                messages = [record for row, record in enumerate(messages) if row not in rows]
            if messages:
                file.move(conversations.of(file.platform, chat, messages).add(messages), Kind.DUPLICATE)
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
    """The readable files, grouped by platform, each group from oldest to newest."""
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
                # In a zip that holds a chat, other files are attachments unless they are named like an export.
                if matches and not EXPORTS.fullmatch(source.name):
                    account.attachments += 1
                else:
                    unknown.append(source)
    companions = frozenset().union(*(match.platform.COMPANIONS for _, match in recognised))
    for source in unknown:
        if source.name in companions:
            account.attachments += 1
        else:
            account.refused.append(_form(source) or f"{source}: not a known chat export{HINT}")
    ordered: list[tuple[Source, Recognised]] = []
    for known in PLATFORMS.values():
        ours = [pair for pair in recognised if pair[1].platform is known]
        ordered += reversed(ours) if known.NEWEST_FIRST else ours
    return ordered


# Files that no platform recognises: what their first bytes show, and what to do.
FORMS = {
    rb"7z\xbc\xaf|Rar!|\x1f\x8b|\xfd7zXZ|BZh|(?s:.{257})ustar": (
        "an archive, of which only zips are read; unpack it and pass the folder"
    ),
    rb"PK\x03\x04": "a zip or an Office document by another name; name it .zip, or save the chat as text",
    rb"%PDF": "a PDF; pass what the app exported",
    rb"[^\0]*\0": "not text in UTF-8; save the chat as that, or pass what the app exported",
}


def _form(source: Source) -> str | None:
    """What a file is by its first bytes, and what to do; None for text."""
    with source.open() as stream:
        head = stream.read(512)
    advice = next((advice for form, advice in FORMS.items() if re.match(form, head)), None if head else "empty file")
    return f"{source}: {advice}" if advice else None


def _read(reading: Reading, file: FileAccount, min_chars: int, bar: Bar) -> dict[Chat, list[Record]]:
    """The messages of one file by chat; other records are counted. Messages before a defect are kept."""
    message = Kind.MESSAGE
    chats: dict[Chat, list[Record]] = {}
    records = iter(reading.records)
    batch: list[Record] = []
    while file.error is None:
        batch.clear()
        try:
            batch.extend(islice(records, BATCH))  # on an error, extend keeps the records before it
        except ExportError as error:
            file.error = str(error)
        if not batch:
            break
        file.records += len(batch)
        file.reactions += sum(record.reactions for record in batch)
        kept = []
        for record in batch:
            if record.kind is not message:
                file.leave_out(record)
            elif len(record.text.strip()) < min_chars:
                file.kinds[Kind.EMPTY] += 1
            elif record.sender and not record.sender.isspace():
                kept.append(record)
            else:
                kept.append(record._replace(sender=NAMELESS))
        for chat, messages in groupby(kept, key=CHAT):
            chats.setdefault(chat, []).extend(messages)
        bar.describe(f"{file.records:,} records of {file.file}")
    file.kinds[message] = sum(map(len, chats.values()))
    if file.records != file.kinds.total():  # a bug: every record must be counted
        raise RuntimeError(f"{file.file}: {file.records} records, {file.kinds.total()} accounted for")
    return chats


def save(account: Account, found: Sequence[Conversation], out: Path, anonymizer: Anonymizer, removed: Removals) -> None:
    """Write the CSVs and the reports to a temporary folder, then replace `out` with it."""
    with atomic.replace_folder(out) as folder:
        replies: dict[str, list[dict[str, dict[str, str]]]] = {}
        rows: dict[str, dict[str, str]] = {}
        languages = language_report(_write(account, found, folder, anonymizer, replies, rows))
        account.masked = anonymizer.counts
        account.languages = languages["total"]
        reports = {REPORT: account.as_json(), LANGUAGES: languages, ROWS: removed.as_json(rows)}
        reports |= {csv_file.REPLIES: replies} if replies else {}
        for name, report in reports.items():
            (folder / name).touch(mode=0o600)
            (folder / name).write_text(json.dumps(report, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def _write(
    account: Account,
    found: Sequence[Conversation],
    folder: Path,
    anonymizer: Anonymizer,
    replies: dict[str, list[dict[str, dict[str, str]]]],
    rows: dict[str, dict[str, str]],
) -> Iterator[tuple[str, list[Record]]]:
    """Write each conversation; yield its file, relative to `folder`, and its messages. Fill `replies` and `rows` by
    file."""
    taken: dict[str, int] = {}
    with progress("Writing", total=len(found)) as bar:
        for conversation in found:
            title = anonymizer.title(conversation.chat.title)
            path = csv_file.path_in(folder, conversation.platform, title, taken)
            file = path.relative_to(folder).as_posix()
            bar.describe(path.name)
            read = conversation.in_time_order()
            records = anonymizer.records(read)
            csv_file.write(records, path)
            if answered := csv_file.replies(read, records):
                replies[file] = answered
            rows[file] = removals.rows_of(conversation.platform, read, records, path)
            account.write_down(file, title, records)
            yield file, records
            bar.advance()


def own_files(out: Path) -> set[str]:
    """The files that the report in `out` lists; empty when there is no readable report."""
    try:
        report = json.loads((out / REPORT).read_text(encoding="utf-8"))
        return {
            REPORT,
            LANGUAGES,
            ROWS,
            csv_file.REPLIES,
            *(conversation["file"] for conversation in report["conversations"]),
        }
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def nothing(account: Account, paths: Sequence[Path], out: Path) -> str:
    """The error message when no message was found."""
    where = " ".join(map(str, paths))
    if left_out := sum(file.kinds[Kind.REMOVED] + file.kinds[Kind.EXCLUDED] for file in account.files):
        return (
            f"no message in {where} but {left_out:,} that you deleted from {out} or that exclude_messages excludes;"
            f" to have the deleted ones back, delete {out / ROWS}"
        )
    if account.files or account.refused:
        return f"no message in {where}"
    found = f"attachments only ({account.attachments:,})" if account.attachments else "no file at all"
    return f"no chat export in {where}: {found}. Pass what the app exported: ghost extract CHAT.txt (or .zip, or .json)"
