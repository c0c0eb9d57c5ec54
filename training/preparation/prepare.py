"""`ghost prepare`: CSV → train.jsonl and val.jsonl of A:/B: windows, with their report and the first ghost.json."""

import argparse
import gc
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from replicate_deployment.chat_format import RECIPES, Labels, Recipe
from training import artifact, speakers
from training.aside import refuse_foreign_files, replace_folder
from training.console import console, progress
from training.errors import DataError
from training.preparation import recipes, report
from training.preparation.prepared import Prepared
from training.preparation.split import training_conversations

TRAIN, VAL, REPORT = "train.jsonl", "val.jsonl", "preparation_report.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--cleaned", type=Path, default=Path("data/cleaned"), help="what `ghost extract` wrote (default: %(default)s)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("data/processed"),
        help="folder to write, replaced as a whole (default: %(default)s)",
    )
    parser.add_argument(
        "--user-config", type=Path, default=speakers.CONFIG, help="whose voice this is (default: %(default)s)"
    )
    parser.add_argument(
        "--me",
        metavar="NAME",
        action="append",
        default=[],
        help="your name as the chats spell it, once for each spelling; stands in for the config's user_identifiers",
    )
    parser.add_argument(
        "--recipe",
        choices=RECIPES,
        default="windows",
        help="a line for every window of 6 to 12 turns and its reply, or one for each whole conversation, in which "
        "every turn of yours ends with </s> (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON, and nothing else")


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without the search for cycles: there is none among millions of tuples, and looking takes half of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@_uncollected()
def run(args: argparse.Namespace) -> int:
    from training.preparation import consent
    from training.preparation import conversations as chats

    config = speakers.load(args.user_config)
    labels = config.labels
    refuse_foreign_files(args.out, artifact.own_files(args.out, "data"))
    messages = chats.read(args.cleaned, config.zone)
    mine = speakers.recognise(
        config, args.me, chats.senders(messages.table), args.user_config, speakers.owners(args.cleaned)
    )
    kept = consent.keep(config, messages.table, mine, args.cleaned, args.user_config)
    table = chats.arrange(kept.table, mine, kept.borders)
    conversations = chats.conversations(table, labels)

    found = recipes.examples(args.recipe, [[turn.label == labels.me for turn in talk.turns] for talk in conversations])
    training = training_conversations([len(talk.turns) for talk in conversations])
    if not any(found.windows[:training]):
        raise DataError(
            f"no window to train on: {int(table['mine'].sum()):,} of {len(table):,} messages are yours, but no turn of "
            "yours comes after another's within half an hour in the conversations that train. "
            f"Are all your names in {args.user_config}, and were whole chats exported?"
        )

    prepared = Prepared(config, args.recipe, messages, table, conversations, found, training)
    figures = report.figures(config, messages, table, conversations, found, training, args.recipe)
    figures |= {"left_out": kept.left_out, "groups": consent.groups(prepared, kept.sizes)}
    with replace_folder(args.out) as folder, progress("writing", len(conversations)) as bar:
        talks = iter(zip(conversations, found.by_conversation, strict=True))
        hashes: dict[str, str] = {}
        for name, share in ((TRAIN, training), (VAL, None)):
            digest = hashlib.sha256()
            with (folder / name).open("wb") as stream:
                for talk, windows in islice(talks, share):
                    lines = recipes.lines(args.recipe, talk.turns, windows, labels)
                    stream.write(lines)
                    digest.update(lines)
                    bar.advance()
            hashes[name] = digest.hexdigest()
        (folder / REPORT).write_text(json.dumps(figures, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
        blocks = {"text": _text_block(labels, args.recipe), "data": _data_block(figures, hashes)}
        artifact.write(folder, None, hashes, **blocks)
    if args.json:
        print(json.dumps(figures, ensure_ascii=False, indent=2))
    else:
        console.print(report.summary(figures, args.out, report.unclaimed(table)), soft_wrap=True)
    return 0


def _text_block(labels: Labels, recipe: Recipe) -> dict[str, Any]:
    return {
        "labels": {"me": labels.me, "other": labels.other},
        "recipe": recipe,
        "stop_sequences": labels.stop_sequences,
    }


def _data_block(figures: dict[str, Any], hashes: dict[str, str]) -> dict[str, Any]:
    return {
        "counts": {
            "messages": figures["messages"]["used"],
            "conversations": figures["conversations"]["total"],
            "turns": figures["turns"]["total"],
            "own_turns": figures["turns"]["yours"],
            "windows": figures["windows"]["total"],
            "seeds": figures["seeds"]["total"],
            "train_lines": figures["lines"]["train"],
            "val_lines": figures["lines"]["val"],
        },
        "train_sha256": hashes[TRAIN],
        "val_sha256": hashes[VAL],
    }
