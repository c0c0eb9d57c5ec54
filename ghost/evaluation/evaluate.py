"""`ghost evaluate`: does it sound like you? Held-out figures, beside your own variation and the base's → report/."""

import argparse
import json
from pathlib import Path
from typing import Any

from replicate_deployment import ghost_json
from replicate_deployment.errors import WeightsError
from replicate_deployment.ghost_json import Ghost
from training.aside import refuse_foreign_files, replace_folder
from training.console import console, progress
from training.errors import ServerError, UsageError
from training.evaluation import figures, leaks, quiz, verdict
from training.evaluation.contenders import Kind, line_up
from training.evaluation.data import read_held_out, read_learnt, sample, shots
from training.evaluation.exchange import Exchange
from training.evaluation.judged import Judged, judge
from training.evaluation.served import check, judge_served
from training.preparation import canaries
from training.preparation.prepare import TRAIN, VAL

FIGURES, PAGE = "evaluation.json", "report.html"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model",
        type=Path,
        nargs="?",
        default=Path("models/merged"),
        help="what `ghost merge` wrote (default: %(default)s)",
    )
    parser.add_argument("--adapter", type=Path, help="what it was merged from (default: `adapter` beside it)")
    parser.add_argument(
        "--base", metavar="PATH_OR_REPO", help="the base (default: the one it was trained on, if it is on this disk)"
    )
    parser.add_argument("--url", help="also a served model: http://HOST:PORT, or replicate:OWNER/NAME[:VERSION]")
    parser.add_argument(
        "--val",
        type=Path,
        default=Path("data/processed") / VAL,
        help="held-out lines of `ghost prepare`, beside its train.jsonl, or their folder (default: %(default)s)",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("report"), help=f"folder of {FIGURES} and {PAGE} (default: %(default)s)"
    )
    parser.add_argument(
        "--turns", type=int, default=200, help="held-out replies, drawn at random where there are more (%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="random seed (%(default)s)")
    quiz.add_arguments(parser)
    parser.add_argument("--json", action="store_true", help=f"print {FIGURES}, and nothing else")


def run(args: argparse.Namespace) -> int:
    from training.evaluation.page import page
    from training.evaluation.summary import summary

    if args.turns < 1:
        raise UsageError(f"--turns {args.turns}: at least 1")
    if args.seed < 0:
        raise UsageError(f"--seed {args.seed}: at least 0")
    if args.val.is_dir():
        args.val = args.val / VAL
    if args.score:
        return quiz.tell(args)
    if args.blind:
        return quiz.make(args)
    refuse_foreign_files(args.out, (FIGURES, PAGE))
    found, exchanges, judged = evaluate(args)
    text = json.dumps(found, ensure_ascii=False, indent=2) + "\n"
    with replace_folder(args.out) as folder:
        (folder / FIGURES).write_text(text, encoding="utf-8")
        (folder / PAGE).write_text(page(found, exchanges, judged), encoding="utf-8")
    if args.json:
        print(text, end="")
    else:
        console.print(summary(found, args.out / PAGE), soft_wrap=True)
    return 0


def evaluate(args: argparse.Namespace) -> tuple[dict[str, Any], list[Exchange], list[Judged]]:
    """evaluation.json, the exchanges that were judged, and what each contender said to them.

    Raises DataError when too little is held out, and the error of the model when no contender is left.
    """
    with progress("reading"):  # PyTorch's import too, which takes seconds
        from replicate_deployment.engine import CONTEXT_TURNS

        held_out = read_held_out(args.val, CONTEXT_TURNS)
        exchanges = sample(held_out.exchanges, args.turns, args.seed)
        trained_on = args.val.with_name(TRAIN)
        learnt, planted = read_learnt(trained_on, held_out.ghost), canaries.read(args.val.parent)
    missing: dict[Kind, str] = {}
    judged: list[Judged] = []
    leaking: dict[str, Any] = {}
    heard: list[Exchange] = []
    facts: dict[str, Any] = {}
    shown = shots(learnt, held_out.ghost.labels, args.seed, {canary.answer for canary in planted})
    if args.url is not None:
        check(args.url)
    lined_up = line_up(args.model, args.adapter, args.base, shown, missing)
    try:
        for contender in lined_up:
            engine = contender.engine
            judged.append(judge(contender, exchanges, engine.settings, args.seed))
            if contender.kind == "merged":
                facts = of_model(engine.ghost, held_out.ghost)
                leaking, heard = leaks.ask(engine, exchanges, learnt, planted, args.seed)
            del contender, engine  # or two models would be in memory while the next one loads
    except WeightsError as error:
        if args.url is None or judged:
            raise
        missing["merged"] = str(error)
    if args.url is not None:
        try:
            judged.append(judge_served(args.url, exchanges, held_out.ghost.labels, args.seed))
        except ServerError as error:
            if not judged:
                raise
            missing["served"] = str(error)
    with progress("comparing"):
        found = {
            "format": figures.FORMAT,
            "model": facts,
            "held_out": figures.held_out_facts(exchanges, len(held_out.exchanges), args.seed),
            "missing": missing,
            **figures.compared(judged, exchanges, held_out.ghost.labels, learnt, args.seed, heard),
        }
        found["leaks"] = {**found["leaks"], **leaking}
        found["leaks"]["above_limit"] = leaks.above_limit(found["leaks"])
    return {**found, "verdict": {"summary": verdict.sentences(found), "steps": verdict.steps(found)}}, exchanges, judged


def of_model(model: Ghost, prepared: Ghost) -> dict[str, Any]:
    """What identifies the model, and whether these are the lines that were held out from it and that it learnt."""
    base, data, lines = model.block("base"), model.block("data"), prepared.block("data")
    return {
        "ghost_sha256": ghost_json.sha256(model.folder / ghost_json.NAME),
        "base": {key: base.get(key) for key in ("repo", "revision")},
        "recipe": model.recipe,
        "sampling": model.block("sampling"),
        "held_out_from_it": data.get("val_sha256") == lines.get("val_sha256"),
        "learnt_by_it": data.get("train_sha256") == lines.get("train_sha256"),
    }
