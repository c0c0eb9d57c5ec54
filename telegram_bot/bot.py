"""`ghost bot`: chat with a ghost on Telegram, and approve its drafts."""

import argparse
import asyncio
import json
import logging
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ghost.console import console
from ghost.errors import BotError
from telegram_bot import config as configuration
from telegram_bot.config import BotConfig
from telegram_bot.database import Database, failure, not_a_database


def corrections(config: BotConfig, out: Path) -> int:
    """Write the drafts that the owner rewrote to `out`, for `ghost prepare --corrections`, and return their number.

    Only the file's owner can read `out`. The bot may be running. Raises BotError when there is no database yet, or
    when `out` holds something else, or corrections that the database does not have.
    """
    with _reading(config) as db:
        found = db.rows("SELECT context, draft, text FROM drafts WHERE state = 'edited' AND context <> '' ORDER BY id")
    sides = {config.labels.me: "me", config.labels.other: "other"}
    lines = []
    for row in found:
        context = [[sides[label], text] for label, text in json.loads(row["context"]) if label in sides]
        line = {"context": context, "draft": row["draft"], "final": row["text"]}
        lines.append(json.dumps(line, ensure_ascii=False) + "\n")
    if lost := _lost(out, lines):
        raise BotError(f"{out}: {lost}; name another file, or move it away")
    _write(out, "".join(lines))
    return len(found)


def quality_page(config: BotConfig, out: Path) -> None:
    """Write the page of what was sent to `out`, which only the file's owner can read. The bot may be running.

    Raises BotError when there is no database yet, or when `out` holds something else.
    """
    from telegram_bot import live_page

    if out.exists() and not (out.is_file() and live_page.HEADING.encode() in out.read_bytes()):
        raise BotError(f"{out}: not a page of what was sent; name another file, or move it away")
    with _reading(config) as db:
        text = live_page.page(db, config)
    _write(out, text)


@contextmanager
def _reading(config: BotConfig) -> Iterator[Database]:
    path = Path(config.database)
    db = Database(path, exclusive=False)
    try:
        yield db
    except sqlite3.Error as error:
        raise failure(error, path) or not_a_database(error, path) from error
    finally:
        db.close()


def _write(out: Path, text: str) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        with open(os.open(partial, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w", encoding="utf-8") as stream:
            stream.write(text)
        os.replace(partial, out)
    finally:  # on a full disk, leave no messages behind in a hidden file
        partial.unlink(missing_ok=True)


def _lost(out: Path, lines: list[str]) -> str:
    """What replacing `out` by these lines would lose, or an empty text."""
    if not out.exists():
        return ""
    try:
        before = out.read_text(encoding="utf-8").splitlines(keepends=True) if out.is_file() else ["no file"]
        ours = all(json.loads(line).keys() == {"context", "draft", "final"} for line in before)
    except (ValueError, AttributeError):
        ours = False
    if not ours:
        return "not a file of corrections"
    gone = len({*before} - {*lines})
    return f"holds {gone:,} corrections that the bot's database does not" if gone else ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, default=configuration.DEFAULT_PATH, help="default: %(default)s")
    parser.add_argument(
        "--corrections",
        type=Path,
        metavar="FILE",
        help="write the drafts that you rewrote to FILE, for `ghost prepare --corrections`, and exit",
    )
    parser.add_argument(
        "--quality",
        type=Path,
        metavar="FILE",
        help="write a page of figures of what was sent, by week and chat, to FILE, such as report/live.html, and exit",
    )


def run(args: argparse.Namespace) -> int:
    config = configuration.load(args.config)
    if args.corrections:
        count = corrections(config, args.corrections)
        console.print(
            f"{count:,} corrections in {args.corrections}; next: ghost prepare --corrections {args.corrections}",
            soft_wrap=True,
        )
        return 0
    if args.quality:
        quality_page(config, args.quality)
        console.print(f"figures of what was sent in {args.quality}; open it in a browser", soft_wrap=True)
        return 0
    from telegram_bot import service  # imports the Bot API client

    token = configuration.token()
    set_up_log()
    asyncio.run(service.serve(config, token))
    return 0


def set_up_log() -> None:
    """Log to stderr, without message texts. Silence the libraries: httpx logs URLs, which contain the token, and
    python-telegram-bot logs whole updates that it cannot read."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    for library in ("httpx", "httpcore", "httpx2", "httpcore2", "telegram", "asyncio"):
        logging.getLogger(library).setLevel(logging.CRITICAL + 1)
