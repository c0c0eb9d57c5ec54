"""From train.jsonl and val.jsonl to token ids and labels, and from those to batches."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

from replicate_deployment import ghost_json
from replicate_deployment.chat_format import Labels, Turn, parse_line, render, render_line
from replicate_deployment.errors import PromptError, WeightsError
from replicate_deployment.tokenization import Tokenizer, encode
from training.console import progress
from training.errors import DataError
from training.finetuning.config import TrainingConfig
from training.preparation.windows import fit

IGNORED = -100  # the label that PyTorch's cross-entropy leaves out


class Example(TypedDict):
    """One window. `input_ids`: BOS, text, end token. `labels`: the same ids, IGNORED where nothing is to be learnt.

    The reply is `input_ids[reply:]`, the end token included.
    """

    input_ids: list[int]
    labels: list[int]
    reply: int


@dataclass(frozen=True)
class Split:
    """The examples of one JSONL file. Of `read` windows, `shortened` lost turns at the front; `skipped` are left
    out, since their reply and the turn it answers are longer than `sequence_len`."""

    examples: list[Example]
    read: int
    shortened: int
    skipped: int

    @property
    def tokens(self) -> int:
        return sum(len(example["input_ids"]) for example in self.examples)

    @property
    def predicted(self) -> int:
        """Tokens that count in the loss. The first id is never predicted."""
        return sum(label != IGNORED for example in self.examples for label in example["labels"][1:])


def read_facts(train: Path, val: Path) -> ghost_json.Ghost:
    """The ghost.json beside both files, once they are proven to be the ones it describes.

    Raises DataError when one is missing or was changed after `ghost prepare`.
    """
    for path in (train, val):
        if not path.is_file():
            raise DataError(f"{path}: no such file; write it with: ghost prepare --out {train.parent}")
    try:
        ghost = ghost_json.read(train.parent)
        recorded, recipe = ghost.block("data"), ghost.recipe
    except WeightsError as error:
        raise DataError(f"{error}. Write the folder anew: ghost prepare --out {train.parent}") from error
    if recipe != "windows":
        raise DataError(
            f"{train.parent}: prepared as {recipe!r}, and only 'windows' is trained so far; type: "
            f"ghost prepare --recipe windows --out {train.parent}"
        )
    for path, key in ((train, "train_sha256"), (val, "val_sha256")):
        if ghost_json.sha256(path) != recorded.get(key):
            raise DataError(
                f"{path}: its SHA-256 is not the {key} of {ghost_json.NAME}; it was changed or half-copied. "
                f"Write the folder anew: ghost prepare --out {train.parent}"
            )
    return ghost


def read_split(path: Path, tokenizer: Tokenizer, labels: Labels, config: TrainingConfig) -> Split:
    """Raises DataError naming the line that is not what `ghost prepare` writes."""
    with path.open(encoding="utf-8", newline="\n") as stream:
        lines = stream.readlines()
    examples: list[Example] = []
    shortened = skipped = 0

    def count_tokens(turns: Sequence[Turn]) -> int:
        return len(encode(tokenizer, render(turns, labels), end=True).ids)

    with progress(f"tokenising {path.name}", len(lines)) as bar:
        for number, line in enumerate(lines, start=1):
            turns = read_line(line, labels, f"{path}, line {number}")
            example = encode_window(tokenizer, turns, labels, train_on_inputs=config.train_on_inputs)
            if len(example["input_ids"]) > config.sequence_len:
                kept = fit(turns, count_tokens, config.sequence_len)
                example = encode_window(tokenizer, kept, labels, train_on_inputs=config.train_on_inputs)
                fits = len(kept) > 1 and len(example["input_ids"]) <= config.sequence_len
                shortened, skipped = shortened + fits, skipped + (not fits)
                if not fits:
                    bar.advance()
                    continue
            examples.append(example)
            bar.advance()
    return Split(examples, len(lines), shortened, skipped)


def encode_window(tokenizer: Tokenizer, turns: Sequence[Turn], labels: Labels, *, train_on_inputs: bool) -> Example:
    """Ids and labels of turns whose last is the person's. Without `train_on_inputs` only the reply is learnt."""
    text = render(turns, labels)
    # The reply starts after its tag. The space there belongs to it: a prompt ends in the bare tag.
    reply_start = len(text) - len(render(turns[-1:], labels)) + len(turns[-1].label)
    ids, offsets = encode(tokenizer, text, end=True)
    reply = next(place for place, (_, end) in enumerate(offsets) if end > reply_start)
    learnt = 0 if train_on_inputs else reply
    return Example(input_ids=ids, labels=[IGNORED] * learnt + ids[learnt:], reply=reply)


def collate(examples: Sequence[Example]) -> dict[str, Any]:
    """A batch of (examples, longest length) int64 tensors, padded on the right.

    The padding is masked by length, never by its id: no id is reserved for it, so the end token is never masked.
    """
    import torch

    longest = max(len(example["input_ids"]) for example in examples)

    def pad(rows: list[list[int]], filler: int) -> torch.Tensor:
        return torch.tensor([row + [filler] * (longest - len(row)) for row in rows])

    return {
        "input_ids": pad([example["input_ids"] for example in examples], 0),
        "attention_mask": pad([[1] * len(example["input_ids"]) for example in examples], 0),
        "labels": pad([example["labels"] for example in examples], IGNORED),
    }


def read_line(line: str, labels: Labels, where: str) -> list[Turn]:
    """The turns of one window's line, the last of them a reply. Raises DataError, beginning with `where`, on others."""
    try:
        text = json.loads(line)["text"]
        turns = parse_line(text, labels, recipe="windows")
    except (ValueError, KeyError, TypeError, AttributeError, PromptError) as error:
        why = error if isinstance(error, PromptError) else type(error).__name__
        raise DataError(f"{where}: not a line of ghost prepare ({why})") from error
    if len(turns) < 2 or turns[-1].label != labels.me or render_line(turns, labels, recipe="windows") != text:
        raise DataError(f"{where}: not turns that end in a reply of {labels.me}; write it with ghost prepare")
    return turns
