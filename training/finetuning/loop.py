"""The training loop.

transformers' Trainer divides by the labels of a step as well (`num_items_in_batch`), but it has no place for a position
with several labels, it cannot stop or start a step again between two micro-batches, and its checkpoints hold pickles.
"""

import math
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ghost.console import echo
from ghost.errors import TrainingError
from replicate_deployment.errors import first_line
from training.config import TrainingConfig
from training.finetuning.checkpoint import (
    Checkpoint,
    Interruption,
    State,
    Tensors,
    adapter,
    load_state_tensors,
    random_state,
    set_random_state,
    state_tensors,
)
from training.finetuning.curve import CURVE, Watch, curve_page, heldout_loss
from training.finetuning.data import Example
from training.finetuning.model import set_weights
from training.finetuning.packing import Plan, Step, forward_backward
from training.finetuning.preferences import Objective
from training.finetuning.processes import Alone
from training.finetuning.report import SampledReplies, Samples, collapsed

if TYPE_CHECKING:
    from training.finetuning.distill import Teacher


class Loop:
    """One training, continued from `state`. `heldout` are examples for evaluation only."""

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
        teacher: "Teacher | None" = None,
    ) -> None:
        import torch

        from training.finetuning.loss import SegmentLoss

        self.model, self.plan, self.heldout, self.config, self.state = model, plan, heldout, config, state
        self.checkpoint, self.identity, self.interruption = checkpoint, identity, interruption
        self.teacher = teacher
        self.segment_loss = (SegmentLoss(model) if teacher is None else teacher.loss(model)).train()
        self.samples = samples
        self.processes = processes or Alone()
        self.processes.use(self.segment_loss, bf16=config.bf16)
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
        self.objective: Objective | None = None  # another loss than the likelihood
        self.saved: int | None = None  # step of the checkpoint on disk
        self._started = time.monotonic() - state.seconds["total"]

    def resume(self, tensors: Tensors) -> None:
        """Continue from a checkpoint's tensors. Without this call, training starts from torch's current random
        state."""
        load_state_tensors(tensors, self.model, self.optimizer)
        set_random_state(self.state.rng)
        self.saved = self.state.step
        self.state.resumed.append(self.state.step)

    def run(self, watch: Watch) -> None:
        """Train to the end, or until early stopping. Call `finish` afterwards to load the weights to keep.

        Raises Stopped on a signal: `state` and model are then those of the last finished step, and `save` writes them.
        Raises TrainingError if the loss is not finite or memory cannot suffice.
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
        """Load the best weights into the model, if the config asks for it and they exist. Do not call `save` after
        this."""
        self.state.seconds["total"] = time.monotonic() - self._started
        if self.state.best is not None:
            set_weights(self.model, self.state.best)

    def save(self) -> bool:
        """Write the checkpoint. If the disk fails, print so on stderr and continue. Return whether it was written."""
        self.state.seconds["total"] = time.monotonic() - self._started
        try:
            self.checkpoint.write(self.state, state_tensors(self.model, self.optimizer), self.identity)
        except OSError as error:
            kept = "there is none yet" if self.saved is None else f"that of step {self.saved:,} is intact"
            warn(f"step {self.state.step:,}: checkpoint not written ({error.strerror or error}); {kept}")
            return False
        self.saved = self.state.step
        page = curve_page(self.state.log, self.state.evaluations, epochs=self.plan.epochs)
        with suppress(OSError):  # only to look at; the next checkpoint draws it again
            (self.checkpoint.folder / CURVE).write_text(page, encoding="utf-8")
        return True

    def _step(self, step: Step, watch: Watch) -> None:
        """Do one optimiser step."""
        import torch

        state, started = self.state, time.monotonic()
        if self.teacher is not None:
            step = self.teacher.replies_of_student(step, self.segment_loss, state.step)
        loss = self._gradients(step)
        norm = float(torch.nn.utils.clip_grad_norm_(self.parameters, self.config.max_grad_norm))
        if not math.isfinite(loss) or not math.isfinite(norm):
            kept = f"; {self.checkpoint.folder} is of step {self.saved:,}" if self.saved is not None else ""
            raise TrainingError(
                f"step {state.step + 1:,}: the loss is {loss}, the gradient norm {norm}. Lower learning_rate and train "
                f"again; no adapter was written{kept}"
            )
        rate = self.rate(state.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()
        self.optimizer.zero_grad()
        tokens = step.drawn + sum(len(segment.ids) for segment in step.segments)
        seconds = time.monotonic() - started
        state.step += 1
        state.tokens += tokens
        state.seconds["training"] += seconds
        state.rng = random_state()
        if state.step % self.config.logging_steps == 0 or state.step == len(self.plan):
            figures = {"step": state.step, "loss": loss, "grad_norm": norm, "learning_rate": rate}
            state.log.append({**figures, "epoch": step.epoch + 1})
        watch.step(state.step, loss, tokens, seconds)

    def _gradients(self, step: Step) -> float:
        """Compute the step's gradients and return its loss, in nats per label.

        The loss is the sum over the labels of all segments divided by their count, however they are split into
        micro-batches and over processes.
        """
        import torch

        while True:
            total: Any = torch.zeros((), device=self.device)
            objective_loss: float | None = None
            try:
                if self.objective:
                    step, objective_loss = self.objective.weigh(step, self.state.budget)
                for segments in self.processes.begin(self.state.step, step, self.state.budget):
                    self.interruption.check()
                    total += forward_backward(self.segment_loss, segments, step.labels, bf16=self.config.bf16)
            except torch.OutOfMemoryError:
                total = None  # free memory outside of this block: the traceback holds tensors
            loss = self.processes.end(total)
            if loss is not None:
                return loss if objective_loss is None else objective_loss
            self._halve()

    def _halve(self) -> None:
        """Halve the tokens per micro-batch, and reset to the start of the step, random state included."""
        import torch

        state = self.state
        if state.budget <= self.plan.longest:
            self.save()
            raise TrainingError(
                f"step {state.step + 1:,}: the GPU has too little memory for one window of {self.plan.longest:,} "
                "tokens: set gradient_checkpointing: true, lower sequence_len, or rent a larger GPU"
            )
        state.budget = max(state.budget // 2, self.plan.longest)
        state.halved.append({"step": state.step + 1, "micro_batch_tokens": state.budget})
        warn(
            f"step {state.step + 1:,}: out of memory; continuing with {state.budget:,} tokens at a time, "
            "which is slower and gives the same result"
        )
        self.optimizer.zero_grad()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        set_random_state(state.rng)

    def _evaluate(self, watch: Watch) -> None:
        """Measure the held-out loss, unless this step has one. If that fails, print so and continue."""
        state = self.state
        if not self.heldout or any(entry["step"] == state.step for entry in state.evaluations):
            return
        started = time.monotonic()
        try:
            with self.interruption.at_once():
                loss = heldout_loss(self.segment_loss, self.heldout, state.budget, self.config, self.processes)
                preferred = self.objective.measure(state.budget) if self.objective else {}
        except (TrainingError, RuntimeError) as error:  # RuntimeError: PyTorch's, from a kernel or the device
            warn(f"step {state.step:,}: held-out loss not measured: {first_line(error)}")
            return
        if loss is None:
            return
        said = self._sample()
        state.seconds["evaluating"] += time.monotonic() - started
        figures = preferred | (said.figures if said else {})
        state.evaluations.append({"step": state.step, **asdict(loss), **figures})
        watch.evaluated(state.step, loss, figures)
        # Step 0 measures the base, so there is no adapter to keep.
        if state.step and state.selection.consider(state.step, loss.reply_loss) and self.config.load_best_model_at_end:
            state.best = adapter(self.model)

    def _sample(self) -> SampledReplies | None:
        """Reply to a few held-out prompts and write them to a file that only its owner can read. If that fails,
        print so."""
        if not self.samples:
            return None
        try:
            with self.interruption.at_once():
                said = self.samples.answer(self.segment_loss, bf16=self.config.bf16)
            self.samples.write(f"── after step {self.state.step:,} ──", said)
        except (RuntimeError, OSError) as error:
            warn(f"step {self.state.step:,}: replies not sampled: {first_line(error)}")
            return None
        return said


def learning_rate(optimizer: Any, steps: int, config: TrainingConfig) -> Callable[[int], float]:
    """Return a function from step number (from 0) to learning rate, so there is no scheduler state to save.

    Round the warm-up down: its first step has a rate of 0, and a training of one step would learn nothing.
    """
    from transformers import get_scheduler

    schedule = get_scheduler(config.lr_scheduler, optimizer, int(config.warmup_ratio * steps), steps)
    factor = schedule.lr_lambdas[0]
    return lambda number: config.learning_rate * float(factor(number))


def evaluation_steps(epochs: Sequence[int], per_epoch: int) -> set[int]:
    """Return the steps after which to measure the held-out loss: 0, and evenly spaced to the end of each epoch."""
    steps, done = {0}, 0
    for count in epochs:
        steps |= {done + -(-count * part // per_epoch) for part in range(1, per_epoch + 1)}
        done += count
    return steps


def warn(message: str) -> None:
    with suppress(OSError):  # the terminal is gone
        echo(f"ghost train: {message}", error=True)
