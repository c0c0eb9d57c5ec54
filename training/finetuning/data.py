"""From train.jsonl and val.jsonl to token ids, and to which of them are learnt."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from replicate_deployment import ghost_json
from replicate_deployment.chat_format import Labels, Recipe, Turn, parse_line, render, render_line
from replicate_deployment.errors import PromptError, WeightsError
from replicate_deployment.tokenization import Tokenizer, encode
from training.console import progress
from training.errors import DataError
from training.finetuning.config import TrainingConfig
from training.finetuning.examples import Example, encode_turns
from training.finetuning.pieces import Conversation, Pieces, measure
from training.preparation.windows import fit

# Neighbouring lines that a sample takes together. Windows that begin alike are of one conversation: a sample that tore
# them apart would find less to collapse.
RUN = {"windows": 200, "conversations": 1}


@dataclass(frozen=True)
class Split:
    """What one JSONL file holds.

    recipe     `windows`: a line is an example. `conversations`: a line is cut into examples, elsewhere in each epoch
    examples   in the file's order; by the recipe `conversations` as they are cut without an offset
    read       lines
    shortened  lines longer than `sequence_len`: a window lost turns at the front, a conversation was cut, losing none
    skipped    windows left out, since their reply and the turn it answers are longer than `sequence_len`; or
               conversations without the turns that are longer by themselves
    share      of the file's characters that `examples` stand for; `shortened` and `skipped` are of the whole file
    """

    recipe: Recipe
    examples: list[Example]
    read: int
    shortened: int
    skipped: int
    pieces: Pieces | None = None
    share: float = 1.0

    @property
    def count(self) -> int:
        """Examples of the whole file."""
        if self.share == 1:
            return len(self.examples)
        return self.read - self.skipped if self.recipe == "windows" else round(len(self.examples) / self.share)

    def epoch(self, number: int, seed: int) -> list[Example]:
        """What epoch `number` (from 0) shows."""
        return self.examples if self.pieces is None else self.pieces.cut(epoch=number, seed=seed)

    @property
    def tokens(self) -> int:
        """One example at a time, as the file spells them: what nesting and packing are measured against."""
        return sum(len(example.ids) for example in self.examples)

    @property
    def learnt(self) -> int:
        """Tokens that count in the loss."""
        return sum(int(example.learnt.sum()) for example in self.examples)


def read_facts(train: Path, val: Path) -> ghost_json.Ghost:
    """The ghost.json beside both files, once they are proven to be the ones it describes.

    Raises DataError when one is missing or was changed after `ghost prepare`.
    """
    for path in (train, val):
        if not path.is_file():
            raise DataError(f"{path}: no such file; write it with: ghost prepare --out {train.parent}")
    try:
        ghost = ghost_json.read(train.parent)
        recorded, _ = ghost.block("data"), ghost.recipe
    except WeightsError as error:
        raise DataError(f"{error}. Write the folder anew: ghost prepare --out {train.parent}") from error
    for path, key in ((train, "train_sha256"), (val, "val_sha256")):
        if ghost_json.sha256(path) != recorded.get(key):
            raise DataError(
                f"{path}: its SHA-256 is not the {key} of {ghost_json.NAME}; it was changed or half-copied. "
                f"Write the folder anew: ghost prepare --out {train.parent}"
            )
    return ghost


def read_split(
    path: Path, tokenizer: Tokenizer, ghost: ghost_json.Ghost, config: TrainingConfig, *, at_most: int | None = None
) -> Split:
    """The whole file, or of one with more than `at_most` characters a sample of about as many.

    Raises DataError naming the line that is not what `ghost prepare` writes.
    """
    with path.open(encoding="utf-8", newline="\n") as stream:
        lines = [*enumerate(stream, start=1)]
    read = _read_windows if ghost.recipe == "windows" else _read_conversations
    size = _characters(lines)
    chosen = lines if at_most is None or size <= at_most else _sample(lines, at_most / size, RUN[ghost.recipe])
    split = read(path, chosen, tokenizer, ghost.labels, config)
    if len(chosen) == len(lines):
        return split
    shortened, skipped = (round(count * len(lines) / len(chosen)) for count in (split.shortened, split.skipped))
    share = _characters(chosen) / size
    return replace(split, read=len(lines), shortened=shortened, skipped=skipped, share=share)


Lines = Sequence[tuple[int, str]]
"""With their numbers in the file."""


def _sample(lines: Lines, share: float, run: int) -> Lines:
    """About this share of them, in runs of neighbours, evenly over the file."""
    runs = [lines[start : start + run] for start in range(0, len(lines), run)]
    count = max(1, round(share * len(runs)))
    return [line for place in range(count) for line in runs[int((place + 0.5) * len(runs) / count)]]


def _characters(lines: Lines) -> int:
    return sum(len(line) for _, line in lines)


def _read_windows(path: Path, lines: Lines, tokenizer: Tokenizer, labels: Labels, config: TrainingConfig) -> Split:
    examples: list[Example] = []
    shortened = skipped = 0

    def encode_window(turns: Sequence[Turn]) -> Example:
        return encode_turns(tokenizer, turns, labels, recipe="windows", replies_only=not config.train_on_inputs)

    def count_tokens(turns: Sequence[Turn]) -> int:
        return len(encode(tokenizer, render(turns, labels), end=True).ids)

    with progress(f"tokenising {path.name}", len(lines)) as bar:
        for number, line in lines:
            turns = read_line(line, labels, f"{path}, line {number}", recipe="windows")
            example = encode_window(turns)
            bar.advance()
            if len(example.ids) > config.sequence_len:
                kept = fit(turns, count_tokens, config.sequence_len)
                example = encode_window(kept)
                if len(kept) < 2 or len(example.ids) > config.sequence_len:
                    skipped += 1
                    continue
                shortened += 1
            examples.append(example)
    return Split("windows", examples, len(lines), shortened, skipped)


def _read_conversations(
    path: Path, lines: Lines, tokenizer: Tokenizer, labels: Labels, config: TrainingConfig
) -> Split:
    conversations: list[Conversation] = []
    with progress(f"tokenising {path.name}", len(lines)) as bar:
        for number, line in lines:
            turns = read_line(line, labels, f"{path}, line {number}", recipe="conversations")
            conversations.append(measure(tokenizer, turns, labels))
            bar.advance()
    pieces = Pieces(tokenizer, labels, conversations, config.sequence_len)
    shortened, skipped = pieces.losses()
    return Split("conversations", pieces.cut(), len(lines), shortened, skipped, pieces)


def read_line(line: str, labels: Labels, where: str, *, recipe: Recipe) -> list[Turn]:
    """The turns of a line of `ghost prepare`: of a window, whose last is a reply, or of a conversation.

    Raises DataError, beginning with `where`, on others.
    """
    try:
        text = json.loads(line)["text"]
        turns = parse_line(text, labels, recipe=recipe)
    except (ValueError, KeyError, TypeError, AttributeError, PromptError) as error:
        why = error if isinstance(error, PromptError) else type(error).__name__
        raise DataError(f"{where}: not a line of ghost prepare ({why})") from error
    if recipe == "windows":
        shape, right = f"turns that end in a reply of {labels.me}", len(turns) > 1 and turns[-1].label == labels.me
    else:
        shape, right = f"turns of which one is {labels.me}'s", any(turn.label == labels.me for turn in turns)
    if not right or render_line(turns, labels, recipe=recipe) != text:
        raise DataError(f"{where}: not {shape}; write it with ghost prepare")
    return turns
