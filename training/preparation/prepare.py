"""`ghost prepare`: CSV → train.jsonl and val.jsonl of A:/B: windows, a report, and the first ghost.json."""

import argparse
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ghost import artifact
from ghost.atomic import refuse_foreign_files, replace_folder
from ghost.console import console, echo, tracked
from ghost.errors import ConfigError, DataError, UsageError
from replicate_deployment.chat_format import RECIPES, Turn
from training import config as training_config
from training import lineage
from training.extraction import csv_file, speakers
from training.tokens import load_tokenizer, try_load_tokenizer

if TYPE_CHECKING:
    from training.preparation.dataset import Prepared
    from training.preparation.privacy import Kept

TRAIN, VAL, REPORT, PAGE = "train.jsonl", "val.jsonl", "preparation_report.json", "report.html"
REPETITIONS = (1, 10, 100)
MOST_CANARIES = 1_000
ABOUT = "val.about.jsonl"  # beside val.jsonl, which stays as Axolotl loads it


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--cleaned",
        type=Path,
        default=Path("data/cleaned"),
        help="folder that `ghost extract` wrote (default: %(default)s)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("data/processed"),
        help="folder to write, replaced as a whole (default: %(default)s)",
    )
    parser.add_argument(
        "--user-config", type=Path, help=f"your names, and what to leave out (default: {speakers.CONFIG}, if it exists)"
    )
    parser.add_argument(
        "--me",
        metavar="NAME",
        action="append",
        default=[],
        help="your name as the chats spell it, once per spelling; replaces user_identifiers of the config",
    )
    parser.add_argument(
        "--recipe",
        choices=RECIPES,
        default="windows",
        help="windows: a line for each window of up to 12 turns and its reply; conversations: a line for each "
        "conversation, with </s> after each of your turns (default: %(default)s)",
    )
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help=f"the training config, for the base and sequence length ({training_config.DEFAULT})",
    )
    parser.add_argument(
        "--base", help=f"base whose tokenizer counts, if it is on this disk: {training_config.BASE_HELP}"
    )
    parser.add_argument(
        "--canaries",
        type=int,
        default=0,
        metavar="N",
        help="add N invented secrets to the training lines, so that `ghost evaluate` can measure memorisation "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--canary-repetitions",
        type=int,
        nargs="+",
        metavar="LINES",
        help=f"lines that hold each secret, in turn (default: {' '.join(map(str, REPETITIONS))})",
    )
    parser.add_argument(
        "--corrections",
        type=Path,
        metavar="FILE",
        help="also train on the drafts that you rewrote or answered yourself, as `ghost bot --corrections FILE` writes "
        "them",
    )
    parser.add_argument(
        "--continue",
        dest="parent",
        type=Path,
        metavar="ADAPTER",
        help="prepare old and new chats for ghost train --continue: what this finished adapter held out stays held out",
    )
    parser.add_argument("--force", action="store_true", help="prepare even if the data would waste a training run")
    parser.add_argument("--json", action="store_true", help="print only the report, as JSON")


