"""The training loop: transformers' Trainer, set up from the config and made quiet."""

import math
import tempfile
from typing import Any

from training.console import Bar, progress
from training.errors import TrainingError
from training.finetuning.config import TrainingConfig
from training.finetuning.data import Example, collate

LOGGED = ("loss", "grad_norm", "learning_rate", "epoch")


def count_steps(windows: int, config: TrainingConfig) -> int:
    """Optimiser steps of the whole training; an epoch's last step may hold fewer windows."""
    micro_batches = math.ceil(windows / config.micro_batch_size)
    return math.ceil(micro_batches / config.gradient_accumulation_steps) * config.num_epochs


def train(model: Any, examples: list[Example], config: TrainingConfig, steps: int) -> list[dict[str, float]]:
    """Train in place. Returns one entry per `logging_steps`: step, loss (mean over the labels), gradient norm, rate.

    Raises TrainingError when the loss is no number any more, or the GPU's memory is exhausted.
    """
    import torch
    from transformers import PrinterCallback, Trainer, TrainingArguments

    with tempfile.TemporaryDirectory() as scratch, progress("training", steps) as bar:
        arguments = TrainingArguments(
            output_dir=scratch,  # the Trainer wants one; nothing is saved there
            use_cpu=not torch.cuda.is_available(),  # a Mac's GPU has no nf4
            seed=config.seed,
            data_seed=config.seed,
            bf16=config.bf16,
            num_train_epochs=config.num_epochs,
            per_device_train_batch_size=config.micro_batch_size,
            gradient_accumulation_steps=config.gradient_accumulation_steps,
            train_sampling_strategy="group_by_length" if config.group_by_length else "random",
            optim=config.optimizer,
            learning_rate=config.learning_rate,
            lr_scheduler_type=config.lr_scheduler,
            # Given the ratio, the Trainer rounds up; the first step of a warm-up has rate 0, so one learns nothing.
            warmup_steps=int(config.warmup_ratio * steps),
            weight_decay=config.weight_decay,
            max_grad_norm=config.max_grad_norm,
            logging_steps=config.logging_steps,
            logging_nan_inf_filter=False,  # a loss of NaN must be seen, not averaged away
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            label_names=["labels"],  # peft's wrapper hides the model's signature from the Trainer
            remove_unused_columns=False,
            dataloader_pin_memory=torch.cuda.is_available(),
        )
        arguments._n_gpu = min(arguments.n_gpu, 1)  # else a second GPU is used through DataParallel, which nf4 lacks
        trainer = Trainer(
            model=model, args=arguments, train_dataset=examples, data_collator=collate, callbacks=[_watch(bar)]
        )
        trainer.remove_callback(PrinterCallback)
        try:
            trainer.train()
        except torch.OutOfMemoryError as error:
            raise TrainingError(
                "the GPU's memory is exhausted: set gradient_checkpointing: true, or lower micro_batch_size and raise "
                "gradient_accumulation_steps by the same factor"
            ) from error
    if trainer.state.global_step != steps:
        raise TrainingError(f"ended after {trainer.state.global_step} of {steps} steps")
    entries = [entry for entry in trainer.state.log_history if "loss" in entry]
    return [{"step": entry["step"], **{key: entry[key] for key in LOGGED}} for entry in entries]


def _watch(bar: Bar) -> Any:
    """A callback that moves the bar and stops at the first loss that is no number."""
    from transformers import TrainerCallback

    class Watch(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            bar.advance()

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **kwargs: Any) -> None:
            if "loss" not in logs:
                return
            if not math.isfinite(logs["loss"]) or not math.isfinite(logs["grad_norm"]):
                raise TrainingError(
                    f"step {state.global_step}: the loss is {logs['loss']}, its gradient {logs['grad_norm']}. "
                    "Lower learning_rate and train again; nothing was written"
                )
            bar.describe(f"training, loss {logs['loss']:.3f}")

    return Watch()
