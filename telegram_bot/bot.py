"""`ghost bot`: chat with a ghost on Telegram, and approve its drafts."""

import argparse
import asyncio
import json
import logging
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from ghost.console import console
from ghost.errors import BotError, UsageError
from replicate_deployment.chat_format import BURST_SECONDS
from telegram_bot import config as configuration
from telegram_bot.config import BotConfig
from telegram_bot.database import Clock, Database, failure, not_a_database

if TYPE_CHECKING:
    from training.extraction.pii import Masker


# What became of a draft that is no longer open: training.preparation.corrections says what each label means.
FEWEST = 50  # as in training.finetuning.preferences, which the bot's installation cannot load
JUDGED = "context <> '' AND (state IN ('sent', 'edited', 'discarded', 'own') OR state = 'outdated' AND refused <> '[]')"


def corrections(config: BotConfig, out: Path, *, again: bool = False, clock: Clock | None = None) -> tuple[int, int]:
    """Add what became of drafts since the last export to `out`, masked as extraction masks; with `again`, what was
    exported before too. Return the number of lines added, and of all in the file.

    Only the file's owner can read `out`. The bot may be running. Raises BotError when there is no database yet, or
    when `out` holds something else.
    """
    from training.extraction.pii import Masker

    before = _exported(out)
    with _opened(config, writable=True, clock=clock) as db:
        now = db.clock.time()
        fresh = "" if again else "AND exported IS NULL"
        finished = "state <> 'own' OR at < ?"  # more of such an answer may follow
        found = db.rows(
            f"SELECT * FROM drafts WHERE {JUDGED} {fresh} AND ({finished}) ORDER BY id", now - BURST_SECONDS
        )
        masker = Masker()
        lines = {row["id"]: [*_labels_of(row, config, masker)] for row in found}
        held = set(before)
        added = list(dict.fromkeys(line for some in lines.values() for line in some if line not in held))
        _write(out, "".join([*before, *added]))
        with db.transaction():
            for id, some in lines.items():
                if some:  # else those that the config's labels can read may still be written
                    db.run("UPDATE drafts SET exported = ? WHERE id = ?", now, id)
    return len(added), len(before) + len(added)


def _labels_of(row: sqlite3.Row, config: BotConfig, masker: "Masker") -> Iterator[str]:
    """A line for each draft of this row: those refused for another, and the last one."""
    sides = {config.labels.me: "me", config.labels.other: "other"}
    turns = [(sides[label], text) for label, text in json.loads(row["context"]) if label in sides]
    if not turns or turns[-1][0] != "other":  # the labels of the config were others then
        return
    context = [[side, masker.mask(text)] for side, text in turns]
    final = masker.mask(row["text"]) if row["state"] in ("sent", "edited", "own") else None
    drafts = [("another", text, at) for text, at in json.loads(row["refused"])]
    if row["draft"] and row["state"] != "outdated":
        drafts.append((row["state"], row["draft"], row["at"]))
    for label, text, at in drafts:
        line = {"context": context, "label": label, "draft": masker.mask(text), "final": final}
        time = datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")
        yield json.dumps({**line, "time": time}, ensure_ascii=False) + "\n"


def quality_page(config: BotConfig, out: Path) -> str:
    """Write the page of what was sent to `out`, which only the file's owner can read, and return its summary. The bot
    may be running.

    Raises BotError when there is no database yet, or when `out` holds something else.
    """
    from telegram_bot import live_page, quality

    if out.exists() and not (out.is_file() and live_page.HEADING.encode() in out.read_bytes()):
        raise BotError(f"{out}: not a page of what was sent; name another file, or move it away")
    with _opened(config) as db:
        summary = quality.summary(db, config)
        text = live_page.page(db, config, summary)
    _write(out, text)
    return summary


@contextmanager
def _opened(config: BotConfig, *, writable: bool = False, clock: Clock | None = None) -> Iterator[Database]:
    path = Path(config.database)
    db = Database(path, exclusive=False, writable=writable, clock=clock)
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


def _exported(out: Path) -> list[str]:
    """The lines of an earlier export. Raises BotError when the file is something else."""
    if not out.exists():
        return []
    try:
        text = out.read_text(encoding="utf-8") if out.is_file() else "no file"
        before = [f"{line}\n" for line in text.split("\n") if line]
        if all(json.loads(line).keys() == {"context", "label", "draft", "final", "time"} for line in before):
            return before
    except (ValueError, AttributeError):
        pass
    raise BotError(f"{out}: not a file of corrections that this version writes; name another file, or move it away")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, default=configuration.DEFAULT_PATH, help="default: %(default)s")
    parser.add_argument(
        "--corrections",
        type=Path,
        metavar="FILE",
        help="add what became of drafts since the last time to FILE, for `ghost train --preferences` and `ghost "
        "prepare --corrections`, and exit",
    )
    parser.add_argument(
        "--again", action="store_true", help="with --corrections: also what was written to a file before"
    )
    parser.add_argument(
        "--quality",
        type=Path,
        metavar="FILE",
        help="write a page of figures of what was sent, by week and chat, to FILE, such as report/live.html, and exit",
    )


def run(args: argparse.Namespace) -> int:
    if args.again and not args.corrections:
        raise UsageError("--again: belongs to --corrections FILE")
    config = configuration.load(args.config)
    if args.corrections:
        added, total = corrections(config, args.corrections, again=args.again)
        then = f"next: ghost train --preferences {args.corrections}"
        if total < FEWEST:
            then = f"ghost train --preferences learns from at least {FEWEST}, so answer more drafts first"
        console.print(f"{added:,} drafts added to {args.corrections}, which holds {total:,}; {then}")
        return 0
    if args.quality:
        summary = quality_page(config, args.quality)
        console.print(f"{summary}\nfigures of what was sent in {args.quality}; open it in a browser")
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
