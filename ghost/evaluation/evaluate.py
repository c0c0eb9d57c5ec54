"""`ghost evaluate`: does it sound like you? Held-out figures, beside your own variation and the base → report/."""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ghost.atomic import refuse_foreign_files, replace_folder
from ghost.console import console, progress
from ghost.errors import ServerError, UsageError
from ghost.evaluation import authorship, memorisation, quiz, style, verdict
from ghost.evaluation.contenders import Kind, check_others, line_up, others
from ghost.evaluation.data import Estimate, Exchange, Learnt, read_held_out, read_learnt, sample, shots
from ghost.evaluation.likelihood import breakdowns, clusters, gain, likelihood
from ghost.evaluation.prompts import labels_in
from ghost.evaluation.replies import Result, run_contender, run_served, stopping
from ghost.evaluation.report_page import page, summary
from ghost.serving.chat.conversation import parse_seed
from ghost.serving.client import SERVERS, check
from replicate_deployment import ghost_json
from replicate_deployment.chat_format import CONTEXT_TURNS, Labels
from replicate_deployment.errors import WeightsError
from replicate_deployment.ghost_json import Ghost
from training.config import BASE_HELP
from training.preparation import canaries
from training.preparation.prepare import TRAIN, VAL

# evaluation.json holds every figure of every contender, and no message. The page, the verdict and the summary are made
# of it alone.

FORMAT = 1
GHOSTS: tuple[Kind, ...] = ("merged", "adapter", "served")  # what was trained, in whichever form


def compared(
    results: Sequence[Result],
    exchanges: Sequence[Exchange],
    labels: Labels,
    learnt: Learnt,
    seed: int,
    continuations: Sequence[Exchange] = (),
) -> dict[str, Any]:
    """Figures of each contender, of the person, and of what the first contender repeats of training. Personal data is
    searched for in the replies of all that were trained, and in `continuations` (memorisation.probe)."""
    base = next((one for one in results if one.kind == "base"), None)
    said = [one.exchange.reply for one in results[0].answers.said]
    ghosts = [one.exchange for ghost in results if ghost.kind in GHOSTS for one in ghost.answers.said]
    own_labels = labels_in([*learnt.own, *(one.reply for one in exchanges)])
    return {
        "contenders": {one.kind: contender_figures(one, base, exchanges, labels, seed, own_labels) for one in results},
        "person": person_figures(exchanges, labels, seed),
        "leaks": {
            "overlap": memorisation.overlap(said, [one.reply for one in exchanges], learnt),
            "personal": memorisation.personal_figures(ghosts, continuations, learnt),
        },
    }


def contender_figures(
    result: Result,
    base: Result | None,
    exchanges: Sequence[Exchange],
    labels: Labels,
    seed: int,
    own_labels: frozenset[str] = frozenset(),
) -> dict[str, Any]:
    """The figures of one contender. `gain`: nats a token better than the base on the same replies."""
    said = result.answers.said
    found: dict[str, Any] = {
        "replies": len(said),
        "unanswered": result.answers.unanswered,
        "seconds": round(result.answers.seconds, 1),
    }
    if result.size is not None:
        drawn = sum(one.tokens or 0 for one in said)
        found["cost"] = {**result.size, "tokens_a_second": round(drawn / result.answers.seconds, 2)}
    if result.nats is not None:
        found["likelihood"] = likelihood(exchanges, result.nats, seed)
        found["likelihood_by"] = breakdowns(exchanges, result.nats, seed)
        if base is not None and base.nats is not None and base is not result:
            found["gain"] = vars(gain(exchanges, result.nats, base.nats, seed))
    if result.context is not None:
        found["context"] = result.context
    if result.ranking is not None:
        found["ranking"] = result.ranking
    if not said:
        return found
    if said[0].written is not None:
        found["stopping"] = stopping(said, labels, own_labels)
    found["style"] = style.as_json(style.compare(exchanges, [one.exchange for one in said], seed))
    found["authorship"] = vars(authorship_auc(exchanges, [one.exchange for one in said], seed))
    return found


