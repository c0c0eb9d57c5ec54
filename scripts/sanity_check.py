"""`ghost check`: is this model folder whole, the one that was merged, and able to end a reply?"""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from replicate_deployment import ghost_json
from replicate_deployment.chat_format import render_prompt
from replicate_deployment.errors import GhostError, WeightsError
from replicate_deployment.ghost_json import Ghost
from replicate_deployment.tokenization import Tokenizer, encode, load_tokenizer
from scripts.test_model import ENDS, PROMPTS, answer, conversation, summarise
from scripts.weights import Weights
from training.console import console, progress

if TYPE_CHECKING:
    from replicate_deployment.engine import Engine


@dataclass(frozen=True)
class Outcome:
    name: str
    ok: bool
    detail: str


class Subject:
    """The folder under test; each part is loaded when a check first asks for it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def ghost(self) -> Ghost:
        return ghost_json.read(self.folder)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        return load_tokenizer(self.folder)

    @cached_property
    def engine(self) -> "Engine":
        from replicate_deployment.engine import Engine

        return Engine.load(self.folder, hashes=False)  # `files` has hashed them


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("model", type=Path, nargs="?", default=Path("models/merged"), help="default: %(default)s")
    parser.add_argument("--json", action="store_true", help="print the outcomes as JSON")


def run(args: argparse.Namespace) -> int:
    outcomes = []
    for outcome in inspect(Subject(args.model)):
        outcomes.append(outcome)
        if not args.json:
            console.print(f"{'ok  ' if outcome.ok else 'FAIL'}  {outcome.name:<15}  {outcome.detail}", soft_wrap=True)
    ok = all(outcome.ok for outcome in outcomes)
    if args.json:
        document = {"model": str(args.model), "ok": ok, "checks": [asdict(outcome) for outcome in outcomes]}
        print(json.dumps(document, ensure_ascii=False, indent=2))
    return 0 if ok else 1


def inspect(subject: Subject) -> Iterator[Outcome]:
    """One outcome per check. A failure does not hide the checks after it, unless there is no model left to ask."""
    for name, check in CHECKS.items():
        try:
            yield Outcome(name, True, check(subject))
        except GhostError as error:
            yield Outcome(name, False, str(error))
            if check in (files, golden, logits):  # not a model, not one that loads, not one that can be sampled
                return


def files(subject: Subject) -> str:
    with progress("hashing"):
        ghost_json.verify(subject.ghost)
    return f"{len(subject.ghost.block('files'))} files as ghost.json lists them"


def dtype(subject: Subject) -> str:
    with Weights.of_model(subject.folder) as weights:
        other = {name: dtype for name, dtype in weights.dtypes.items() if dtype != "F16"}
    if other:
        name, found = next(iter(other.items()))
        raise WeightsError(f"{len(other)} of {len(weights.dtypes)} tensors are not F16, first {name} ({found})")
    return f"{len(weights.dtypes)} tensors, all F16"


def special_tokens(subject: Subject) -> str:
    """A lost or different end token is what makes a model talk on."""
    tokenizer = subject.tokenizer
    for key in ("bos_token_id", "eos_token_id"):
        ids = {"tokenizer": getattr(tokenizer, key)}
        ids |= {name: _json(subject.folder / name).get(key) for name in ("config.json", "generation_config.json")}
        if len(set(map(repr, ids.values()))) > 1:
            raise WeightsError(f"{key} differs: " + ", ".join(f"{name} says {value}" for name, value in ids.items()))
    if tokenizer.pad_token_id == tokenizer.eos_token_id:
        raise WeightsError("the pad token is the end token, so training would have masked the end of every reply")
    return (
        f"BOS {tokenizer.bos_token_id} and end token {tokenizer.eos_token_id}, "
        "the same in tokenizer, config and generation config"
    )


def newline(subject: Subject) -> str:
    ids = encode(subject.tokenizer, "x\ny").ids
    token = subject.tokenizer.convert_tokens_to_ids("<0x0A>")
    if token == subject.tokenizer.unk_token_id or ids.count(token) != 1:
        raise WeightsError("a newline is not the one token <0x0A>; turns could not be told apart as in training")
    return f"one token, id {token}"


def prefix(subject: Subject) -> str:
    """Else the model would be asked to go on from ids that it has never seen in training."""
    labels = subject.ghost.labels
    for name, texts in PROMPTS.items():
        prompt = render_prompt(conversation(texts, labels), labels)
        asked, trained = encode(subject.tokenizer, prompt).ids, encode(subject.tokenizer, f"{prompt} ok 😂").ids
        if trained[: len(asked)] != asked:
            raise WeightsError(f"prompt '{name}': its ids are not the first ids of prompt + reply")
    return f"the ids of {len(PROMPTS)} prompts begin those of prompt + reply"


def golden(subject: Subject) -> str:
    block, device = subject.engine.ghost.block("golden"), subject.engine.model.device
    return f"loads on {device}; {len(block['ids'])} ids, 5 log-probabilities within {block['tolerance']:g} nats"


def logits(subject: Subject) -> str:
    import torch

    engine, positions = subject.engine, 0
    for name, texts in PROMPTS.items():
        ids = encode(engine.tokenizer, render_prompt(conversation(texts, engine.labels), engine.labels)).ids
        with torch.inference_mode():
            scores = engine.model(input_ids=torch.tensor([ids], device=engine.model.device), use_cache=False).logits
        if not torch.isfinite(scores).all():
            raise WeightsError(f"prompt '{name}': NaN or infinite logits")
        positions += len(ids)
    return f"finite at {positions} positions"


def endings(subject: Subject) -> str:
    """How replies end; that none goes on past a stop sequence is the check, how many end by themselves a figure."""
    engine = subject.engine
    details = []
    for mode, settings in (("greedy", engine.settings.replace(temperature=0.0)), ("sampled", engine.settings)):
        answers = []
        with progress(f"{mode} replies", total=len(PROMPTS)) as bar:
            for seed, texts in enumerate(PROMPTS.values()):
                answers.append(answer(engine, conversation(texts, engine.labels), settings, seed))
                bar.advance()
        figures = summarise(answers)
        if figures["leaked"]:
            raise WeightsError(f"{figures['leaked']} of {len(answers)} {mode} replies go on past a stop sequence")
        ended = ", ".join(f"{count} {ENDS[reason]}" for reason, count in figures["ended"].items() if count)
        details.append(f"{mode}: {ended}")
    return "; ".join(details)


CHECKS: dict[str, Callable[[Subject], str]] = {
    "files": files,
    "dtype": dtype,
    "special tokens": special_tokens,
    "newline": newline,
    "prompt prefix": prefix,
    "golden prompt": golden,
    "logits": logits,
    "endings": endings,
}


def _json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise WeightsError(f"{path}: cannot be read ({type(error).__name__}); copy the folder again") from error


if __name__ == "__main__":
    from training.cli import main

    sys.exit(main(["check", *sys.argv[1:]]))
