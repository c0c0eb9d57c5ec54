"""`ghost extract`: chat exports → one clean CSV a conversation, and an account of every record."""

import argparse
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from training import aside, speakers
from training.console import progress
from training.errors import ExportError, UsageError
from training.extraction import csv_file
from training.extraction.account import Account
from training.extraction.date_order import NAMES as DATE_ORDERS
from training.extraction.deduplication import Conversation
from training.extraction.gather import gather
from training.extraction.languages import language_report
from training.extraction.people import Shield
from training.extraction.platform import Record
from training.extraction.recognise import PLATFORMS
from training.extraction.terminal import show

REPORT = "extraction_report.json"
LANGUAGES = "languages.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="exports: files, folders or zips")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("data/cleaned"),
        help="folder of the CSVs, replaced as a whole by each run (default: %(default)s)",
    )
    parser.add_argument(
        "--me", action="append", default=[], metavar="NAME", help="your name in these chats (repeat for each spelling)"
    )
    parser.add_argument(
        "--user-config",
        type=Path,
        help=f"where your names stand otherwise (default: {speakers.CONFIG}, if there is one)",
    )
    parser.add_argument(
        "--pii",
        choices=("mask", "off"),
        default="mask",
        help="[phone], [email] … in the place of what is personal, and Contact N for people who are but a number"
        " (default: %(default)s)",
    )
    parser.add_argument("--pseudonyms", action="store_true", help="an invented name for everyone but you")
    parser.add_argument("--platform", choices=PLATFORMS, help="read every file as this platform's")
    parser.add_argument("--date-order", choices=DATE_ORDERS, help="for files whose dates fit more than one")
    parser.add_argument("--min-chars", type=int, default=1, help="shorter messages are left out (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print the report as JSON, and nothing else")


def run(args: argparse.Namespace) -> int:
    if args.min_chars < 1:
        raise UsageError(f"--min-chars {args.min_chars}: must be at least 1")
    aside.refuse_foreign_files(args.out, own_files(args.out))
    config = speakers.load(args.user_config)
    account, found = gather(args.paths, args.platform, args.date_order, args.min_chars)
    me = _me(config, args, found)
    shield = Shield(found, me, pii=args.pii == "mask", pseudonyms=args.pseudonyms)
    problems = account.problems  # with the paths that have to be opened
    account.rename(shield.title)
    if account.messages:
        save(account, found, args.out, shield)
    if args.json:
        print(json.dumps(account.as_json(), ensure_ascii=False, indent=2))
    else:
        show(account, problems, args.out, REPORT)
    if not account.messages:
        raise ExportError(f"{nothing(account, args.paths)}; {args.out} is left as it was")
    return 1 if problems else 0


def _me(config: speakers.UserConfig, args: argparse.Namespace, found: Sequence[Conversation]) -> set[str]:
    """The senders that are the person; needed only where everyone else gets another name."""
    if not args.me and not args.pseudonyms:
        return set(config.names)
    chats = {
        f"{conversation.platform}/{number}": Counter(record.sender for record in conversation.messages)
        for number, conversation in enumerate(found)
    }
    if not found:
        return set()
    path = args.user_config or speakers.CONFIG
    return set().union(*speakers.recognise(config, args.me, chats, path).values())


def save(account: Account, found: Sequence[Conversation], out: Path, shield: Shield) -> None:
    """Write the CSVs and the reports aside, then put them in the place of `out`."""
    with aside.replace_folder(out) as folder:
        languages = language_report(_write(account, found, folder, shield))
        account.masked = shield.counts
        account.languages = languages["total"]
        for name, report in ((REPORT, account.as_json()), (LANGUAGES, languages)):
            (folder / name).touch(mode=0o600)
            (folder / name).write_text(json.dumps(report, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def _write(
    account: Account, found: Sequence[Conversation], folder: Path, shield: Shield
) -> Iterator[tuple[str, list[Record]]]:
    """Each conversation's file, relative to `folder`, and what it holds."""
    taken: set[str] = set()
    with progress("Writing", total=len(found)) as bar:
        for conversation in found:
            title = shield.title(conversation.chat.title)
            path = csv_file.path_in(folder, conversation.platform, title, taken)
            bar.describe(path.name)
            records = shield.records(conversation.in_time_order())
            csv_file.write(records, path)
            account.write_down(path.relative_to(folder), title, records)
            yield path.relative_to(folder).as_posix(), records
            bar.advance()


def own_files(out: Path) -> set[str]:
    """What extraction wrote to `out`, by its report; empty when there is none to read."""
    try:
        report = json.loads((out / REPORT).read_text(encoding="utf-8"))
        return {REPORT, LANGUAGES, *(conversation["file"] for conversation in report["conversations"])}
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def nothing(account: Account, paths: Sequence[Path]) -> str:
    """What to say when no message was found."""
    where = " ".join(map(str, paths))
    if account.files or account.refused:
        return f"no message in {where}"
    found = f"attachments only ({account.attachments:,})" if account.attachments else "no file at all"
    return f"no chat export in {where}: {found}. Pass what the app exported: ghost extract CHAT.txt (or .zip, or .json)"
