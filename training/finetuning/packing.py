"""Packed sequences: nested examples to segments, to micro-batches, to a training's steps."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ghost.errors import DataError
from training.config import TrainingConfig
from training.finetuning.data import Example, Split

# Nested windows, collapsed: what begins alike goes through the model once, and the gradient is the same.
#
# Windows of 6, 8, 10 and 12 turns that start at one turn are, without their end tokens, token prefixes of the longest
# of them. A causal model computes the same hidden states for a shared beginning, so one run of the longest serves them
# all: a token that k windows learn counts k times, and where a shorter window ends, its last token predicts two
# things, the next token and the end token. Nothing is approximated. With dropout the windows of a group share one
# mask, where one window at a time would draw a mask for each: the expectation is the same, the noise is not.

Group = list[Example]
"""Examples, shortest first, each of which is, without its last token, the beginning of the last."""


@dataclass(frozen=True, eq=False)
class Segment:
    """One run of tokens through the model, and what is learnt from it.

    ids      (length,) int32; without what follows the last place, which nothing is predicted from
    places   (targets,) int32; the hidden state at `places[i]` is to predict `labels[i]`
    labels   (targets,) int32
    weights  (targets,) float32; how many examples learn it
    windows  how many examples it stands for
    """

    ids: NDArray[np.int32]
    places: NDArray[np.int32]
    labels: NDArray[np.int32]
    weights: NDArray[np.float32]
    windows: int


def collapse(examples: Sequence[Example]) -> list[Group]:
    """Each example in one group. The groups' order depends on the examples, not on theirs."""
    # Big-endian, so that bytes sort as the ids do: what begins with a text follows it, and nothing stands between.
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
    """The one run that teaches what every example of the group teaches."""
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
    """Micro-batches of at most `budget` tokens each; a segment that is longer has one of its own.

    First-fit decreasing: at most 22% + 1 more of them than the fewest possible (Dósa, ESCAPE 2007).
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
    """The keyword arguments of Objective: one row of all segments, on `device`.

    input_ids, position_ids  (1, tokens) int64; positions start at 0 in each segment
    places, labels           (targets,) int64; places count from the row's start
    weights                  (targets,) float32
    lengths                  tokens of each segment, in order: where attention ends
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


# One micro-batch's run through the model: with its gradient, or without.

MicroBatch = Sequence[Segment]


def forward_backward(objective: Any, batch: MicroBatch, labels: float, *, bf16: bool) -> Any:
    """Add the micro-batch's gradient to the parameters. Gives its part of the step's loss, a float32 scalar: the sum of
    its weighted negative log-likelihoods in nats, divided by the `labels` of the whole step."""
    import torch

    device = next(objective.parameters()).device
    row = flatten(batch, device)
    row["weights"] /= labels  # in float32; a quotient of the loss would reach bfloat16 gradients rounded by up to 0.2%
    with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        loss = objective(**row)
    loss.backward()
    return loss.detach()


def token_losses(objective: Any, batch: MicroBatch, *, bf16: bool) -> Any:
    """The negative log-likelihood of each target, unweighted and without gradient: (targets,) float64, on the CPU."""
    import torch

    device = next(objective.parameters()).device
    with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        return objective.losses(**flatten(batch, device)).double().cpu().numpy()


# Which windows meet in which step: decided before training, by the data and the seed alone.
#
# So a training that was cut off knows where it stood by the number of its steps, and the ways of computing a step
# (collapsed or not, packed or one window at a time, on one device or several) all compute the same one.


@dataclass(frozen=True)
class Step:
    """One optimiser step. `windows` are what its segments stand for; `labels`, the sum of their weights, is what the
    summed loss is divided by, as if each window had gone through the model by itself."""

    epoch: int
    segments: list[Segment]
    windows: int
    labels: float


class Plan:
    """All steps of a training, `len()` of them.

    Each epoch shuffles groups of nested windows, not windows, since only siblings that meet in one step can share a
    run; a step takes groups until it has `windows_per_step` windows, splitting the last. An epoch's last step holds the
    rest. Raises DataError when there is nothing to train on.

    Of a sample it is the sample's plan: `share` says how much of the whole that is.
    """

    def __init__(self, split: Split, config: TrainingConfig) -> None:
        if not split.examples:
            raise DataError("nothing to train on")
        self._split, self._config = split, config
        self._nested = split.recipe == "windows"
        self.share = split.share

    def __len__(self) -> int:
        return sum(self.epochs)

    @cached_property
    def examples(self) -> list[int]:
        """Of each epoch; by the recipe `conversations` an epoch may be cut into more pieces than another."""
        pieces, seed = self._split.pieces, self._config.seed
        return [
            len(self._split.examples) if pieces is None else pieces.count(epoch=epoch, seed=seed)
            for epoch in range(self._config.num_epochs)
        ]

    @cached_property
    def epochs(self) -> list[int]:
        """Steps of each epoch."""
        return [-(-count // self._config.windows_per_step) for count in self.examples]

    @cached_property
    def tokens(self) -> int:
        """Tokens that go through the model in the whole training. By the recipe `conversations` about: as many in each
        epoch as in the first, though its borders move."""
        epochs = self._config.num_epochs
        if not self._nested:
            return epochs * sum(len(run.ids) for step in self._epoch(0) for run in step.segments)
        # Seven times as fast as making the segments: of a window all is read but its end token.
        steps = (groups for epoch in range(epochs) for groups in self._taken(epoch))
        return sum(len(run[-1].ids) - 1 for groups in steps for run in self._runs(groups))

    @property
    def window_tokens(self) -> int:
        """What `tokens` would be one example at a time."""
        return self._split.tokens * self._config.num_epochs

    @cached_property
    def longest(self) -> int:
        """Tokens of the longest example: no micro-batch can be made for less."""
        return max(len(example.ids) for example in self._split.examples) if self._nested else self._config.sequence_len

    def steps(self, start: int = 0) -> Iterator[Step]:
        """The steps from number `start` (from 0) on."""
        for epoch, count in enumerate(self.epochs):
            if start < count:
                yield from self._epoch(epoch)[start:]
            start = max(0, start - count)

    def _epoch(self, number: int) -> list[Step]:
        return [self._step(number, groups) for groups in self._taken(number)]

    def _taken(self, epoch: int) -> Iterator[list[Group]]:
        """The groups of each step."""
        groups = self._groups if self._nested else [[piece] for piece in self._split.epoch(epoch, self._config.seed)]
        order = np.random.default_rng([self._config.seed, epoch, 1]).permutation(len(groups))
        return _fill((groups[place] for place in order), self._config)

    @cached_property
    def _groups(self) -> list[Group]:
        return collapse(self._split.examples)

    def _runs(self, groups: Sequence[Group]) -> Sequence[Group]:
        return groups if self._config.collapse_nested_windows else [[one] for group in groups for one in group]

    def _step(self, epoch: int, groups: Sequence[Group]) -> Step:
        segments = [segment(run) for run in self._runs(groups)]
        return Step(epoch, segments, sum(map(len, groups)), float(sum(run.weights.sum() for run in segments)))


def _fill(groups: Iterator[Group], config: TrainingConfig) -> Iterator[list[Group]]:
    """Groups by the step, each step full but the last."""
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
