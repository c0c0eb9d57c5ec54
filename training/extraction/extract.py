"""`ghost extract`: chat exports → one clean CSV a conversation, and an account of every record."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from training import aside
from training.console import console
from training.errors import ExportError, UsageError
from training.extraction import conversation as conversations
from training.extraction.account import Account
from training.extraction.conversation import Conversation
from training.extraction.date_order import NAMES as DATE_ORDERS
from training.extraction.gather import gather
from training.extraction.recognise import PLATFORMS

REPORT = "extraction_report.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="exports: files, folders or zips")
    parser.add_argument("--out", type=Path, default=Path("data/cleaned"), help="folder of the CSVs, rebuilt each time")
    parser.add_argument("--platform", choices=PLATFORMS, help="read every file as this platform's")
    parser.add_argument("--date-order", choices=DATE_ORDERS, help="for WhatsApp files whose dates fit more than one")
    parser.add_argument("--min-chars", type=int, default=1, help="shorter messages are left out")
    parser.add_argument("--json", action="store_true", help="print the report as JSON, and nothing else")


def run(args: argparse.Namespace) -> int:
    if args.min_chars < 1:
        raise UsageError(f"--min-chars {args.min_chars}: must be at least 1")
    aside.refuse_foreign_files(args.out, own_files(args.out))
    account, found = gather(args.paths, args.platform, args.date_order, args.min_chars)
    if account.messages:
        save(account, found, args.out)
    if args.json:
        print(json.dumps(account.as_json(), ensure_ascii=False, indent=2))
    else:
        show(account, args.out)
    if not account.messages:
        raise ExportError(f"no message in {' '.join(map(str, args.paths))}; {args.out} is left as it was")
    return 1 if account.problems else 0


def save(account: Account, found: Sequence[Conversation], out: Path) -> None:
    """Write the CSVs and the report aside, then put them in the place of `out`."""
    with aside.replace_folder(out) as folder:
        for path, conversation, records in conversations.write(found, folder):
            account.write_down(path.relative_to(folder), conversation.chat.title, records)
        report = folder / REPORT
        report.touch(mode=0o600)
        report.write_text(json.dumps(account.as_json(), ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def own_files(out: Path) -> set[str]:
    """What extraction wrote to `out`, by its report; empty when there is none to read."""
    try:
        report = json.loads((out / REPORT).read_text(encoding="utf-8"))
        return {REPORT, *(conversation["file"] for conversation in report["conversations"])}
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def show(account: Account, out: Path) -> None:
    if account.files:
        console.print(account.table())
    for file in account.files:
        if file.facts.get("evidence"):
            console.print(f"{file.file}: {file.facts['evidence']}", soft_wrap=True)
    if account.attachments or account.beside_json:
        console.print(
            f"passed over: {account.attachments:,} attachments,"
            f" {account.beside_json:,} HTML pages whose JSON lies beside them"
        )
    for problem in account.problems:
        console.print(f"not understood: {problem}", soft_wrap=True)
    if account.messages:
        console.print(f"{account.messages:,} messages in {len(account.conversations):,} conversations → {out}")
