"""`ghost distill`: train a small student to write as a ghost does, its teacher, by the same loop as `ghost train`.

If both have the same token ids, the student learns the teacher's probabilities: on the training lines, and after the
first epoch in some steps on replies that it samples itself to the same contexts (GKD, arXiv:2306.13649). Otherwise it
learns replies that the teacher samples beforehand, beside the person's own (Kim and Rush 2016, arXiv:1606.07947).
"""

import argparse
import dataclasses
import json
import os
import random
import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from ghost.atomic import refuse_foreign_files, replace_folder
from ghost.console import progress
from ghost.errors import UsageError
from replicate_deployment import ghost_json, model_folder
from replicate_deployment.chat_format import Labels, Recipe, Turn
from replicate_deployment.engine import Engine
from replicate_deployment.errors import PromptError
from replicate_deployment.ghost_json import Ghost
from replicate_deployment.stopping import ReplyScanner
from replicate_deployment.tokenization import Tokenizer, load_tokenizer
from training import config as training_config
from training.config import TrainingConfig
from training.finetuning import train
from training.finetuning.base import Base, Shapes, load_base, resolve_base, shapes_of
from training.finetuning.data import Example, Pieces, Split, encode_turns, measure, read_facts, read_line
from training.finetuning.hardware import forward_flops, training_flops
from training.finetuning.packing import Step, step_of
from training.finetuning.report import NEW_TOKENS, decode, distinct_2, draw, prompt_of

OWN_REPLIES = 0.25  # share of the steps after the first epoch that are on the student's own replies
BATCH = 16  # replies of the teacher at a time
ANSWERS = 2  # replies of the teacher to each context, if the student has other token ids
LOOPING = 0.5  # distinct-2 below which a reply of the teacher goes round in circles


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("teacher", type=Path, help="the ghost to learn from: a folder that `ghost merge` wrote")
    student = parser.add_mutually_exclusive_group(required=True)
    student.add_argument("--student", dest="base", metavar="BASE", help=f"train {training_config.BASE_HELP}")
    student.add_argument(
        "--layers",
        type=int,
        metavar="N",
        help="train N layers of the teacher, its first and its last; written to OUT.base",
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help=f"the training config ({training_config.DEFAULT})")
    parser.add_argument("--data", type=Path, help="folder that the teacher learnt, instead of the config's datasets")
    parser.add_argument(
        "--out", type=Path, default=Path("models/distilled"), help="write the adapter here (default: %(default)s)"
    )
    train.add_run_arguments(parser)
    parser.set_defaults(preferences=None, parent=None, private=False)


def run(args: argparse.Namespace) -> int:
    teacher = Teacher(args.teacher)
    teacher.check_data(train.config_of(args, args.out))  # before a base is written
    if args.layers is not None:
        base = args.out.with_name(args.out.name + ".base")
        if base.exists() and not (args.resume or args.overwrite):
            student = shlex.quote(str(base))
            raise UsageError(f"{base} is there already; train it: --student {student}, or write it anew: --overwrite")
        if not (args.resume and base.exists()):
            select_layers(args.teacher, args.layers, base)
        args.base = str(base)
    return train.run(args, teacher)


def select_layers(teacher: Path, count: int, out: Path) -> Path:
    """Write a base of `count` layers of the teacher, two thirds of them its first and one third its last, and of its
    other weights.

    Neighbouring layers in the middle of a decoder change its residual stream least, so these go (Gromov et al. 2024,
    arXiv:2403.17887). Of ten of SmolLM2's 30 layers, chosen so, the loss is 10.6 nats a token; evenly spaced 15.7.
    Raises UsageError if the teacher does not have more.
    """
    layers = shapes_of(str(teacher)).layers
    if not 0 < count < layers:
        raise UsageError(f"--layers {count}: the teacher has {layers}; choose from 1 to {layers - 1}")
    refuse_foreign_files(out, {path.name for path in out.iterdir()} if (out / model_folder.CONFIG).exists() else ())
    with progress(f"writing {out}"):
        model = load_base(resolve_base(str(teacher), None), nf4=False, bf16=True).half()
        last = count // 3
        places = [*range(count - last), *range(layers - last, layers)]
        kept = model.model.layers.__class__(model.model.layers[place] for place in places)
        model.model.layers, model.config.num_hidden_layers = kept, count
        if (types := getattr(model.config, "layer_types", None)) is not None:
            model.config.layer_types = [types[place] for place in places]
        with replace_folder(out) as folder:
            model.save_pretrained(folder)
            load_tokenizer(teacher).save_pretrained(folder)
    return out


