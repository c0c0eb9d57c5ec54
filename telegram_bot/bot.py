"""`ghost bot`: a ghost to talk to on Telegram, and drafts to approve."""

import argparse
import asyncio
import logging
from pathlib import Path

from telegram_bot import config as configuration
from training.console import console


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, default=configuration.DEFAULT_PATH, help="default: %(default)s")
    parser.add_argument(
        "--corrections",
        type=Path,
        metavar="FILE",
        help="write the drafts that you rewrote to FILE, for `ghost prepare --corrections`, and end",
    )


def run(args: argparse.Namespace) -> int:
    config = configuration.load(args.config)
    if args.corrections:
        from telegram_bot import export

        count = export.corrections(config, args.corrections)
        console.print(
            f"{count:,} corrections in {args.corrections}; next: ghost prepare --corrections {args.corrections}",
            soft_wrap=True,
        )
        return 0
    from telegram_bot import service  # the Bot API's client

    token = configuration.token()
    set_up_log()
    asyncio.run(service.serve(config, token))
    return 0


def set_up_log() -> None:
    """Numbers and kinds of errors on stderr. The libraries are silenced: httpx writes addresses, which hold the token,
    and python-telegram-bot whole updates that it cannot read."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    for library in ("httpx", "httpcore", "httpx2", "httpcore2", "telegram", "asyncio"):
        logging.getLogger(library).setLevel(logging.CRITICAL + 1)
