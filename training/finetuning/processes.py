"""A training over several GPUs, a process each, as `accelerate launch` or torchrun starts them.

The first process leads: it alone reads the data, decides, steps the optimiser, prints and writes. The others follow:
they have the same base and hold nothing that could be lost. For a step each is given the adapter as it is and some of
the micro-batches, and their gradients are summed. That is the sum of one process in another order, so losses are equal
to rounding, and a checkpoint goes on with any number of processes. It costs moving the adapter twice a step, 170 MB
for Mistral-7B at rank 16, where a step takes seconds.

Under FSDP each process keeps its part of the base's nf4 weights only and is lent the others' a layer at a time. The
adapters are left out of it: they stay whole, in float32.
"""

import math
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import numpy as np

from ghost.errors import TrainingError
from ghost.signals import handled_by
from replicate_deployment.tokenization import Tokenizer, load_tokenizer
from training.config import TrainingConfig
from training.finetuning import packing
from training.finetuning.base import Base
from training.finetuning.model import trainable
from training.finetuning.packing import MicroBatch, Segment, Step, pack

# What the processes of one training say to each other. All of them call each function, in the same order.
#
# Objects travel through gloo, which notices at once when a process is gone; tensors on GPUs through NCCL, which does
# not.


class ProcessLost(TrainingError):
    """Another process failed or is gone. The first one still has the training, as of its last finished step."""


@dataclass(frozen=True)
class Outcome:
    """What a process made of an order: its `value`, or None when memory did not suffice; or why it failed."""

    value: Any
    failure: str | None = None


@contextmanager
def raise_when_lost() -> Iterator[None]:
    """What PyTorch raises where another process is gone, in words."""
    import torch

    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise ProcessLost("another process of this training is gone") from error


def send_order(what: Any) -> Any:
    """What the first process orders, in each."""
    import torch.distributed as dist

    box = [what]
    with raise_when_lost():
        dist.broadcast_object_list(box, src=0)
    return box[0]


def gather_outcomes(mine: Outcome) -> list[Any]:
    """The value of each process, by rank. Raises ProcessLost when one failed."""
    import torch.distributed as dist

    found: list[Any] = [None] * dist.get_world_size()
    with raise_when_lost():
        dist.all_gather_object(found, mine)
    for rank, outcome in enumerate(found):
        if outcome.failure is not None:
            raise ProcessLost(f"process {rank} of {len(found)} failed: {outcome.failure}")
    return [outcome.value for outcome in found]


def broadcast_adapter(parameters: Sequence[Any]) -> None:
    """Make the first process' parameters everybody's."""
    import torch
    import torch.distributed as dist

    with torch.no_grad(), raise_when_lost():
        flat = torch.cat([parameter.reshape(-1) for parameter in parameters])
        dist.broadcast(flat, src=0)
        if dist.get_rank():
            for parameter, piece in _pieces(flat, parameters):
                parameter.copy_(piece)


def sum_gradients(parameters: Sequence[Any]) -> None:
    """Make the first process' gradients the sum of all, and leave the others none."""
    import torch
    import torch.distributed as dist

    given = [torch.zeros_like(one) if one.grad is None else one.grad for one in parameters]
    with raise_when_lost():
        flat = torch.cat([gradient.reshape(-1) for gradient in given])
        dist.reduce(flat, dst=0)
        for parameter, piece in _pieces(flat, parameters):
            parameter.grad = None if dist.get_rank() else piece


def _pieces(flat: Any, parameters: Sequence[Any]) -> list[tuple[Any, Any]]:
    """Each parameter with its part of a flat tensor, in its shape."""
    pieces = flat.split([parameter.numel() for parameter in parameters])
    return [(parameter, piece.view_as(parameter)) for parameter, piece in zip(parameters, pieces, strict=True)]


# How a step's segments and a base's weights are divided over processes.


def share(segments: Sequence[Segment], count: int) -> list[list[Segment]]:
    """A part for each of `count` processes, of about as many tokens: the longest segment first, each to whoever has
    least so far.

    The largest part has at most 4/3 of the tokens that it must have (Graham, SIAM J. Appl. Math. 17, 1969).
    """
    parts: list[list[Segment]] = [[] for _ in range(count)]
    loads = [0] * count
    for segment in sorted(segments, key=lambda segment: -len(segment.ids)):
        place = loads.index(min(loads))
        parts[place].append(segment)
        loads[place] += len(segment.ids)
    return parts


