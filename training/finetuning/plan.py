"""Which windows meet in which step: decided before training, by the data and the seed alone.

So a training that was cut off knows where it stood by the number of its steps, and the ways of computing a step
(collapsed or not, packed or one window at a time, on one device or several) all compute the same one.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from training.errors import DataError
from training.finetuning.config import TrainingConfig
from training.finetuning.data import Split
from training.finetuning.segments import Group, Segment, collapse, segment


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
