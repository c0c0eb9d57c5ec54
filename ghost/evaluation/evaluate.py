"""`ghost evaluate`: does it sound like you? Held-out figures, beside your own variation and the base's → report/."""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ghost.atomic import refuse_foreign_files, replace_folder
from ghost.console import console, progress
from ghost.errors import ServerError, UsageError
from ghost.evaluation import authorship, memorisation, quiz, style, verdict
from ghost.evaluation.contenders import Kind, line_up
from ghost.evaluation.data import Estimate, Exchange, Learnt, read_held_out, read_learnt, sample, shots
from ghost.evaluation.likelihood import breakdowns, clusters, gain, likelihood
from ghost.evaluation.replies import Judged, check, judge, judge_served, stopping
from replicate_deployment import ghost_json
from replicate_deployment.chat_format import Labels
from replicate_deployment.errors import WeightsError
from replicate_deployment.ghost_json import Ghost
from training.config import BASE_HELP
from training.preparation import canaries
from training.preparation.prepare import TRAIN, VAL

# evaluation.json: every figure of every contender, each with its floor where the person has one. No message is in it.
#
# A function of what the contenders were asked; the page, the verdict and the terminal are functions of it.

FORMAT = 1
GHOSTS: tuple[Kind, ...] = ("merged", "adapter", "served")  # what was trained, in whichever form


def compared(
    judged: Sequence[Judged],
    exchanges: Sequence[Exchange],
    labels: Labels,
    learnt: Learnt,
    seed: int,
    heard: Sequence[Exchange] = (),
) -> dict[str, Any]:
    """Those of each contender, of the person, and what the first contender repeats of training; whether personal data
    is said is looked for in the replies of all that learnt it, and in what was `heard` besides (leaks.ask)."""
    base = next((one for one in judged if one.kind == "base"), None)
    said = [one.exchange.reply for one in judged[0].answers.said]
    ghosts = [one.exchange for ghost in judged if ghost.kind in GHOSTS for one in ghost.answers.said]
    return {
        "contenders": {one.kind: of_contender(one, base, exchanges, labels, seed) for one in judged},
        "person": of_person(exchanges, labels, seed),
        "leaks": {
            "overlap": memorisation.overlap(said, [one.reply for one in exchanges], learnt),
            "personal": memorisation.personal_figures(ghosts, heard, learnt),
        },
    }


def of_contender(
    judged: Judged, base: Judged | None, exchanges: Sequence[Exchange], labels: Labels, seed: int
) -> dict[str, Any]:
    """The figures of one; `gain` is what it is likelier by than the base, in nats a token of the same replies."""
    said = judged.answers.said
    found: dict[str, Any] = {
        "replies": len(said),
        "unanswered": judged.answers.unanswered,
        "seconds": round(judged.answers.seconds, 1),
    }
    if judged.nats is not None:
        found["likelihood"] = likelihood(exchanges, judged.nats, seed).as_json()
        found["likelihood_by"] = {
            name: {group: one.as_json() for group, one in groups.items()}
            for name, groups in breakdowns(exchanges, judged.nats, seed).items()
        }
        if base is not None and base.nats is not None and base is not judged:
            found["gain"] = vars(gain(exchanges, judged.nats, base.nats, seed))
    if judged.context is not None:
        found["context"] = asdict(judged.context)
    if not said:
        return found
    if said[0].written is not None:
        found["stopping"] = asdict(stopping(said, labels))
    found["style"] = style.as_json(style.compare(exchanges, [one.exchange for one in said], seed))
    found["authorship"] = vars(authorship_auc(exchanges, [one.exchange for one in said], seed))
    return found


def authorship_auc(exchanges: Sequence[Exchange], said: Sequence[Exchange], seed: int) -> Estimate:
    """The classifier's AUC on the answered exchanges, with conversations kept in one fold."""
    own = answered(exchanges, said)
    groups = clusters(own)
    return authorship.classifier_auc([one.reply for one in own], [one.reply for one in said], seed, (groups, groups))


def answered(exchanges: Sequence[Exchange], said: Sequence[Exchange]) -> list[Exchange]:
    """Those that `said`, which is in their order, answers: prompts that were too long have no reply."""
    left = iter(exchanges)
    return [
        next(own for own in left if (own.context, own.conversation) == (one.context, one.conversation)) for one in said
    ]


def of_person(exchanges: Sequence[Exchange], labels: Labels, seed: int) -> dict[str, Any]:
    """What the person's own held-out replies give: against half of themselves, and against those they write with.

    `themselves` is what a perfect ghost would reach; `others` what a stranger would.
    """
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
        "--base", metavar="BASE", help=f"{BASE_HELP} (default: the one it was trained on, if it is on this disk)"
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
    from ghost.evaluation.report_page import page, summary

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
        from replicate_deployment.chat_format import CONTEXT_TURNS

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
                leaking, heard = memorisation.ask(engine, exchanges, learnt, planted, args.seed)
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
            "format": FORMAT,
            "model": facts,
            "held_out": held_out_facts(exchanges, len(held_out.exchanges), args.seed),
            "missing": missing,
            **compared(judged, exchanges, held_out.ghost.labels, learnt, args.seed, heard),
        }
        found["leaks"] = {**found["leaks"], **leaking}
        found["leaks"]["above_limit"] = memorisation.above_limit(found["leaks"])
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