class Teacher:
    """The ghost to learn from. Raises WeightsError if the folder is not a whole merged ghost."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ghost = ghost_json.read_merged(folder)
        ghost_json.verify(self.ghost)
        self.base = resolve_base(str(folder), None)
        self.shapes = shapes_of(str(folder))
        self.command = f"ghost distill {shlex.quote(str(folder))}"
        self.same_ids = True
        self.counts: dict[str, int] = {}

    def check_data(self, config: TrainingConfig) -> None:
        """Raises UsageError if the teacher did not learn these lines: what the student gives away of them could not be
        told."""
        path, val = Path(config.datasets[0].path), Path(config.test_datasets[0].path)
        if read_facts(path, val).block("data")["train_sha256"] != self.ghost.block("data").get("train_sha256"):
            raise UsageError(f"{path} is not what {self.folder} learnt; name the folder that it was trained on: --data")

    @property
    def block(self) -> dict[str, Any]:
        """For ghost.json, where it stands in training.config.distillation."""
        way = "logits" if self.same_ids else "replies"
        return {"teacher_sha256": self.base.weights_sha256, "way": way, "teacher_replies": self.counts}

    def teach(
        self,
        own: Split,
        path: Path,
        tokenizer: Tokenizer,
        data: Ghost,
        config: TrainingConfig,
        out: Path,
        output: Any,
        *,
        ask: bool,
    ) -> Split:
        """Choose the way by the tokenizers and say so. Return what the student learns: the person's own lines, and with
        other ids the teacher's replies too. Without `ask`, where `out` is finished and nothing will be trained, only
        count those that it learnt.
        """
        mine = load_tokenizer(self.folder)
        self._config, self._end = config, tokenizer.eos_token_id
        self.same_ids = mine.get_vocab() == tokenizer.get_vocab() and (mine.bos_token_id, mine.eos_token_id) == (
            tokenizer.bos_token_id,
            tokenizer.eos_token_id,
        )
        if self.same_ids:
            output.print("teaching  same token ids: the teacher's probabilities, and the student's own replies")
            return own
        lines = self._answered(path, data, out) if ask else []
        if not ask:
            learnt = ghost_json.read(out).block("training")["config"].get("distillation", {})
            self.counts = learnt.get("teacher_replies", {})
        told = ", ".join(f"{count:,} {what}" for what, count in self.counts.items())
        output.print(f"teaching  other token ids: replies of the teacher beside the person's ({told})", soft_wrap=True)
        return joined(own, lines, tokenizer, data.labels, config)

    def refuse(self, student: Base) -> None:
        """Raises UsageError if the student is the teacher."""
        if student.weights_sha256 == self.base.weights_sha256:
            raise UsageError(f"--student {student.folder}: these are the teacher's own weights; choose a smaller base")

    def memory(self, config: TrainingConfig) -> int:
        """Bytes of the teacher beside the student."""
        return self.shapes.parameters * (2 if config.bf16 else 4) if self.same_ids else 0

    def work(self, student: Shapes, config: TrainingConfig) -> float:
        """Work beside the student's training, as a share of it: the teacher's forward pass, and the student's own
        replies, each about as long as its line."""
        if not self.same_ids:
            return 0.0
        forward = forward_flops(self.shapes, config, 0) + OWN_REPLIES * forward_flops(student, config, 0)
        return forward / training_flops(student, config, 0, checkpointing=False)

    def loss(self, model: Any) -> Any:
        """The loss of the student `model`."""
        from training.finetuning import attention
        from training.finetuning.loss import DistillationLoss, SegmentLoss
        from training.finetuning.model import refuse_other_heads

        if not self.same_ids:
            return SegmentLoss(model)
        teacher = load_base(self.base, nf4=False, bf16=self._config.bf16).eval().requires_grad_(False)
        refuse_other_heads(teacher, str(self.folder))
        attention.use(teacher)
        return DistillationLoss(model, teacher)

    def replies_of_student(self, step: Step, loss: Any, number: int) -> Step:
        """Return step `number`, or after the first epoch in a share OWN_REPLIES of steps the same contexts with replies
        that the student samples now: what it samples earlier, with layers missing, teaches nothing.

        Which steps depends on the seed alone, and replies on torch's random state, so that a resumed distillation goes
        on as it would have.
        """
        if not self.same_ids:
            return step
        chance = random.Random(f"{self._config.seed} {number}").random()
        loss.own_replies = step.epoch > 0 and chance < OWN_REPLIES
        room = self._config.sequence_len - NEW_TOKENS
        found = [one.ids for example in step.examples if (one := prompt_of(example)) and len(one.ids) <= room]
        if not loss.own_replies or not found:
            loss.own_replies = False
            return step
        drawn = draw(loss, found, self._end, NEW_TOKENS, bf16=self._config.bf16, sample=True)
        examples = [own_reply(prompt, reply) for prompt, reply in zip(found, drawn, strict=True)]
        return step_of(step.epoch, [[one] for one in examples], sum(len(one.ids) for one in examples))

    def forget(self, out: Path) -> None:
        """Remove the teacher's replies, once the student has learnt them."""
        replies_of(out).unlink(missing_ok=True)

    def _answered(self, path: Path, data: Ghost, out: Path) -> list[list[Turn]]:
        """The training lines, each ANSWERS times, with the teacher's replies in place of the person's.

        Ask for BATCH at a time: a GPU reads all its weights for each token, of one reply or of many. They are kept
        beside `out` until the student is written, so that an interrupted distillation does not ask again.
        """
        import torch

        lines = path.read_text(encoding="utf-8").split("\n")[:-1]
        given = [
            read_line(line, data.labels, f"{path}, line {number}", recipe=data.recipe)
            for number, line in enumerate(lines, 1)
            for _ in range(ANSWERS)
        ]
        wanted = [
            (number, place) for number, turns in enumerate(given) for place in asked(turns, data.labels, data.recipe)
        ]
        identity = {"teacher": self.base.weights_sha256, "train.jsonl": data.block("data")["train_sha256"]}
        file = replies_of(out)
        found = read_replies(file, identity)
        file.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        with (
            os.fdopen(os.open(file, flags, 0o600), "w", encoding="utf-8") as stream,
            progress("replies of the teacher", len(wanted)) as bar,
        ):
            stream.writelines(f"{json.dumps(one, ensure_ascii=False)}\n" for one in (identity, *found))
            bar.advance(len(found))
            engine = Engine.load(self.folder, accelerate=False) if len(found) < len(wanted) else None
            while engine and len(found) < len(wanted):
                torch.manual_seed(self._config.seed + len(found))
                batch = wanted[len(found) : len(found) + BATCH]
                found += (new := replies(engine, [given[number][:place] for number, place in batch]))
                stream.writelines(f"{json.dumps(one, ensure_ascii=False)}\n" for one in new)
                stream.flush()
                bar.advance(len(new))
        self.counts = dict(Counter(why or "kept" for _, why in found))
        answered = [list(turns) for turns in given]
        for (number, place), (text, why) in zip(wanted, found, strict=True):
            if not why:
                answered[number][place] = Turn(data.labels.me, text)
        return [new for new, old in zip(answered, given, strict=True) if new != old]


