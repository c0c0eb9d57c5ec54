"""Train on several GPUs, with one process each, started by `accelerate launch` or torchrun.

The first process leads: it alone reads data, decides, steps the optimiser, prints and writes. The others hold the same
base and nothing that could be lost. For each step they receive the adapter and some of the micro-batches, and the
gradients are summed. This is the sum of one process in another order, so losses are equal to rounding, and a checkpoint
continues with any number of processes. It moves the adapter twice per step: 170 MB for Mistral-7B at rank 16, while a
step takes seconds.

Under FSDP each process keeps a shard of the base's nf4 weights and receives the others' one layer at a time. The
adapters stay whole, in float32.
"""

import math
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, NoReturn

import numpy as np

from ghost.errors import TrainingError
from ghost.signals import handled_by
from replicate_deployment.errors import first_line
from replicate_deployment.tokenization import Tokenizer, load_tokenizer
from training.config import TrainingConfig
from training.finetuning import packing
from training.finetuning.base import Base
from training.finetuning.model import trainable
from training.finetuning.packing import MicroBatch, Segment, Step, pack

# Communication. All processes call each function, in the same order. Objects travel through gloo, which notices at once
# when a process is gone; tensors on GPUs through NCCL, which does not.


class ProcessLost(TrainingError):
    """Another process failed or is gone. The first one still has the state of the last finished step."""


@contextmanager
def raise_when_lost() -> Iterator[None]:
    """Translate PyTorch's error when another process is gone."""
    import torch

    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise ProcessLost("another process of this training is gone") from error


def send_order(what: Any) -> Any:
    """Broadcast the first process's order, None to end. Return it in every process."""
    import torch.distributed as dist

    box = [what]
    with raise_when_lost():
        dist.broadcast_object_list(box, src=0)
    return box[0]


def gather(value: Any, failure: Exception | None = None) -> list[Any]:
    """Return each process's result of an order, by rank; None where memory ran out.

    Raises ProcessLost if one failed.
    """
    import torch.distributed as dist

    found: list[Any] = [None] * dist.get_world_size()
    with raise_when_lost():
        dist.all_gather_object(found, (value, failure and first_line(failure)))
    for rank, (_, why) in enumerate(found):
        if why is not None:
            raise ProcessLost(f"process {rank} of {len(found)} failed: {why}")
    return [value for value, _ in found]


def broadcast_adapter(parameters: Sequence[Any]) -> None:
    """Copy the first process's parameters to all others."""
    import torch
    import torch.distributed as dist

    with torch.no_grad(), raise_when_lost():
        flat = torch.cat([parameter.reshape(-1) for parameter in parameters])
        dist.broadcast(flat, src=0)
        if dist.get_rank():
            for parameter, piece in _pieces(flat, parameters):
                parameter.copy_(piece)


def sum_gradients(parameters: Sequence[Any]) -> None:
    """Sum the gradients in the first process, and clear those of the others."""
    import torch
    import torch.distributed as dist

    given = [torch.zeros_like(one) if one.grad is None else one.grad for one in parameters]
    with raise_when_lost():
        flat = torch.cat([gradient.reshape(-1) for gradient in given])
        dist.reduce(flat, dst=0)
        for parameter, piece in _pieces(flat, parameters):
            parameter.grad = None if dist.get_rank() else piece


def _pieces(flat: Any, parameters: Sequence[Any]) -> list[tuple[Any, Any]]:
    """Pair each parameter with its part of a flat tensor, in its shape."""
    pieces = flat.split([parameter.numel() for parameter in parameters])
    return [(parameter, piece.view_as(parameter)) for parameter, piece in zip(parameters, pieces, strict=True)]


# Divide a step's segments and a base's weights over the processes.


def share(segments: Sequence[Segment], count: int) -> list[list[Segment]]:
    """Divide segments over `count` processes by tokens: the longest segment first, each to the process with the fewest.

    The largest part has at most 4/3 of the tokens of the best division (Graham, SIAM J. Appl. Math. 17, 1969).
    """
    parts: list[list[Segment]] = [[] for _ in range(count)]
    loads = [0] * count
    for segment in sorted(segments, key=lambda segment: -len(segment.ids)):
        place = loads.index(min(loads))
        parts[place].append(segment)
        loads[place] += len(segment.ids)
    return parts


