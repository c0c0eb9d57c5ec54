"""Packed sequences: from nested examples to segments, micro-batches and the steps of a training."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ghost.errors import DataError
from training.config import TrainingConfig
from training.finetuning.data import Example, Split

# Collapse nested windows: examples that begin alike go through the model once, with the same gradient.
#
# Windows of 6, 8, 10 and 12 turns that start at one turn are, without their end tokens, token prefixes of the longest.
# A causal model computes the same hidden states for a shared prefix, so one run of the longest serves them all: a token
# that k windows learn counts k times, and the last token of a shorter window predicts both the next token and the end
# token. This is exact. With dropout, the windows of a group share one mask: same expected gradient, other noise.

Group = list[Example]
"""Examples, shortest first. Each, without its last token, is a prefix of the longest."""


@dataclass(frozen=True, eq=False)
class Segment:
    """One run of tokens through the model, and what is learnt from it.

    ids      (length,) int32; cut after the last token that predicts something
    places   (targets,) int32; the hidden state at `places[i]` predicts `labels[i]`
    labels   (targets,) int32
    weights  (targets,) float32; how many examples learn the target
    windows  how many examples the segment covers
    """

    ids: NDArray[np.int32]
    places: NDArray[np.int32]
    labels: NDArray[np.int32]
    weights: NDArray[np.float32]
    windows: int


def collapse(examples: Sequence[Example]) -> list[Group]:
    """Put each example in one group. The order of groups does not depend on the order of the examples."""
    # Big-endian bytes sort as the ids do, so sequences that extend a prefix directly follow it.
    keys = sorted(((example.ids[:-1].astype(">i4").tobytes(), place) for place, example in enumerate(examples)))
    groups: list[Group] = []
    longest: bytes | None = None
    for key, place in reversed(keys):
        if longest is not None and longest.startswith(key):
            groups[-1].append(examples[place])
        else:
            groups.append([examples[place]])
            longest = key
    for group in groups:
        group.reverse()
    groups.reverse()
    return groups


def segment(group: Group) -> Segment:
    """Make the one segment that covers all examples of the group."""
    longest = group[-1]
    body = len(longest.ids) - 1
    counts = np.zeros(len(longest.ids), dtype=np.float32)
    ends: list[tuple[int, int]] = []  # of shorter examples: place in the run, id of the end token
    for example in group:
        last = len(example.ids) - 1
        counts[1:last] += example.learnt[1:last]
        if last == body:
            counts[last] += example.learnt[last]
        elif example.learnt[last]:
            ends.append((last, int(example.ids[last])))
    learnt = np.flatnonzero(counts)
    end_places, end_ids = zip(*ends, strict=True) if ends else ((), ())
    places = np.concatenate([learnt, end_places]).astype(np.int32) - 1
    labels = np.concatenate([longest.ids[learnt], end_ids]).astype(np.int32)
    weights = np.concatenate([counts[learnt], np.ones(len(ends))]).astype(np.float32)
    return Segment(longest.ids[: places.max(initial=-1) + 1], places, labels, weights, len(group))


def pack(segments: Sequence[Segment], budget: int) -> list[list[Segment]]:
    """Pack segments into micro-batches of at most `budget` tokens. A longer segment gets its own.

    First-fit decreasing: at most 11/9 of the fewest possible plus one (Dósa, ESCAPE 2007).
    """
    batches: list[list[Segment]] = []
    rooms: list[int] = []
    for segment in sorted(segments, key=lambda segment: -len(segment.ids)):
        length = len(segment.ids)
        place = next((place for place, room in enumerate(rooms) if length <= room), None)
        if place is None:
            batches.append([segment])
            rooms.append(budget - length)
        else:
            batches[place].append(segment)
            rooms[place] -= length
    return batches


def flatten(segments: Sequence[Segment], device: Any) -> dict[str, Any]:
    """Return the keyword arguments of SegmentLoss: all segments in one row, on `device`.

    input_ids, position_ids  (1, tokens) int64; positions start at 0 in each segment
    places, labels           (targets,) int64; places count from the start of the row
    weights                  (targets,) float32
    lengths                  tokens of each segment, in order
    """
    import torch

    lengths = [len(segment.ids) for segment in segments]
    starts = np.cumsum([0, *lengths[:-1]])
    positions = np.concatenate([np.arange(length) for length in lengths])
    places = np.concatenate([segment.places + start for segment, start in zip(segments, starts, strict=True)])

    def tensor(array: Any) -> torch.Tensor:
        return torch.from_numpy(array).to(device)

    return {
        "input_ids": tensor(np.concatenate([segment.ids for segment in segments]).astype(np.int64))[None],
        "position_ids": tensor(positions.astype(np.int64))[None],
        "places": tensor(places.astype(np.int64)),
        "labels": tensor(np.concatenate([segment.labels for segment in segments]).astype(np.int64)),
        "weights": tensor(np.concatenate([segment.weights for segment in segments])),
        "lengths": lengths,
    }


# Run one micro-batch through the model, with or without gradient.

MicroBatch = Sequence[Segment]


def forward_backward(segment_loss: Any, batch: MicroBatch, labels: float, *, bf16: bool) -> Any:
    """Add the micro-batch's gradient to the parameters. Return its part of the step's loss, a float32 scalar: the sum
    of its weighted negative log-likelihoods in nats, divided by the `labels` of the whole step."""
    import torch

    device = next(segment_loss.parameters()).device
    row = flatten(batch, device)
    row["weights"] /= labels  # dividing the loss instead would round bfloat16 gradients by up to 0.2%
    with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        loss = segment_loss(**row)
    loss.backward()
    return loss.detach()


def token_losses(segment_loss: Any, batch: MicroBatch, *, bf16: bool) -> Any:
    """Return the unweighted negative log-likelihood of each target in nats, without gradient: (targets,) float64,
    CPU."""
    import torch

    device = next(segment_loss.parameters()).device
    with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        return segment_loss.losses(**flatten(batch, device)).double().cpu().numpy()


# Decide before training which windows form which step, from data and seed alone. An interrupted training resumes by its
# step number, and a step is the same whether collapsed, packed or split over devices.


@dataclass(frozen=True)
class Step:
    """One optimiser step. `windows` counts the examples that its segments cover; `labels`, the sum of their weights,
    divides the summed loss, as if each window had gone through the model by itself. `examples` are those windows;
    `drawn` counts the tokens that the model ran to sample the segments, if it did."""

    epoch: int
    segments: list[Segment]
    windows: int
    labels: float
    examples: Sequence[Example] = ()
    drawn: int = 0


class Plan:
    """All steps of a training, `len()` of them.

    Each epoch shuffles groups of nested windows rather than windows, since only windows in the same step can share a
    run. A step takes groups until it has `windows_per_step` windows and splits the last group; an epoch's last step
    takes the rest. Raises DataError if there is nothing to train on.

    For a sample of the data, it plans the sample only; `share` is the sample's share of the whole. `done`: the epochs
    of the training that this one continues, whose shuffles it does not repeat.
    """

    def __init__(self, split: Split, config: TrainingConfig, done: int = 0) -> None:
        if not split.examples:
            raise DataError("nothing to train on")
        self._split, self._config, self._done = split, config, done
        self._nested = split.recipe == "windows"
        self.share = split.share

    def __len__(self) -> int:
        return sum(self.epochs)

    @cached_property
    def examples(self) -> list[int]:
        """Examples of each epoch. With the recipe `conversations`, epochs may differ."""
        pieces, seed = self._split.pieces, self._config.seed
        return [
            len(self._split.examples) if pieces is None else pieces.count(epoch=self._done + epoch, seed=seed)
            for epoch in range(self._config.num_epochs)
        ]

    @cached_property
    def epochs(self) -> list[int]:
        """Steps of each epoch."""
        return [-(-count // self._config.windows_per_step) for count in self.examples]

    @cached_property
    def tokens(self) -> int:
        """Tokens that go through the model in the whole training. With the recipe `conversations` an approximation: the
        first epoch's tokens × epochs."""
        epochs = self._config.num_epochs
        if not self._nested:
            return epochs * sum(len(run.ids) for step in self._epoch(0) for run in step.segments)
        # Seven times as fast as making the segments: a run holds all of its longest window but the last token.
        steps = (groups for epoch in range(epochs) for groups in self._taken(epoch))
        return sum(len(run[-1].ids) - 1 for groups in steps for run in self._runs(groups))

    @property
    def window_tokens(self) -> int:
        """What `tokens` would be with one example at a time."""
        return self._split.tokens * self._config.num_epochs

    @cached_property
    def longest(self) -> int:
        """Tokens of the longest example, the least that a micro-batch must hold."""
        return max(len(example.ids) for example in self._split.examples) if self._nested else self._config.sequence_len

    def steps(self, start: int = 0) -> Iterator[Step]:
        """Yield the steps from number `start` (counted from 0)."""
        for epoch, count in enumerate(self.epochs):
            if start < count:
                yield from self._epoch(epoch)[start:]
            start = max(0, start - count)

    def _epoch(self, number: int) -> list[Step]:
        return [step_of(number, self._runs(groups)) for groups in self._taken(number)]

    def _taken(self, epoch: int) -> Iterator[list[Group]]:
        """The groups of each step."""
        seed, number = self._config.seed, self._done + epoch
        groups = self._groups if self._nested else [[piece] for piece in self._split.epoch(number, seed)]
        order = np.random.default_rng([seed, number, 1]).permutation(len(groups))
        return _fill((groups[place] for place in order), self._config)

    @cached_property
    def _groups(self) -> list[Group]:
        return collapse(self._split.examples)

    def _runs(self, groups: Sequence[Group]) -> Sequence[Group]:
        return groups if self._config.collapse_nested_windows else [[one] for group in groups for one in group]


def step_of(epoch: int, runs: Sequence[Group], drawn: int = 0) -> Step:
    """The step that learns these groups, each in one run."""
    segments, examples = [segment(run) for run in runs], [one for run in runs for one in run]
    return Step(epoch, segments, len(examples), float(sum(run.weights.sum() for run in segments)), examples, drawn)


def _fill(groups: Iterator[Group], config: TrainingConfig) -> Iterator[list[Group]]:
    """Yield the groups of each step; all steps but the last are full."""
    taken: list[Group] = []
    room = config.windows_per_step
    for whole in groups:
        rest = whole
        while rest:
            part, rest = rest[:room], rest[room:]
            taken.append(part)
            room -= len(part)
            if not room:
                yield taken
                taken, room = [], config.windows_per_step
    if taken:
        yield taken