def read_replies(file: Path, identity: dict[str, str]) -> list[tuple[str, str]]:
    """Whole batches of replies that were asked for before; empty if there are none to these lines."""
    try:
        header, *found = map(json.loads, file.read_text(encoding="utf-8").split("\n")[:-1])
    except (OSError, ValueError):
        return []
    if header != identity:
        return []
    return [(text, why) for text, why in found[: len(found) // BATCH * BATCH]]


def replies(engine: Engine, contexts: Sequence[Sequence[Turn]]) -> list[tuple[str, str]]:
    """(the engine's reply, why it teaches nothing; empty if it does) to each context."""
    most, end = engine.settings.max_new_tokens, engine.tokenizer.eos_token_id
    prompts: dict[int, list[int]] = {}
    for number, turns in enumerate(contexts):
        with suppress(PromptError):
            prompts[number] = engine.prompt_ids(turns, most)
    found = [("", "too long to ask")] * len(contexts)
    if not prompts:
        return found
    drawn = decode(engine.model, list(prompts.values()), end, most, temperature=engine.settings.temperature)
    for number, (*ids, last) in zip(prompts, drawn, strict=True):
        scanner = ReplyScanner(engine.ghost.stop_sequences, engine.labels)
        written = b"".join(engine.token_bytes[one] for one in ids).decode("utf-8", "ignore")
        text = scanner.feed(written) + scanner.finish()
        ended = last == end and scanner.stopped is None
        found[number] = text, fault(text, contexts[number][-1].text) if ended else "dropped because they run on"
    return found


def replies_of(out: Path) -> Path:
    return out.with_name(out.name + ".teacher.jsonl")


def asked(turns: Sequence[Turn], labels: Labels, recipe: Recipe) -> Iterator[int]:
    """Places of the turns that the teacher answers anew: those that the recipe teaches and that answer somebody."""
    first = len(turns) - 1 if recipe == "windows" else 1
    for place in range(first, len(turns)):
        if turns[place].label == labels.me != turns[place - 1].label:
            yield place


def fault(text: str, said: str) -> str:
    """Why a reply of the teacher that ends by itself teaches nothing; empty if it does."""
    variety = distinct_2([text])
    if not text or text == said or (variety is not None and variety < LOOPING):
        return "dropped as empty, a loop or an echo"
    return ""


def own_reply(prompt: Sequence[int], reply: Sequence[int]) -> Example:
    """The example that teaches this reply."""
    learnt = np.arange(len(prompt) + len(reply)) >= len(prompt)
    return Example(np.array([*prompt, *reply], dtype=np.int32), learnt, learnt)


def joined(
    own: Split, lines: Sequence[Sequence[Turn]], tokenizer: Tokenizer, labels: Labels, config: TrainingConfig
) -> Split:
    """The person's lines and the teacher's, of which only the replies are learnt."""
    if own.pieces is not None:
        conversations = [*own.pieces.conversations, *(measure(tokenizer, turns, labels) for turns in lines)]
        pieces = Pieces(tokenizer, labels, conversations, config.sequence_len)
        return dataclasses.replace(own, examples=pieces.cut(), pieces=pieces)
    told = [encode_turns(tokenizer, turns, labels, recipe=own.recipe, replies_only=True) for turns in lines]
    fitting = [one for one in told if len(one.ids) <= config.sequence_len]
    return dataclasses.replace(own, examples=[*own.examples, *fitting])
