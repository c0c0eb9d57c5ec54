"""Trainings on the bundled sample by each recipe, and what the models they give say on the same held-out turns."""

import dataclasses
import json
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ghost.demo import demo
from ghost.demo.exports import write_exports
from replicate_deployment import ghost_json
from replicate_deployment.chat_format import CONTEXT_TURNS, DEFAULT_LABELS, RECIPES, Recipe, Turn
from replicate_deployment.engine import Engine
from scripts.merge_lora_fp16 import merge
from training import config as training_config
from training.finetuning.base import Base
from training.finetuning.data import encode_turns, read_line
from training.merging import provenance

ROOT = Path(__file__).parents[1]
SEEDS = (42, 43, 44)
# An epoch of the windows goes through the model as 50,274 tokens, one of the conversations as 25,256: so twice as many
# epochs of these are the same work to half a per cent.
CONVERSATIONS_PER_WINDOWS = 2
RATES = (0.002, 0.004, 0.008, 0.016)
SAMPLE, OTHER = demo.SEED, demo.SEED + 1  # the same people, other chats: what learning rates are chosen by


@dataclass(frozen=True)
class Run:
    """One training and its judgement. `epochs` 0 is the base as it was, prompted in the recipe's format."""

    recipe: Recipe
    train_on_inputs: bool
    epochs: int
    learning_rate: float
    seed: int


WAYS: tuple[tuple[Recipe, bool], ...] = (("windows", True), ("windows", False), ("conversations", False))


def planned(rate: float) -> Iterator[Run]:
    """The base; then each recipe at equal epochs and at equal work."""
    for recipe, whole in (WAYS[0], WAYS[2]):
        yield Run(recipe, whole, 0, rate, SEEDS[0])
    for seed in SEEDS:
        for recipe, whole in WAYS:
            for epochs in sorted({1, equal_work(recipe)}):
                yield Run(recipe, whole, epochs, rate, seed)


def swept() -> Iterator[Run]:
    """One seed at several learning rates, the work equal."""
    for recipe, whole in WAYS:
        for rate in RATES:
            yield Run(recipe, whole, equal_work(recipe), rate, SEEDS[0])


def equal_work(recipe: Recipe) -> int:
    """The epochs that are as much work as one of the windows."""
    return CONVERSATIONS_PER_WINDOWS if recipe == "conversations" else 1


def prepare(folder: Path, base: Path, seed: int) -> None:
    """`folder/RECIPE` for both recipes, from one extraction of the demo's sample. Kept when it is there."""
    if (folder / "done").exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    sample = write_exports(folder / "raw", seed=seed, messages=demo.MESSAGES)
    user = folder / "user_config.json"
    user.write_text(json.dumps({"user_identifiers": sample.names, "timezone": sample.timezone}), encoding="utf-8")
    ghost("extract", folder / "raw", "--out", folder / "cleaned")
    for recipe in RECIPES:
        ghost(
            *("prepare", "--cleaned", folder / "cleaned", "--user-config", user, "--recipe", recipe),
            *("--config", ROOT / demo.CONFIG, "--base", base, "--out", folder / recipe),
        )
    (folder / "done").touch()


def ghost(verb: str, *flags: Any) -> None:
    if code := demo.call(verb, list(flags)):
        raise SystemExit(code)


@dataclass(frozen=True)
class Place:
    """A reply of the person that nothing was learnt from, and the turns before it, of which the last is a B:."""

    context: list[Turn]
    reply: Turn


def places(folder: Path) -> tuple[list[Place], int]:
    """Each A: turn of the held-out conversations that answers a turn of B:, with up to CONTEXT_TURNS turns before it;
    and how many others there are."""
    path, found, others = folder / "conversations" / "val.jsonl", [], 0
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        turns = read_line(line, DEFAULT_LABELS, f"{path}, line {number}", recipe="conversations")
        for place, turn in enumerate(turns):
            if turn.label == DEFAULT_LABELS.me:
                if place and turns[place - 1].label == DEFAULT_LABELS.other:
                    found.append(Place(turns[max(0, place - CONTEXT_TURNS) : place], turn))
                else:
                    others += 1
    return found, others


class Refused(Exception):
    pass


def train(run: Run, data: Path, base: Base, work: Path) -> dict[str, float]:
    """`work/merged`, the model to judge, and what training it took. Raises Refused when there is none to judge."""
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    config = dataclasses.replace(
        training_config.load(ROOT / demo.CONFIG),
        train_on_inputs=run.train_on_inputs,
        num_epochs=max(run.epochs, 1),
        learning_rate=run.learning_rate,
        seed=run.seed,
        load_best_model_at_end=False,
    )
    adapter = work / "adapter"
    merging: list[Any] = [adapter, "--base", base.folder, "--out", work / "merged"]
    if not run.epochs:
        untrained(adapter, base, config)
        merge(provenance.read_facts(adapter, run.recipe), base, work / "merged")  # the verb refuses it
        return {"steps": 0, "tokens": 0, "seconds": 0.0}
    path = work / "config.yaml"
    path.write_text(training_config.dump(config), encoding="utf-8")
    ghost("train", "--config", path, "--data", data / run.recipe, "--base", base.folder, "--out", adapter)
    if demo.call("merge", merging):
        raise Refused
    report = json.loads((adapter / "training_report.json").read_text(encoding="utf-8"))
    return {
        "steps": report["steps"],
        "tokens": report["tokens"]["computed"],
        "seconds": report["seconds"]["training"],
    }