def dummy_segment(segments: Sequence[Segment]) -> Segment:
    """Return the shortest segment with all weights zero, so that its gradient is zero."""
    shortest = min(segments, key=lambda segment: len(segment.ids))
    return replace(shortest, weights=np.zeros_like(shortest.weights), windows=0)


def shard(model: Any) -> None:
    """Shard the frozen weights of the decoder's layers by FSDP2. Adapters, embeddings and head stay whole.

    bitsandbytes' packed bytes need no conversion: FSDP reduces no gradient of them, so a layer may mix dtypes.
    """
    from torch.distributed.fsdp import fully_shard

    decoder = model.get_base_model().model
    whole = {parameter for parameter in model.parameters() if parameter.requires_grad}
    for layer in decoder.layers:
        fully_shard(layer, ignored_params=whole)
    # Wrapping the decoder shards nothing more, but prefetches the next layer while one computes.
    whole |= {parameter for name, parameter in decoder.named_parameters() if not name.startswith("layers.")}
    fully_shard(decoder, ignored_params=whole)


TIMEOUT = timedelta(days=1)  # the others wait while the first one downloads a base


@dataclass(frozen=True)
class Model:
    """Order: build this model."""

    base: Base
    config: TrainingConfig


@dataclass(frozen=True)
class Gradients:
    """Order: run `batches[rank]`, with dropout seeded by `seeds` and the rank. `spread`: receive the adapter first."""

    seeds: tuple[int, int]
    batches: list[list[list[Segment]]]
    labels: float
    spread: bool


@dataclass(frozen=True)
class Losses:
    """Order: measure `batches[rank]`, if there is one. `spread`: receive the adapter first."""

    batches: list[MicroBatch]
    spread: bool


class Alone:
    """The only process of a training."""

    count = 1
    sharded = False  # whether each process holds a shard of the base
    command = "ghost train"  # how the training was started

    def model(self, base: Base, config: TrainingConfig, tokenizer: Tokenizer) -> Any:
        """Build the model to train."""
        return trainable(base, config, tokenizer)

    def use(self, segment_loss: Any, *, bf16: bool) -> None:
        """Compute with `segment_loss` from now on."""
        self._segment_loss, self._bf16 = segment_loss, bf16

    def begin(self, number: int, step: Step, budget: int) -> list[list[Segment]]:
        """Return the micro-batches of step `number` for this process. The other processes start on theirs."""
        return pack(step.segments, budget)

    def end(self, total: Any | None) -> float | None:
        """Return the loss of the step and sum its gradients over all processes. `total` is this process's part, a
        scalar.

        Return None, without gradients, if memory ran out here (pass None as `total`) or elsewhere.
        """
        return None if total is None else float(total.item())

    def losses(self, batches: Sequence[MicroBatch]) -> list[Any]:
        """Return `packing.token_losses` of at most `count` micro-batches. Raises OutOfMemoryError."""
        return [packing.token_losses(self._segment_loss, batch, bf16=self._bf16) for batch in batches]


class _Member(Alone):
    """The common part of Leader and Follower."""

    command = "accelerate launch … -m ghost.cli train"

    def __init__(self, rank: int, count: int, *, sharded: bool) -> None:
        self.rank, self.count, self.sharded = rank, count, sharded

    def model(self, base: Base, config: TrainingConfig, tokenizer: Tokenizer) -> Any:
        model = super().model(base, config, tokenizer)
        if self.sharded:
            shard(model)
        return model

    def use(self, segment_loss: Any, *, bf16: bool) -> None:
        super().use(segment_loss, bf16=bf16)
        self._trained = [parameter for parameter in segment_loss.parameters() if parameter.requires_grad]

    def end(self, total: Any | None) -> float | None:
        import torch

        if total is None:
            self._out_of_memory()
        parts = gather(super().end(total))
        if None in parts:
            self._segment_loss.zero_grad()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            return None
        sum_gradients(self._trained)
        return math.fsum(parts)

    def _out_of_memory(self) -> None:
        """Raises TrainingError under FSDP, where the others wait in the middle of a layer for this process."""
        if self.sharded:
            raise TrainingError(
                f"process {self.rank} ran out of memory, and under FSDP a step cannot be repeated: lower "
                "micro_batch_tokens, and continue from the last checkpoint with --resume"
            )