def authorship_auc(exchanges: Sequence[Exchange], said: Sequence[Exchange], seed: int) -> Estimate:
    """The classifier's AUC on the answered exchanges, with conversations kept in one fold."""
    own = answered(exchanges, said)
    groups = clusters(own)
    return authorship.classifier_auc([one.reply for one in own], [one.reply for one in said], seed, (groups, groups))


def answered(exchanges: Sequence[Exchange], said: Sequence[Exchange]) -> list[Exchange]:
    """The exchanges that `said` answers, in order: prompts that were too long have no reply."""
    left = iter(exchanges)
    return [
        next(own for own in left if (own.context, own.conversation) == (one.context, one.conversation)) for one in said
    ]


def person_figures(exchanges: Sequence[Exchange], labels: Labels, seed: int) -> dict[str, Any]:
    """The classifier's AUC between halves of the person's held-out replies (`themselves`, a perfect ghost's figure),
    and between the person and those they write with (`others`, a stranger's); their style, for `ghost bot`."""
    own, talks = [one.reply for one in exchanges], clusters(exchanges)
    partners = [
        (turn.text, talk)
        for one, talk in zip(exchanges, talks, strict=True)
        for turn in one.context
        if turn.label == labels.other
    ]
    others = authorship.classifier_auc(
        own, [text for text, _ in partners], seed, (talks, [talk for _, talk in partners])
    )
    return {
        "authorship": {
            "themselves": vars(authorship.classifier_auc(own[::2], own[1::2], seed, (talks[::2], talks[1::2]))),
            "others": vars(others),
        },
        "style": {key: vars(one) for key, one in style.variation(exchanges).items()},
    }


def held_out_facts(exchanges: Sequence[Exchange], total: int, seed: int) -> Mapping[str, Any]:
    known = all(one.conversation >= 0 for one in exchanges)
    talks = len(set(clusters(exchanges)))
    return {
        "replies": len(exchanges),
        "of": total,
        "conversations": talks if known else None,
        "resampled": "conversations" if known and talks > 1 else "replies",
        "seed": seed,
    }


FIGURES, PAGE = "evaluation.json", "report.html"
LIVE_PAGE = "live.html"  # of `ghost bot --quality`, which compares with the figures that are replaced


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model",
        type=Path,
        nargs="?",
        default=Path("models/merged"),
        help="folder that `ghost merge` wrote (default: %(default)s)",
    )
    parser.add_argument(
        "--adapter", type=Path, help="the adapter that it was merged from (default: `adapter` beside it)"
    )
    parser.add_argument(
        "--base", metavar="BASE", help=f"{BASE_HELP} (default: the one it was trained on, if it is on this disk)"
    )
    parser.add_argument(
        "--contender",
        type=Path,
        action="append",
        default=[],
        metavar="FOLDER",
        help="also evaluate this merged ghost, on the same replies, such as a smaller one; repeat it for more",
    )
    parser.add_argument("--url", help=f"also evaluate a served model: {SERVERS}")
    parser.add_argument(
        "--val",
        type=Path,
        default=Path("data/processed") / VAL,
        help="held-out lines of `ghost prepare`, beside train.jsonl, or their folder (default: %(default)s)",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("report"), help=f"folder of {FIGURES} and {PAGE} (default: %(default)s)"
    )
    parser.add_argument(
        "--turns",
        type=int,
        default=200,
        help="use at most so many held-out replies, chosen at random (default: %(default)s)",
    )
    parser.add_argument("--seed", type=parse_seed, default=0, help="random seed (%(default)s)")
    quiz.add_arguments(parser)
    parser.add_argument("--json", action="store_true", help=f"print only {FIGURES}")


def run(args: argparse.Namespace) -> int:
    if args.turns < 1:
        raise UsageError(f"--turns {args.turns}: at least 1")
    if args.val.is_dir():
        args.val = args.val / VAL
    if args.score:
        return quiz.score(args)
    if args.blind:
        return quiz.make(args)
    refuse_foreign_files(args.out, (FIGURES, PAGE, LIVE_PAGE))
    found, exchanges, results = evaluate(args)
    text = json.dumps(found, ensure_ascii=False, indent=2) + "\n"
    with replace_folder(args.out) as folder:
        (folder / FIGURES).write_text(text, encoding="utf-8")
        (folder / PAGE).write_text(page(found, exchanges, results), encoding="utf-8")
    if args.json:
        print(text, end="")
    else:
        console.print(summary(found, args.out / PAGE))
    return 0