def untrained(folder: Path, base: Base, config: training_config.TrainingConfig) -> None:
    """An adapter as training begins with: its B is zero, so that merging it changes nothing."""
    from replicate_deployment.tokenization import load_tokenizer
    from training.finetuning.model import save_adapter, trainable

    folder.mkdir()
    save_adapter(trainable(base, config, load_tokenizer(base.folder)), base, folder)


def replies(engine: Engine, found: list[Place], seed: int) -> dict[str, Any]:
    """The model's own, at its sampling defaults: to each context, and to its last turn alone."""
    return {
        name: [answer(engine, place.context[-turns:], number) for number, place in enumerate(found, start=1000 * seed)]
        for name, turns in (("history", CONTEXT_TURNS), ("alone", 1))
    }


def losses(engine: Engine, place: Place) -> tuple[float, int, float]:
    """Nats of the reply's text, its tokens, and nats of the end token after it, where serving would begin it."""
    import torch

    from replicate_deployment.tokenization import encode_prompt

    context, labels = place.context, engine.labels
    prompt = encode_prompt(engine.tokenizer, context, labels, engine.recipe)
    whole = encode_turns(
        engine.tokenizer, [*context, place.reply], labels, recipe=engine.recipe, replies_only=True
    ).ids.tolist()
    if whole[: len(prompt)] != prompt or whole[-1] != engine.tokenizer.eos_token_id:
        raise SystemExit("a prompt does not begin what training spells")
    with torch.inference_mode():
        logits = engine.model(input_ids=torch.tensor([whole[:-1]])).logits[0, len(prompt) - 1 :].float()
    nats = torch.nn.functional.cross_entropy(logits, torch.tensor(whole[len(prompt) :]), reduction="none").tolist()
    return sum(nats[:-1]), len(nats) - 1, nats[-1]


def answer(engine: Engine, turns: list[Turn], seed: int) -> tuple[str, str]:
    """(reply, why it ended)"""
    reply = engine.reply(turns, engine.settings, seed=seed)
    return "".join(reply), str(reply.finish_reason)


def do(run: Run, scratch: Path, base: Base, *, answering: bool) -> dict[str, Any]:
    """A line of runs.jsonl: trained, merged, judged; or `refused`, when the training went so far astray that the merge
    will not have it."""
    try:
        facts = train(run, scratch / "sample", base, scratch / "work")
    except Refused:
        return {"run": asdict(run), "refused": True}
    engine = Engine.load(scratch / "work" / "merged")
    found, other = (places(scratch / name)[0] for name in ("sample", "other"))
    judged = {"losses": [losses(engine, place) for place in found], "other": [losses(engine, place) for place in other]}
    return {"run": asdict(run), **facts, **judged, **(replies(engine, found, run.seed) if answering else {})}


class Runs:
    """What was run, in a file that a killed writer may have left half a line in."""

    def __init__(self, scratch: Path, base: Base, most: int | None) -> None:
        self._path, self._scratch, self._base, self._most = scratch / "runs.jsonl", scratch, base, most
        names = [scratch / "sample" / recipe / "train.jsonl" for recipe in RECIPES]
        self._identity = [*map(ghost_json.sha256, names), base.weights_sha256]
        self._lines: list[dict[str, Any]] = []
        if self._path.exists():
            whole = self._path.read_text(encoding="utf-8").rpartition("\n")[0]
            self._path.write_text(whole + "\n" * bool(whole), encoding="utf-8")
            lines = [json.loads(line) for line in whole.split("\n") if line]
            self._lines = [line for line in lines if line["identity"] == self._identity]

    def of(self, wanted: Iterable[Run], *, answering: bool) -> list[dict[str, Any]]:
        """The lines of these, in their order; those that are missing are run, while more may be."""
        found = []
        for run in wanted:
            line = next(
                (line for line in self._lines if line["run"] == asdict(run) and ("alone" in line) >= answering), None
            )
            if line is None and self._most != 0:
                self._most = None if self._most is None else self._most - 1
                line = {"identity": self._identity, **do(run, self._scratch, self._base, answering=answering)}
                self._lines.append(line)
                with self._path.open("a", encoding="utf-8") as stream:
                    stream.write(json.dumps(line, ensure_ascii=False) + "\n")
            if line is not None and answering and "refused" in line:
                raise SystemExit(f"{run} diverged, and the tables want it: change RATES")
            if line is not None:
                found.append(line)
        return found