class Leader(_Member):
    """The first of several processes."""

    _spread = False  # whether the others have the current adapter

    def model(self, base: Base, config: TrainingConfig, tokenizer: Tokenizer) -> Any:
        self._seed = config.seed
        send_order(Model(base, config))
        return super().model(base, config, tokenizer)

    def begin(self, number: int, step: Step, budget: int) -> list[list[Segment]]:
        parts = [pack(part, budget) for part in share(step.segments, self.count)]
        if self.sharded:  # layers are gathered by all at once, so all must run equally many batches
            most = max(map(len, parts))
            parts = [[*part, *([[dummy_segment(step.segments)]] * (most - len(part)))] for part in parts]
        self._order(Gradients((self._seed, number), parts, step.labels, not self._spread))
        return parts[0]

    def end(self, total: Any | None) -> float | None:
        self._spread = False  # the optimiser changes the adapter next
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
        except Exception as error:  # else the others would wait for a day
            gather(None, error)
            raise
        found = gather(mine)[: len(batches)]
        if any(some is None for some in found):
            raise torch.OutOfMemoryError
        return found

    def _order(self, what: Gradients | Losses) -> None:
        send_order(what)
        if what.spread:
            broadcast_adapter(self._trained)
            self._spread = True


class Follower(_Member):
    """Any other process. It ignores signals: the first process handles them and still needs it for the last step."""

    def follow(self) -> None:
        """Follow orders to the end. Exit with code 1 if the first process is gone; it has printed why."""
        with handled_by(lambda number: None):
            try:
                while (order := send_order(None)) is not None:
                    self._obey(order)
            except ProcessLost:
                sys.exit(1)

    def _obey(self, order: Model | Gradients | Losses) -> None:
        import torch

        if isinstance(order, Model):
            from training.finetuning.loss import SegmentLoss

            model = self.model(order.base, order.config, load_tokenizer(order.base.folder))
            self.use(SegmentLoss(model).train(), bf16=order.config.bf16)
            return
        if order.spread:
            broadcast_adapter(self._trained)
        found: Any = None
        try:
            found = self._gradients(order) if isinstance(order, Gradients) else self._losses(order)
        except torch.OutOfMemoryError:
            self._out_of_memory()  # without FSDP the first process decides what to do
        except Exception as error:
            if self.sharded:
                raise
            with suppress(ProcessLost):  # itself
                gather(None, error)
            raise
        if isinstance(order, Gradients):
            self.end(found)
        else:
            gather(found)

    def _gradients(self, order: Gradients) -> Any:
        import torch

        torch.manual_seed(int(np.random.SeedSequence([*order.seeds, self.rank]).generate_state(1)[0]))
        total = torch.zeros((), device=self._trained[0].device)
        for batch in order.batches[self.rank]:
            total += packing.forward_backward(self._segment_loss, batch, order.labels, bf16=self._bf16)
        return total

    def _losses(self, order: Losses) -> Any:
        if self.rank >= len(order.batches):
            return ()
        self._segment_loss.eval()
        try:
            return self.losses([order.batches[self.rank]])[0]
        finally:
            self._segment_loss.train()


@contextmanager
def joined() -> Iterator[Alone | Follower]:
    """Join the training and yield this process's part: Alone, Leader, or Follower (call its `follow`).

    Raises TrainingError if there are more processes than GPUs.
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
                f"{count} processes for {torch.cuda.device_count()} GPUs; start as many as GPUs: accelerate launch "
                f"--num_processes {torch.cuda.device_count()} …"
            )
        torch.cuda.set_device(place)
    sharded = os.environ.get("ACCELERATE_USE_FSDP") == "true"
    with raise_when_lost():
        dist.init_process_group(backend, timeout=TIMEOUT)
    if rank:
        yield Follower(rank, count, sharded=sharded)
    else:
        leader = Leader(rank, count, sharded=sharded)
        yield leader
        send_order(None)  # to end
    dist.destroy_process_group()


def leave(code: int) -> NoReturn:
    """End a process that trained under FSDP, without the interpreter's own shutdown.

    FSDP's device mesh keeps gloo's threads alive after `destroy_process_group`, and about one exit in ten then aborts
    ("terminate called without an active exception") after everything is written, so the launcher reports a failure.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
