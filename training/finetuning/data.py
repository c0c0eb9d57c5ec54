"""Read train.jsonl and val.jsonl into examples: token ids, and which of them are learnt."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ghost.console import tracked
from ghost.errors import DataError
from replicate_deployment import ghost_json
from replicate_deployment.chat_format import Labels, Recipe, Turn, parse_line, render, render_line, spans
from replicate_deployment.errors import PromptError, WeightsError
from replicate_deployment.tokenization import Tokenizer, encode
from training.config import TrainingConfig
from training.tokens import fit_window


@dataclass(frozen=True, eq=False)
class Example:
    """Arrays of one length, one element per token: BOS if the base has it, the turns, an end token wherever the recipe
    puts one.

    ids     int32
    learnt  bool; whether the token is a target of the loss: never the first
    reply   bool; whether it belongs to a reply that the recipe teaches: the text after the tag, and the end token
    """

    ids: NDArray[np.int32]
    learnt: NDArray[np.bool_]
    reply: NDArray[np.bool_]


def encode_turns(
    tokenizer: Tokenizer,
    turns: Sequence[Turn],
    labels: Labels,
    *,
    recipe: Recipe,
    replies_only: bool,
    goldfish_k: int | None = None,
) -> Example:
    """Encode turns as an example. All tokens are learnt, or only the replies with `replies_only`; with `goldfish_k`,
    all of these but what `goldfish` leaves out.

    The space after a tag belongs to the reply, since a prompt ends with the bare tag.
    """
    found = spans(turns, labels, recipe=recipe)
    ids, offsets = encode(tokenizer, render(turns, labels), ends=[span.end for span in found])
    first, last = np.array(offsets).T  # token i spans characters first[i] to last[i] - 1; an end token none
    reply = np.zeros(len(ids), dtype=np.bool_)
    for start, end in found:
        reply |= (last > start) & (first < end)
        reply |= (first == end) & (last == end)
    learnt = reply.copy() if replies_only else np.ones(len(ids), dtype=np.bool_)
    learnt[0] = False
    found_ids = np.array(ids, dtype=np.int32)
    if goldfish_k is not None:
        tags = accumulate((len(render([turn], labels)) + 1 for turn in turns[:-1]), initial=0)
        texts = [start + len(turn.label) for start, turn in zip(tags, turns, strict=True)]
        left_out = goldfish(found_ids, np.searchsorted(last, texts, side="right"), goldfish_k)
        learnt &= ~left_out | (found_ids == tokenizer.eos_token_id)
    return Example(found_ids, learnt, reply)


# Goldfish loss (Hans et al. 2024, arXiv:2406.10209): leave one token in k out of the loss, chosen by a hash of the h
# tokens before it, so that wherever a text is repeated the same tokens are missing, and greedy decoding goes wrong at
# them. It lowers what a model can recite. The missing tokens can still be guessed.
#
# A turn is in about seven windows, which start at different turns, and in a seed. What one of them leaves out, all must
# leave out, or nothing is gained. So the h tokens reach back no further than to the text of the turn before, which
# every line has but for its first turn; there, only tokens with h tokens of that turn before them are learnt. (The
# paper's code learns the first h tokens of every row.) Short replies then depend on what they answer: with `A:` alone
# before it, the first word of every reply would have one hash, and all of them would be learnt or none.

GOLDFISH_H = 13  # the paper's: with fewer, the tokens inside common phrases would never be learnt (section 3.1)


def goldfish(ids: NDArray[np.int32], texts: NDArray[np.int64], k: int) -> NDArray[np.bool_]:
    """Return which tokens to leave out, (tokens,). `texts[j]` is the index of the first token of turn j's text."""
    places = np.arange(len(ids))
    turn = np.searchsorted(texts, places, side="right") - 1  # the newline and the tag after a text belong to its turn
    reach = places - texts[np.maximum(turn - 1, 0)]
    key = np.zeros(len(ids), dtype=np.uint64)
    for lag in range(min(GOLDFISH_H, len(ids) - 1), 0, -1):
        before = np.concatenate([np.zeros(lag, np.uint64), ids[:-lag].astype(np.uint64)])
        key = np.where(lag <= reach, _mixed(key + before + np.uint64(1)), key)
    left_out: NDArray[np.bool_] = (key % np.uint64(k) == 0) | ((turn <= 0) & (reach < GOLDFISH_H))
    return left_out