def dummy_segment(segments: Sequence[Segment]) -> Segment:
    """The shortest of them, such that nothing is learnt from it: its gradient is zero."""
    shortest = min(segments, key=lambda segment: len(segment.ids))
    return replace(shortest, weights=np.zeros_like(shortest.weights), windows=0)


def shard(model: Any) -> None:
    """FSDP2 for the frozen weights of the decoder's layers. The adapters in them, embeddings and head stay whole.

    It takes bitsandbytes' packed bytes as they are: nothing of them is reduced, so any types may meet in one layer.
    """
    from torch.distributed.fsdp import fully_shard

    decoder = model.get_base_model().model
    whole = {parameter for parameter in model.parameters() if parameter.requires_grad}
    for layer in decoder.layers:
        fully_shard(layer, ignored_params=whole)
    # The decoder around them shards nothing itself; it has the next layer fetched while one computes.
    whole |= {parameter for name, parameter in decoder.named_parameters() if not name.startswith("layers.")}
    fully_shard(decoder, ignored_params=whole)


PATIENCE = timedelta(days=1)  # the others wait while the first one downloads a base


@dataclass(frozen=True)
class Model:
    """An order of the first process to the others: make this model."""

    base: Base
    config: TrainingConfig


@dataclass(frozen=True)
class Gradients:
    """Run `batches[rank]`. Dropout follows from `seeds` and the rank. `spread`: first take over the adapter."""

    seeds: tuple[int, int]
    batches: list[list[list[Segment]]]
    labels: float
    spread: bool


@dataclass(frozen=True)
class Losses:
    """Measure `batches[rank]`, where there is one."""

    batches: list[MicroBatch]
    spread: bool


class Alone:
    """The only process of a training."""

    count = 1
    command = "ghost train"  # how it was started

    def model(self, base: Base, config: TrainingConfig, tokenizer: Tokenizer) -> Any:
        """The model to train."""
        return trainable(base, config, tokenizer)

    def use(self, objective: Any, *, bf16: bool) -> None:
        """From here on `objective` is what is computed with."""
        self._objective, self._bf16 = objective, bf16

    def begin(self, number: int, step: Step, budget: int) -> list[list[Segment]]:
        """The micro-batches of step `number` that this process is to run. The others run theirs meanwhile."""
        return pack(step.segments, budget)

    def end(self, total: Any | None) -> float | None:
        """The loss of the step, when `total` is this process' part of it, a scalar tensor. The gradients are then
        those of the whole step.

        None when memory did not suffice, here (then `total` is None) or elsewhere: then there are none to use.
        """
        return None if total is None else float(total.item())

    def losses(self, batches: Sequence[MicroBatch]) -> list[Any]:
        """`passes.losses` of each of at most `count` micro-batches. Raises OutOfMemoryError."""
        return [packing.token_losses(self._objective, batch, bf16=self._bf16) for batch in batches]


class _Member(Alone):
    """What the first of several processes and the others have in common."""

    command = "accelerate launch … -m ghost.cli train"

    def __init__(self, rank: int, count: int, *, sharded: bool) -> None:
        self.rank, self.count, self.sharded = rank, count, sharded

    def model(self, base: Base, config: TrainingConfig, tokenizer: Tokenizer) -> Any:
        model = super().model(base, config, tokenizer)
        if self.sharded:
            shard(model)
        return model

    def use(self, objective: Any, *, bf16: bool) -> None:
        super().use(objective, bf16=bf16)
        self._trained = [parameter for parameter in objective.parameters() if parameter.requires_grad]

    def end(self, total: Any | None) -> float | None:
        import torch

        if total is None:
            self._out_of_memory()
        parts = gather_outcomes(Outcome(super().end(total)))
        if None in parts:
            self._objective.zero_grad()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            return None
        sum_gradients(self._trained)
        return math.fsum(parts)

    def _out_of_memory(self) -> None:
        """Raises TrainingError when the others wait, in the midst of a layer, for this one's part of it."""
        if self.sharded:
            raise TrainingError(
                f"the memory of process {self.rank} does not suffice, and under FSDP a step cannot begin again: set a "
                "lower micro_batch_tokens, and go on from the last checkpoint with --resume"
            )


