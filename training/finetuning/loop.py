"""The training loop.

It is ours, and not transformers' Trainer: that averages over micro-batches, and cannot divide by the labels of a whole
step when a position has several; its checkpoints are pickles; and it has no place between two micro-batches where it
could stop, or begin the step again in smaller ones.
"""

import math
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from ghost.errors import TrainingError
from training.config import TrainingConfig
from training.finetuning.checkpoint import (
    Checkpoint,
    Interruption,
    State,
    Tensors,
    adapter,
    gather,
    put,
    random_state,
    scatter,
    set_random_state,
)
from training.finetuning.curve import Watch, heldout_loss
from training.finetuning.data import Example
from training.finetuning.packing import Plan, Step, forward_backward
from training.finetuning.processes import Alone
from training.finetuning.report import Answered, Samples, collapsed


class Loop:
    """One training, from wherever `state` stands. `heldout` are the examples that it never learns from."""

    def __init__(
        self,
        model: Any,
        plan: Plan,
        heldout: Sequence[Example],
        config: TrainingConfig,
        state: State,
        checkpoint: Checkpoint,
        identity: dict[str, Any],
        interruption: Interruption,
        processes: Alone | None = None,
        samples: Samples | None = None,
    ) -> None:
        import torch

        from training.finetuning.loss import Objective

        self.model, self.plan, self.heldout, self.config, self.state = model, plan, heldout, config, state
        self.checkpoint, self.identity, self.interruption = checkpoint, identity, interruption
        self.objective = Objective(model).train()
        self.samples = samples
        self.processes = processes or Alone()
        self.processes.use(self.objective, bf16=config.bf16)
        self.parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.device = self.parameters[0].device
        self.optimizer = torch.optim.AdamW(
            self.parameters,
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            fused=config.optimizer == "adamw_torch_fused",
        )
        self.rate = learning_rate(self.optimizer, len(plan), config)
        self.evaluate_at = evaluation_steps(plan.epochs, config.evals_per_epoch)
        self.saved: int | None = None  # the step of the checkpoint on the disk
        self._started = time.monotonic() - state.seconds["total"]

    def resume(self, tensors: Tensors) -> None:
        """Go on from a checkpoint's tensors. Without, the training begins where torch's random state is now."""
        scatter(tensors, self.model, self.optimizer)
        set_random_state(self.state.rng)
        self.saved = self.state.step
        self.state.resumed.append(self.state.step)

    def run(self, watch: Watch) -> None:
        """Train to the end, or until patience is exhausted; `finish` then gives the model the weights to keep.

        Raises Stopped where it was asked to stop: `state` and model are then those of the last finished step, and
        `save` writes them. Raises TrainingError when the loss is no number any more, or memory cannot suffice.
        """
        state, total = self.state, len(self.plan)
        state.rng = state.rng or random_state()
        steps = self.plan.steps(state.step)
        saved = time.monotonic()
        while True:
            self.interruption.check()
            if state.step in self.evaluate_at:
                self._evaluate(watch)
            if state.step == total:
                return
            if state.selection.exhausted(self.config.early_stopping_patience) or collapsed(state.evaluations):
                self.save()
                return
            self._step(next(steps), watch)
            if state.step == total or time.monotonic() - saved >= 60 * self.config.checkpoint_minutes:
                self.save()
                saved = time.monotonic()

    def finish(self) -> None:
        """Make the best weights the model's, where they were asked for and found. Nothing can be saved any more."""
        self.state.seconds["total"] = time.monotonic() - self._started
        if self.state.best is not None:
            put(self.model, self.state.best)

    def save(self) -> bool:
        """Write the checkpoint. A disk that refuses is said on stderr, and costs no training."""
        self.state.seconds["total"] = time.monotonic() - self._started
        try:
            self.checkpoint.write(self.state, gather(self.model, self.optimizer), self.identity)
        except OSError as error:
            kept = "there is none yet" if self.saved is None else f"that of step {self.saved:,} is intact"
            tell(f"step {self.state.step:,}: checkpoint not written ({error.strerror or error}); {kept}")
            return False
        self.saved = self.state.step
        return True

    def _step(self, step: Step, watch: Watch) -> None:
        """One optimiser step, or none at all."""
        import torch

        state, started = self.state, time.monotonic()
        loss = self._gradients(step)
        norm = float(torch.nn.utils.clip_grad_norm_(self.parameters, self.config.max_grad_norm))
        if not math.isfinite(loss) or not math.isfinite(norm):
            kept = f"; {self.checkpoint.folder} is of step {self.saved:,}" if self.saved is not None else ""
            raise TrainingError(
                f"step {state.step + 1:,}: the loss is {loss}, its gradient {norm}. Lower learning_rate and train "
                f"again; no adapter was written{kept}"
            )
        rate = self.rate(state.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad()
        tokens, seconds = sum(len(segment.ids) for segment in step.segments), time.monotonic() - started
        state.step += 1
        state.tokens += tokens
        state.seconds["training"] += seconds
        state.rng = random_state()
        if state.step % self.config.logging_steps == 0 or state.step == len(self.plan):
            entry = {
                "step": state.step,
                "loss": loss,
                "grad_norm": norm,
                "learning_rate": rate,
                "epoch": step.epoch + 1,
            }
            state.log.append(entry)
        watch.step(state.step, loss, norm, rate, tokens, seconds)

    def _gradients(self, step: Step) -> float:
        """Leave the step's gradients in the parameters; gives its loss, in nats a label.

        Whatever the micro-batches, and whoever runs them, it is one sum over the labels of all segments, divided by
        their count.
        """
        import torch

        while True:
            total: Any = torch.zeros((), device=self.device)
            try:
                for segments in self.processes.begin(self.state.step, step, self.state.budget):
                    self.interruption.check()
                    total += forward_backward(self.objective, segments, step.labels, bf16=self.config.bf16)
            except torch.OutOfMemoryError:
                total = None  # its traceback holds tensors: nothing can be freed in here
            loss = self.processes.end(total)
            if loss is not None:
                return loss
            self._halve()

    def _halve(self) -> None:
        """Half as many tokens at a time, and the step from its start, with the random state that it began with."""
        import torch

        state = self.state
        if state.budget <= self.plan.longest:
            self.save()
            raise TrainingError(
                f"step {state.step + 1:,}: the GPU's memory does not suffice for one window of {self.plan.longest:,} "
                "tokens: set gradient_checkpointing: true, lower sequence_len, or rent a larger GPU"
            )
        state.budget = max(state.budget // 2, self.plan.longest)
        state.halved.append({"step": state.step + 1, "micro_batch_tokens": state.budget})
        tell(
            f"step {state.step + 1:,}: out of memory; from here on {state.budget:,} tokens at a time, "
            "which is slower and the same mathematics"
        )
        self.optimizer.zero_grad()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        set_random_state(state.rng)

    def _evaluate(self, watch: Watch) -> None:
        """The held-out loss of this step, unless it is known. What fails is said: it must not cost a training."""
        state = self.state
        if not self.heldout or any(entry["step"] == state.step for entry in state.evaluations):
            return
        started = time.monotonic()
        try:
            with self.interruption.at_once():
                loss = heldout_loss(self.objective, self.heldout, state.budget, self.config, self.processes)
        except (TrainingError, RuntimeError) as error:  # PyTorch's own: a kernel, the device
            tell(f"step {state.step:,}: held-out loss not measured: {(str(error).splitlines() or [repr(error)])[0]}")
            return
        if loss is None:
            return
        said = self._sample()
        state.seconds["evaluating"] += time.monotonic() - started
        state.evaluations.append({"step": state.step, **asdict(loss), **(said.figures if said else {})})
        watch.evaluated(state.step, loss, said.figures if said else {})
        # What was measured before the first step is the base's, and no adapter to choose.
        if state.step and state.selection.consider(state.step, loss.reply_loss) and self.config.load_best_model_at_end:
            state.best = adapter(self.model)

    def _sample(self) -> Answered | None:
        """Replies to a few held-out prompts, written where only their owner reads. What fails is said."""
        if not self.samples:
            return None
        try:
            with self.interruption.at_once():
                said = self.samples.answer(self.objective, bf16=self.config.bf16)
            self.samples.write(f"── after step {self.state.step:,} ──", said)
        except (RuntimeError, OSError) as error:
            tell(f"step {self.state.step:,}: replies not sampled: {(str(error).splitlines() or [repr(error)])[0]}")
            return None
        return said


def learning_rate(optimizer: Any, steps: int, config: TrainingConfig) -> Callable[[int], float]:
    """The rate of step `number` (from 0). A function of the number: there is no scheduler to keep in step.

    The warm-up is rounded down, since its first step has a rate of 0: of one step alone nothing would be learnt.
    """
    from transformers import get_scheduler

    schedule = get_scheduler(config.lr_scheduler, optimizer, int(config.warmup_ratio * steps), steps)
    factor = schedule.lr_lambdas[0]
    return lambda number: config.learning_rate * float(factor(number))


def evaluation_steps(epochs: Sequence[int], per_epoch: int) -> set[int]:
    """After which steps the held-out loss is measured: before the first, and evenly within each epoch to its end."""
    steps, done = {0}, 0
    for count in epochs:
        steps |= {done + -(-count * part // per_epoch) for part in range(1, per_epoch + 1)}
        done += count
    return steps


def tell(message: str) -> None:
    with suppress(OSError):  # a terminal that is gone
        print(f"ghost train: {message}", file=sys.stderr)