@csv_file.gc_paused()
def run(args: argparse.Namespace) -> int:
    from training.preparation import checks, privacy, report, report_page

    config, recipe_of_training = speakers.load(args.user_config), training_config.load(args.config)
    without_config = "" if args.user_config or speakers.CONFIG.exists() else f": {speakers.not_there()}"
    args.user_config = args.user_config or speakers.CONFIG
    if args.out.resolve().is_relative_to(args.cleaned.resolve()):
        raise UsageError(f"--out {args.out} lies in --cleaned {args.cleaned}, which ghost extract replaces as a whole")
    repetitions = repetitions_of(args.canaries, args.canary_repetitions)
    refuse_foreign_files(args.out, artifact.own_files(args.out, "data"))
    parent = None if args.parent is None else lineage.Parent.read(args.parent)
    if parent:
        parent.check_text(config.labels, args.recipe)
    prepared, kept = prepare(args, config, None if parent is None else parent.known)
    rewritten = None
    if args.corrections:
        from training.preparation import corrections

        rewritten = corrections.read(args.corrections, prepared)
    tokenizer = _tokenizer(args.base, recipe_of_training)
    found = report.make(prepared, kept, tokenizer, recipe_of_training.sequence_len)
    figures = found.figures
    refused = [concern["text"] for concern in figures["concerns"] if concern["severity"] == "refuse"]
    if refused and not args.force:
        left_out = report.left_out(kept.left_out)
        because = f" Left out by {args.user_config}: {'; '.join(left_out)}." if left_out else ""
        raise DataError(f"{' '.join(refused)}{because} To prepare it anyway: --force")

    with replace_folder(args.out) as folder:
        digests = _write_lines(prepared, folder)
        if rewritten:
            turns = [corrections.turns(one, prepared.labels) for one in rewritten.used]
            _add_lines(prepared, folder, digests, figures, turns)
            figures["corrections"] = rewritten.figures
        if args.canaries:
            from training.preparation import canaries

            # Seed with the hash, so that nobody without the chats can compute the secrets.
            planted = canaries.draw(args.canaries, repetitions, digests[TRAIN].hexdigest())
            turns = [one.turns(prepared.labels) for one in planted]
            copies = [some for some, one in zip(turns, planted, strict=True) for _ in range(one.repetitions)]
            _add_lines(prepared, folder, digests, figures, copies)
            canaries.write(folder, planted)
            limit = recipe_of_training.sequence_len
            tokens = [checks.trained_tokens(some, prepared, tokenizer, limit) for some in turns]
            figures["canaries"] = canaries.figures(planted, tokens)
            figures["concerns"] += map(asdict, checks.planted(figures))
        hashes = {name: digest.hexdigest() for name, digest in digests.items()}
        (folder / ABOUT).write_bytes(report.encode(found.held_out))
        (folder / REPORT).write_text(json.dumps(figures, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
        cards = privacy.candidate_cards(found.candidates, prepared, args.cleaned)
        (folder / PAGE).write_text(report_page.page(prepared, figures, cards), encoding="utf-8")
        blocks = {"text": _text_block(prepared), "data": _data_block(figures, hashes)}
        if prepared.known:
            blocks["data"]["known"] = prepared.known.to_json()
        if parent:
            blocks["data"]["continues"] = parent.hashes
        artifact.write(folder, None, hashes, **blocks)
    if args.json:
        echo(json.dumps(figures, ensure_ascii=False, indent=2))
    else:
        elsewhere, alone = (report.writers(prepared.table, mine=mine) for mine in (False, True))
        unheard = [] if args.me else report.unheard(prepared)
        console.print(report.summary(figures, args.out, PAGE, elsewhere, alone, unheard, without_config))
    return 0


def _tokenizer(base: str | None, config: training_config.TrainingConfig) -> Any | None:
    """The tokenizer of --base, or of the config's base; None to estimate lengths.

    Raises ConfigError if --base is a folder or a repo without one on this disk.
    """
    if not base:
        return try_load_tokenizer(config.base_model, config.revision_of_model)
    repo, revision = training_config.base_named(base)
    try:
        return load_tokenizer(repo, revision)
    except ConfigError as error:
        if repo == base:
            raise ConfigError(f"--base {error}. Without --base, lengths are estimated") from error
        # A name of config/bases.yaml: most people prepare before they have its tokenizer.
        console.print(f"note: lengths are estimated ({error}); to count them: hf download {repo} tokenizer.json")
        return None


def prepare(
    args: argparse.Namespace, config: speakers.UserConfig, known: lineage.Known | None = None
) -> "tuple[Prepared, Kept]":
    """The data set, and what was left out of it. `known`: see Prepared.of. Raises DataError if nothing in it can be
    learnt."""
    from training.preparation import dataset, privacy, report

    messages = dataset.read(args.cleaned, config.zone)
    mine = speakers.recognise(
        config, args.me, dataset.senders(messages.table), args.user_config, speakers.owners(args.cleaned)
    )
    kept = privacy.keep(config, messages.table, mine, args.cleaned, args.user_config)
    found = dataset.Prepared.of(config, args.recipe, messages, kept.table, mine, kept.borders, known)
    if not any(found.examples.windows[: found.training]) or not any(
        map(found.has_reply, found.conversations[: found.training])
    ):
        yours, written = int(found.table["mine"].sum()), int(dataset.written_by(messages.table, mine).sum())
        advice = f"Are all your names in {args.user_config}, and were whole chats exported?"
        if yours < written:
            left_out = "; ".join(report.left_out(kept.left_out))
            advice = f"{args.user_config} leaves out {written - yours:,} messages of yours; in all {left_out}."
        raise DataError(
            f"nothing to train on: {yours:,} of {len(found.table):,} messages are yours, but no turn of yours comes "
            f"after another's within half an hour in the conversations that train. {advice}"
        )
    return found, kept


def repetitions_of(count: int, repetitions: Sequence[int] | None) -> Sequence[int]:
    """In how many lines each canary is, by default REPETITIONS. Raises UsageError on numbers that cannot be planted."""
    if repetitions is not None and not count:
        raise UsageError(f"--canary-repetitions {' '.join(map(str, repetitions))}: of no canary; add: --canaries 30")
    repetitions = repetitions or REPETITIONS
    if not 0 <= count <= MOST_CANARIES:
        raise UsageError(f"--canaries {count}: between 0 and {MOST_CANARIES:,}; 30 are enough")
    if min(repetitions) < 1:
        raise UsageError(f"--canary-repetitions {min(repetitions)}: a canary is in one line or more")
    return repetitions


def _write_lines(prepared: "Prepared", folder: Path) -> "dict[str, hashlib._Hash]":
    """Write train.jsonl and val.jsonl. Returns the SHA-256 of each, to which more can be added."""
    from training.preparation import dataset

    digests = {}
    talks = tracked([*zip(prepared.conversations, prepared.examples.by_conversation, strict=True)], "writing")
    for name, share in ((TRAIN, prepared.training), (VAL, None)):
        digest = digests[name] = hashlib.sha256()
        with (folder / name).open("wb") as stream:
            for talk, windows in islice(talks, share):
                lines = dataset.make_lines(prepared.recipe, talk.turns, windows, prepared.labels)
                stream.write(lines)
                digest.update(lines)
    return digests


def _add_lines(
    prepared: "Prepared",
    folder: Path,
    digests: "dict[str, hashlib._Hash]",
    figures: dict[str, Any],
    examples: Sequence[Sequence[Turn]],
) -> None:
    """Append training lines that are from no chat, and count them in the figures. Training shuffles."""
    from training.preparation import dataset

    lines = b"".join(dataset.line_of(turns, prepared.labels, prepared.recipe) for turns in examples)
    with (folder / TRAIN).open("ab") as stream:
        stream.write(lines)
    digests[TRAIN].update(lines)
    figures["lines"] |= {half: figures["lines"][half] + len(examples) for half in ("train", "total")}


def _text_block(prepared: "Prepared") -> dict[str, Any]:
    labels = prepared.labels
    return {
        "labels": {"me": labels.me, "other": labels.other},
        "recipe": prepared.recipe,
        "stop_sequences": labels.stop_sequences,
    }


def _data_block(figures: dict[str, Any], hashes: dict[str, str]) -> dict[str, Any]:
    shown = figures["in_examples"]  # a message in no example has no part in the model
    return {
        "counts": {
            "messages": shown["messages"],
            "conversations": shown["conversations"],
            "turns": shown["turns"],
            "own_turns": shown["your_turns"],
            "windows": figures["windows"]["total"],
            "seeds": figures["seeds"]["total"],
            "train_lines": figures["lines"]["train"],
            "val_lines": figures["lines"]["val"],
            "corrections": figures.get("corrections", {}).get("used", 0),
            "canaries": figures.get("canaries", {}).get("planted", 0),
        },
        "train_sha256": hashes[TRAIN],
        "val_sha256": hashes[VAL],
    }