def evaluate(args: argparse.Namespace) -> tuple[dict[str, Any], list[Exchange], list[Result]]:
    """Return evaluation.json, the exchanges, and each contender's results on them.

    Raises DataError if too little is held out, and the model's error if no contender is left.
    """
    with progress("reading"):  # PyTorch's import too, which takes seconds
        held_out = read_held_out(args.val, CONTEXT_TURNS)
        exchanges = sample(held_out.exchanges, args.turns, args.seed)
        trained_on = args.val.with_name(TRAIN)
        learnt, planted = read_learnt(trained_on, held_out.ghost), canaries.read(args.val.parent)
    missing: dict[Kind, str] = {}
    results: list[Result] = []
    leaking: dict[str, Any] = {}
    continuations: list[Exchange] = []
    facts: dict[str, Any] = {}
    shown = shots(learnt, held_out.ghost.labels, args.seed, {canary.answer for canary in planted})
    check_others(args.contender, args.model, held_out.ghost.labels)
    if args.url is not None:
        check(args.url, args.model)
    lined_up = line_up(args.model, args.adapter, args.base, shown, missing)
    try:
        for contender in lined_up:
            engine = contender.engine
            results.append(run_contender(contender, exchanges, engine.settings, args.seed))
            if contender.kind == "merged":
                facts = model_facts(engine.ghost, held_out.ghost)
                leaking, continuations = memorisation.probe(engine, exchanges, learnt, planted, args.seed)
            del contender, engine  # free the model before the next one loads
    except WeightsError as error:
        if args.url is None or results:
            raise
        missing["merged"] = str(error)
    unlike: dict[Kind, str] = {}
    for contender in others(args.contender):
        results.append(run_contender(contender, exchanges, contender.engine.settings, args.seed))
        if contender.engine.ghost.block("data").get("val_sha256") != held_out.ghost.block("data").get("val_sha256"):
            unlike[contender.kind] = "it was trained on other data, and may have learnt these replies"
        del contender  # free the model before the next one loads
    if args.url is not None:
        try:
            results.append(run_served(args.url, args.model, exchanges, held_out.ghost.labels, args.seed))
        except ServerError as error:
            if not results:
                raise
            missing["served"] = str(error)
    with progress("comparing"):
        found = {
            "format": FORMAT,
            "model": facts,
            "held_out": held_out_facts(exchanges, len(held_out.exchanges), args.seed),
            "missing": missing,
            "unlike": unlike,
            **compared(results, exchanges, held_out.ghost.labels, learnt, args.seed, continuations),
        }
        found["leaks"] = {**found["leaks"], **leaking}
        found["leaks"]["above_limit"] = memorisation.above_limit(found["leaks"])
    return (
        {**found, "verdict": {"summary": verdict.sentences(found), "steps": verdict.steps(found)}},
        exchanges,
        results,
    )


def model_facts(model: Ghost, prepared: Ghost) -> dict[str, Any]:
    """What identifies the model, whether it was trained on, and held out from, these lines, and whether it was taught
    preferences, so that its base is the ghost before."""
    base, data, lines = model.block("base"), model.block("data"), prepared.block("data")
    return {
        "ghost_sha256": ghost_json.sha256(model.folder / ghost_json.NAME),
        "base": {key: base.get(key) for key in ("repo", "revision")},
        "recipe": model.recipe,
        "taught": "preferences" in (model.facts.get("training") or {}).get("config", {}),
        "sampling": model.block("sampling"),
        "held_out_from_it": data.get("val_sha256") == lines.get("val_sha256"),
        "train_sha256": data.get("train_sha256"),
        "learnt_by_it": data.get("train_sha256") == lines.get("train_sha256"),
    }