class Leader(_Member):
    """The first of several processes."""

    _spread = False  # whether the others have the adapter as it is

    def model(self, base: Base, config: TrainingConfig, tokenizer: Tokenizer) -> Any:
        self._seed = config.seed
        send_order(Model(base, config))
        return super().model(base, config, tokenizer)

    def begin(self, number: int, step: Step, budget: int) -> list[list[Segment]]:
        parts = [pack(part, budget) for part in share(step.segments, self.count)]
        if self.sharded:  # a layer is lent to all at once, so all must run equally often
            most = max(map(len, parts))
            parts = [[*part, *([[dummy_segment(step.segments)]] * (most - len(part)))] for part in parts]
        self._order(Gradients((self._seed, number), parts, step.labels, not self._spread))
        return parts[0]

    def end(self, total: Any | None) -> float | None:
        self._spread = False  # now it is the optimiser's turn
        return super().end(total)

    def losses(self, batches: Sequence[MicroBatch]) -> list[Any]:
        import torch

        given = [*batches]
        if self.sharded:
            given += [[dummy_segment(batches[0])]] * (self.count - len(batches))
        self._order(Losses(given, not self._spread))
        try:
            mine = super().losses(given[:1])[0]
        except torch.OutOfMemoryError:
            self._out_of_memory()
            mine = None
        except Exception as error:  # the others wait for an answer, and would wait for a day
            gather_outcomes(Outcome(None, (str(error).splitlines() or [repr(error)])[0]))
            raise
        found = gather_outcomes(Outcome(mine))[: len(batches)]
        if any(some is None for some in found):
            raise torch.OutOfMemoryError
        return found

    def dismiss(self) -> None:
        """Let the others end."""
        send_order(None)

    def _order(self, what: Gradients | Losses) -> None:
        send_order(what)
        if what.spread:
            broadcast_adapter(self._trained)
            self._spread = True


class Follower(_Member):
    """Any other process. A stop from outside is the first one's affair: these are still needed for its last step."""

    def follow(self) -> None:
        """Do what is ordered, to the end. Exits with code 1 when the first process is gone, which has said why."""
        with handled_by(lambda number: None):
            try:
                while (order := send_order(None)) is not None:
                    self._obey(order)
            except ProcessLost:
                sys.exit(1)

    def _obey(self, order: Model | Gradients | Losses) -> None:
        import torch

        if isinstance(order, Model):
            from training.finetuning.loss import Objective

            model = self.model(order.base, order.config, load_tokenizer(order.base.folder))
            self.use(Objective(model).train(), bf16=order.config.bf16)
            return
        if order.spread:
            broadcast_adapter(self._trained)
        found: Any = None
        try:
            found = self._gradients(order) if isinstance(order, Gradients) else self._losses(order)
        except torch.OutOfMemoryError:
            self._out_of_memory()  # else the first process says what follows from it
        except Exception as error:
            if self.sharded:
                raise
            with suppress(ProcessLost):  # itself
                gather_outcomes(Outcome(None, (str(error).splitlines() or [repr(error)])[0]))
            raise
        if isinstance(order, Gradients):
            self.end(found)
        else:
            gather_outcomes(Outcome(found))

    def _gradients(self, order: Gradients) -> Any:
        import torch

        torch.manual_seed(int(np.random.SeedSequence([*order.seeds, self.rank]).generate_state(1)[0]))
        total = torch.zeros((), device=self._trained[0].device)
        for batch in order.batches[self.rank]:
            total += packing.forward_backward(self._objective, batch, order.labels, bf16=self._bf16)
        return total

    def _losses(self, order: Losses) -> Any:
        if self.rank >= len(order.batches):
            return ()
        self._objective.eval()
        try:
            return self.losses([order.batches[self.rank]])[0]
        finally:
            self._objective.train()


@contextmanager
def joined() -> Iterator[Alone | Follower]:
    """This process' part in the training: Alone, Leader, or a Follower, which has but to `follow`.

    Raises TrainingError when there are more processes than GPUs.
    """
    launched = {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys()
    rank, count = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE")) if launched else (0, 1)
    if count == 1:
        yield Alone()
        return
    import torch
    import torch.distributed as dist

    backend = "gloo"
    if torch.cuda.is_available():
        backend, place = "cpu:gloo,cuda:nccl", int(os.environ.get("LOCAL_RANK", rank))
        if place >= torch.cuda.device_count():
            raise TrainingError(
                f"{count} processes for {torch.cuda.device_count()} GPUs; say how many: accelerate launch "
                f"--num_processes {torch.cuda.device_count()} …"
            )
        torch.cuda.set_device(place)
    sharded = os.environ.get("ACCELERATE_USE_FSDP") == "true"
    with raise_when_lost():
        dist.init_process_group(backend, timeout=PATIENCE)
    if rank:
        yield Follower(rank, count, sharded=sharded)
    else:
        leader = Leader(rank, count, sharded=sharded)
        yield leader
        leader.dismiss()
    dist.destroy_process_group()
