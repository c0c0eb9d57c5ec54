"""The recipe `conversations`: each epoch cuts every conversation at other places.

A conversation is cut at turn borders into consecutive pieces of at most `sequence_len` tokens, every turn in one piece.
The first piece is filled up to a seeded offset only, so that over the epochs a turn is learnt with more and with less
context: a model that only ever saw starts of conversations would not know what to do with a rolling one.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from replicate_deployment.chat_format import Labels, Turn, render, spans
from replicate_deployment.tokenization import Tokenizer, encode
from training.finetuning.examples import Example, encode_turns

# BOS, and what a turn that moves to the front of a text may gain: a SentencePiece tokenizer puts a "▁" there.
FIRST = 2


@dataclass(frozen=True)
class Conversation:
    """`lengths[i]`: tokens of turn i where it stands, with its end token and the newline after it."""

    turns: Sequence[Turn]
    lengths: Sequence[int]


def measure(tokenizer: Tokenizer, turns: Sequence[Turn], labels: Labels) -> Conversation:
    text = render(turns, labels)
    ends = [span.end for span in spans(turns, labels, recipe="conversations")]
    first = [start for start, _ in encode(tokenizer, text, ends=ends).offsets[1:]]
    starts = np.cumsum([0, *(len(render([turn], labels)) + 1 for turn in turns)])
    return Conversation(turns, np.diff(np.searchsorted(first, starts)).tolist())


def cut(lengths: Sequence[int], limit: int, first: int) -> list[range]:
    """Turns as consecutive pieces of at most `limit` tokens, the first of at most `first` if one turn is not more.

    A turn longer than `limit` is in no piece, and no piece reaches across it.
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
    """The conversations of a file, ready to be cut."""

    tokenizer: Tokenizer
    labels: Labels
    conversations: Sequence[Conversation]
    sequence_len: int

    @property
    def _limit(self) -> int:
        return self.sequence_len - FIRST

    def cut(self, *, epoch: int | None = None, seed: int = 0) -> list[Example]:
        """The pieces in which the person says something, in the file's order; None: without offsets."""
        return [
            encode_turns(self.tokenizer, turns, self.labels, recipe="conversations", replies_only=True)
            for turns in self._turns(epoch, seed)
        ]

    def count(self, *, epoch: int, seed: int) -> int:
        """How many pieces `cut` gives, at a fraction of its price."""
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
        """Conversations that are longer than a piece and lose nothing; those that lose a turn too long for any."""
        long = [talk for talk in self.conversations if sum(talk.lengths) > self._limit]
        skipped = sum(max(talk.lengths) > self._limit for talk in long)
        return len(long) - skipped, skipped
