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
from training.extraction.date_order import ASK
from training.extraction.date_order import NAMES as DATE_ORDERS
from training.extraction.gather import gather
from training.extraction.recognise import PLATFORMS

REPORT = "extraction_report.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("paths", nargs="+", type=Path, metavar="PATH", help="exports: files, folders or zips")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("data/cleaned"),
        help="folder of the CSVs, replaced as a whole by each run (default: %(default)s)",
    )
    parser.add_argument("--platform", choices=PLATFORMS, help="read every file as this platform's")
    parser.add_argument("--date-order", choices=DATE_ORDERS, help="for WhatsApp files whose dates fit more than one")
    parser.add_argument("--min-chars", type=int, default=1, help="shorter messages are left out (default: %(default)s)")
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
        raise ExportError(f"{nothing(account, args.paths)}; {args.out} is left as it was")
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


def nothing(account: Account, paths: Sequence[Path]) -> str:
    """What to say when no message was found."""
    where = " ".join(map(str, paths))
    if account.files or account.refused:
        return f"no message in {where}"
    found = f"attachments only ({account.attachments:,})" if account.attachments else "no file at all"
    return f"no chat export in {where}: {found}. Pass what the app exported: ghost extract CHAT.txt (or .zip, or .json)"


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
    problems = account.problems
    asking = sum(problem.endswith(ASK) for problem in problems)
    for problem in problems:
        console.print(f"not understood: {problem.removesuffix(ASK) if asking > 1 else problem}", soft_wrap=True)
    if asking > 1:
        console.print(f"{asking:,} files do not tell day from month.{ASK}", soft_wrap=True)
    if account.messages:
        console.print(f"{account.messages:,} messages in {len(account.conversations):,} conversations → {out}")