def _mixed(key: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's step (Steele et al. 2014, doi:10.1145/2660193.2660195): the same on every machine."""
    key = key + np.uint64(0x9E3779B97F4A7C15)
    key = (key ^ (key >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    key = (key ^ (key >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return key ^ (key >> np.uint64(31))


# The recipe `conversations`: cut every conversation at turn borders into consecutive pieces of at most `sequence_len`
# tokens, at other places in each epoch.
#
# The first piece is filled only up to a seeded offset, so that over the epochs a turn is learnt with more and with less
# context. A model trained only on starts of conversations would not cope with a rolling context.

# Extra tokens of a piece: BOS, and the "▁" that a SentencePiece tokenizer adds at the start of a text. Others have
# neither, but a token such as ".\n" may become two where a piece ends.
EXTRA_TOKENS = 2


@dataclass(frozen=True)
class Conversation:
    """`lengths[i]`: tokens of turn i in its place, with its end token and the newline after it."""

    turns: Sequence[Turn]
    lengths: Sequence[int]


def measure(tokenizer: Tokenizer, turns: Sequence[Turn], labels: Labels) -> Conversation:
    text = render(turns, labels)
    ends = [span.end for span in spans(turns, labels, recipe="conversations")]
    first = [start for start, _ in encode(tokenizer, text, ends=ends).offsets]
    if tokenizer.bos_token_id is not None:
        del first[0]
    starts = np.cumsum([0, *(len(render([turn], labels)) + 1 for turn in turns)])
    return Conversation(turns, np.diff(np.searchsorted(first, starts)).tolist())


def cut(lengths: Sequence[int], limit: int, first: int) -> list[range]:
    """Cut turns into consecutive pieces of at most `limit` tokens, the first of at most `first` unless one turn is
    longer.

    A turn longer than `limit` is left out, and no piece spans it.
    """
    pieces: list[range] = []
    start, used, room = 0, 0, first
    for turn, length in enumerate(lengths):
        if used + length > room and turn > start:
            pieces.append(range(start, turn))
            start, used, room = turn, 0, limit
        if length > limit:
            start, used, room = turn + 1, 0, limit
        used += length if start <= turn else 0
    return [*pieces, range(start, len(lengths))] if start < len(lengths) else pieces


@dataclass(frozen=True)
class Pieces:
    """The conversations of a file, measured for cutting."""

    tokenizer: Tokenizer
    labels: Labels
    conversations: Sequence[Conversation]
    sequence_len: int
    goldfish_k: int | None = None

    @property
    def _limit(self) -> int:
        return self.sequence_len - EXTRA_TOKENS

    def cut(self, *, epoch: int | None = None, seed: int = 0) -> list[Example]:
        """Return the pieces that contain a turn of the person, in file order. Without `epoch`, cut without offsets."""
        return [
            encode_turns(
                self.tokenizer,
                turns,
                self.labels,
                recipe="conversations",
                replies_only=True,
                goldfish_k=self.goldfish_k,
            )
            for turns in self._turns(epoch, seed)
        ]

    def count(self, *, epoch: int, seed: int) -> int:
        """Count the pieces that `cut` returns, without encoding them."""
        return len(self._turns(epoch, seed))

    def _turns(self, epoch: int | None, seed: int) -> list[Sequence[Turn]]:
        offsets = np.full(len(self.conversations), self._limit)
        if epoch is not None:
            offsets = np.random.default_rng([seed, epoch]).integers(1, self._limit + 1, len(self.conversations))
        found = [
            conversation.turns[piece.start : piece.stop]
            for conversation, offset in zip(self.conversations, offsets.tolist(), strict=True)
            for piece in cut(conversation.lengths, self._limit, offset)
        ]
        return [turns for turns in found if any(turn.label == self.labels.me for turn in turns)]

    def losses(self) -> tuple[int, int]:
        """Count conversations longer than a piece: those that lose nothing, and those that lose a turn too long for
        any."""
        long = [talk for talk in self.conversations if sum(talk.lengths) > self._limit]
        skipped = sum(max(talk.lengths) > self._limit for talk in long)
        return len(long) - skipped, skipped


# Lines that a sample takes together: windows of one conversation are neighbours and begin alike, so sampling them apart
# would understate how much collapses.
RUN = {"windows": 200, "conversations": 1}


@dataclass(frozen=True)
class Split:
    """What one JSONL file holds.

    recipe     `windows`: a line is an example. `conversations`: a line is cut into examples, differently in each epoch
    examples   in file order; with the recipe `conversations`, cut without an offset
    read       lines
    shortened  lines longer than `sequence_len`: windows that lost turns at the front, or conversations cut without loss
    skipped    windows left out because the reply and the turn before it are longer than `sequence_len`, or
               conversations that lost a turn longer than `sequence_len`
    share      share of the file's characters in `examples`; `shortened` and `skipped` refer to the whole file
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
        """Return the examples of epoch `number` (from 0)."""
        return self.examples if self.pieces is None else self.pieces.cut(epoch=number, seed=seed)

    @property
    def tokens(self) -> int:
        """Tokens of all examples, without collapsing nested windows."""
        return sum(len(example.ids) for example in self.examples)

    @property
    def learnt(self) -> int:
        """Tokens that count in the loss."""
        return sum(int(example.learnt.sum()) for example in self.examples)


def read_facts(train: Path, val: Path) -> ghost_json.Ghost:
    """Read the ghost.json beside both files, and check their hashes against it.

    Raises DataError if a file is missing or was changed after `ghost prepare`.
    """
    for path in (val, train):  # `ghost evaluate` is told the first alone
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
    """Read the whole file, or a sample of about `at_most` characters.

    Raises DataError naming the first line that `ghost prepare` would not have written.
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
"""Lines with their numbers in the file."""


def _sample(lines: Lines, share: float, run: int) -> Lines:
    """Take about this share of the lines, in runs of neighbours, evenly spaced over the file."""
    runs = [lines[start : start + run] for start in range(0, len(lines), run)]
    count = max(1, round(share * len(runs)))
    return [line for place in range(count) for line in runs[int((place + 0.5) * len(runs) / count)]]


def _characters(lines: Lines) -> int:
    return sum(len(line) for _, line in lines)


def _read_windows(path: Path, lines: Lines, tokenizer: Tokenizer, labels: Labels, config: TrainingConfig) -> Split:
    examples: list[Example] = []
    shortened = skipped = 0

    def encode_window(turns: Sequence[Turn]) -> Example:
        return encode_turns(
            tokenizer,
            turns,
            labels,
            recipe="windows",
            replies_only=not config.train_on_inputs,
            goldfish_k=config.goldfish_k,
        )

    def count_tokens(turns: Sequence[Turn]) -> int:
        return len(encode(tokenizer, render(turns, labels), end=True).ids)

    for number, line in tracked(lines, f"tokenising {path.name}"):
        turns = read_line(line, labels, f"{path}, line {number}", recipe="windows")
        example = encode_window(turns)
        if len(example.ids) > config.sequence_len:
            kept = fit_window(turns, count_tokens, config.sequence_len)
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
    for number, line in tracked(lines, f"tokenising {path.name}"):
        turns = read_line(line, labels, f"{path}, line {number}", recipe="conversations")
        conversations.append(measure(tokenizer, turns, labels))
    pieces = Pieces(tokenizer, labels, conversations, config.sequence_len, config.goldfish_k)
    shortened, skipped = pieces.losses()
    return Split("conversations", pieces.cut(), len(lines), shortened, skipped, pieces)


def read_line(line: str, labels: Labels, where: str, *, recipe: Recipe) -> list[Turn]:
    """Parse a line of `ghost prepare`: a window, whose last turn is a reply, or a conversation.

    Raises DataError, beginning with `where`, on any other line.
    """
    try:
        text = json.loads(line)["text"]
        turns = parse_line(text, labels, recipe=recipe)
    except (ValueError, KeyError, TypeError, AttributeError, PromptError) as error:
        why = error if isinstance(error, PromptError) else type(error).__name__
        raise DataError(f"{where}: not written by ghost prepare ({why})") from error
    if recipe == "windows":
        shape, right = f"turns that end in a reply of {labels.me}", len(turns) > 1 and turns[-1].label == labels.me
    else:
        shape, right = f"turns of which one is {labels.me}'s", any(turn.label == labels.me for turn in turns)
    if not right or render_line(turns, labels, recipe=recipe) != text:
        raise DataError(f"{where}: not {shape}; write it with ghost prepare")
    return turns
