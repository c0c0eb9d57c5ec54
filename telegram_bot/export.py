"""`ghost bot --corrections FILE`: the drafts that the owner rewrote, as `ghost prepare --corrections` reads them."""

import json
import os
from pathlib import Path

from telegram_bot.config import BotConfig
from telegram_bot.database import Database


def corrections(config: BotConfig, out: Path) -> int:
    """Write `out`, readable by its owner only, and return how many there are. A bot may be running meanwhile.

    Raises BotError when there is no database yet.
    """
    db = Database(Path(config.database), exclusive=False)
    try:
        found = db.rows("SELECT context, draft, text FROM drafts WHERE state = 'edited' AND context <> '' ORDER BY id")
    finally:
        db.close()
    sides = {config.labels.me: "me", config.labels.other: "other"}
    out.parent.mkdir(parents=True, exist_ok=True)
    aside = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        with open(os.open(aside, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o600), "w", encoding="utf-8") as stream:
            for row in found:
                context = [[sides[label], text] for label, text in json.loads(row["context"]) if label in sides]
                line = {"context": context, "draft": row["draft"], "final": row["text"]}
                stream.write(json.dumps(line, ensure_ascii=False) + "\n")
        os.replace(aside, out)
    finally:  # half of it, on a full disk, is somebody's messages in a hidden file
        aside.unlink(missing_ok=True)
    return len(found)
