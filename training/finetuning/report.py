"""Write training_report.json and its notes, and sample replies during training."""

import math
import os
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any, NamedTuple

import numpy as np

from ghost.console import duration
from replicate_deployment.chat_format import Labels
from replicate_deployment.tokenization import Tokenizer, token_bytes
from training.config import TrainingConfig
from training.finetuning import curve
from training.finetuning.base import Outline
from training.finetuning.checkpoint import State, outcome
from training.finetuning.curve import epochs_done
from training.finetuning.data import Example, Split
from training.finetuning.packing import Plan

# Sample replies during training: answer a few held-out prompts, the same at each measurement.
#
# The held-out loss can fall while replies no longer end, or are all the same. Two figures and three replies show this
# early enough to stop. Replies are greedy, so no random number is drawn and training does not depend on them. All
# prompts run as one batch, so a measurement takes NEW_TOKENS small passes.
#
# Replies are messages, so they never go to the terminal or a report, only to `<out>.replies.txt`, readable by its
# owner.

NEW_TOKENS = 48  # per reply: half of what serving allows, and more than most need
LONGEST = 512  # tokens of a prompt, to bound the cost
SHOWN = 3  # replies written to the file at each measurement
REPETITIVE = 0.1  # distinct-2 below which replies only repeat


class Prompt(NamedTuple):
    """Ids up to the tag of a held-out reply, and the ids of the reply."""

    ids: list[int]
    reply: list[int]


class SampledReplies(NamedTuple):
    """ended       share of replies that ended by themselves within NEW_TOKENS
    distinct_2  distinct-2 of all replies; None if they have no pair of words
    texts       the replies, cut at the end token or the next turn
    """

    ended: float
    distinct_2: float | None
    texts: list[str]

    @property
    def figures(self) -> dict[str, float]:
        return {"ended": self.ended} | ({} if self.distinct_2 is None else {"distinct_2": round(self.distinct_2, 4)})


class Samples:
    """`count` prompts, evenly spaced over the held-out examples; false if there are none.

    start  steps done before; a resumed training appends to the file
    """

    def __init__(
        self, heldout: Sequence[Example], tokenizer: Tokenizer, labels: Labels, *, count: int, out: Path, start: int
    ) -> None:
        fitting = [found for example in heldout if (found := prompt_of(example)) and len(found.ids) <= LONGEST]
        places = np.linspace(0, len(fitting) - 1, min(count, len(fitting))).round().astype(int).tolist()
        self.prompts = [fitting[place] for place in places]
        self.path = out.with_name(out.name + ".replies.txt")
        self._bytes, self._end, self._labels = token_bytes(tokenizer), tokenizer.eos_token_id, labels
        self._fresh = start == 0

    def __bool__(self) -> bool:
        return bool(self.prompts)

    def answer(self, segment_loss: Any, *, bf16: bool) -> SampledReplies:
        """Reply with the current model of `segment_loss`. Leaves it in the mode that it was in."""
        drawn = draw(segment_loss, [prompt.ids for prompt in self.prompts], self._end, NEW_TOKENS, bf16=bf16)
        ended = [self._end in ids for ids in drawn]
        texts = [self._text(ids) for ids in drawn]
        return SampledReplies(sum(ended) / len(ended), distinct_2(texts), texts)

    def write(self, title: str, sampled: SampledReplies) -> None:
        """Append to the file; a training that starts at step 0 replaces it. Raises OSError."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        flags = os.O_WRONLY | os.O_CREAT | (os.O_TRUNC if self._fresh else os.O_APPEND)
        blocks = [title]
        for prompt, text in list(zip(self.prompts, sampled.texts, strict=True))[:SHOWN]:
            asked = self._decode(prompt.ids).removesuffix(f"\n{self._labels.me}")
            last = asked[asked.rfind(f"\n{self._labels.other}") + 1 :]
            blocks.append(f"{last}\n  you: {self._text(prompt.reply)}\n  it:  {text}")
        with os.fdopen(os.open(self.path, flags, 0o600), "w", encoding="utf-8") as stream:
            stream.write("\n\n".join(blocks) + "\n\n\n")
        self._fresh = False

    def _text(self, ids: Sequence[int]) -> str:
        text = self._decode(ids)
        stops = [place for stop in self._labels.stop_sequences if (place := text.find(stop)) >= 0]
        return text[: min(stops, default=len(text))].strip()

    def _decode(self, ids: Sequence[int]) -> str:
        return b"".join(self._bytes[token] for token in ids).decode("utf-8", "ignore")


def draw(
    segment_loss: Any, prompts: Sequence[Sequence[int]], end: int, new_tokens: int, *, bf16: bool, sample: bool = False
) -> list[list[int]]:
    """Decode each prompt up to its end token, greedily or by sampling at temperature 1, with the current model of
    `segment_loss`. Leave it in the mode that it was in."""
    from training.finetuning import attention

    mode, causal = segment_loss.training, segment_loss.model.get_base_model()
    segment_loss.eval()
    causal.set_attn_implementation("sdpa")  # attention by segments has no cache
    try:
        return decode(causal, prompts, end, new_tokens, bf16=bf16, temperature=1.0 if sample else None)
    finally:
        attention.use(causal)
        segment_loss.train(mode)


def decode(
    causal: Any,
    prompts: Sequence[Sequence[int]],
    end: int,
    new_tokens: int,
    *,
    bf16: bool = False,
    temperature: float | None = None,
) -> list[list[int]]:
    """Decode all prompts as one batch, each up to its end token or `new_tokens`; greedily without a temperature."""
    import torch
    from transformers import DynamicCache

    from replicate_deployment.decoding import cache_argument

    device = next(causal.parameters()).device
    longest = max(map(len, prompts))
    rows = [[end] * (longest - len(prompt)) + [*prompt] for prompt in prompts]
    there = [[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    ids, mask = torch.tensor(rows, device=device), torch.tensor(there, device=device)
    cache = {cache_argument(causal): DynamicCache(config=causal.config)}
    drawn: list[list[int]] = [[] for _ in rows]
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        for _ in range(new_tokens):
            places = (mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
            logits = causal(
                input_ids=ids, attention_mask=mask, position_ids=places, use_cache=True, logits_to_keep=1, **cache
            ).logits[:, -1]
            ids = (logits.float() / temperature).softmax(-1).multinomial(1) if temperature else logits.argmax(-1, True)
            mask = torch.cat([mask, torch.ones_like(ids)], dim=1)
            for reply, token in zip(drawn, ids[:, 0].tolist(), strict=True):
                if end not in reply:
                    reply.append(token)
            if all(end in reply for reply in drawn):
                break
    return drawn


def prompt_of(example: Example) -> Prompt | None:
    """Return the prompt of the example's last reply; None if nothing comes before it."""
    places = np.flatnonzero(example.reply)
    if not len(places):
        return None
    start = int(places[np.flatnonzero(np.diff(places, prepend=-2) > 1)[-1]])
    stop = int(places[-1]) + 1
    return Prompt(example.ids[:start].tolist(), example.ids[start:stop].tolist()) if start > 1 else None


def distinct_2(texts: Sequence[str]) -> float | None:
    """Return the number of different pairs of neighbouring words over all pairs (Li et al. 2016, arXiv:1510.03055);
    None without any.

    It falls as texts get longer or more, so compare only equally many texts of similar length. Near 0, a model repeats
    itself. It does not tell whether varied text makes sense.
    """
    pairs = Counter(pair for text in texts for pair in pairwise(text.split()))
    return len(pairs) / pairs.total() if pairs else None


def collapsed(evaluations: Sequence[Mapping[str, float]]) -> bool:
    """Whether the last two measurements both found that no reply ends, all replies repeat, and the held-out replies are
    less likely than under the base. Each alone may be acceptable, all three are not."""
    if not evaluations or evaluations[0]["step"]:
        return False
    base, *trained = evaluations
    return (
        len(trained) > 1
        and all(
            one.get("ended", 1) == 0
            and one.get("distinct_2", 1) < REPETITIVE
            and not one["reply_loss"] <= base["reply_loss"]  # NaN counts as worse
            for one in trained[-2:]
        )
    )


# What `ghost train` prints before and after training.

Facts = Mapping[str, Any]
"""The content of training_report.json, from `facts`."""

# Report a rising held-out loss only from this share on. On the sample it varies by 0.6% between measurements while it
# still falls.
RISE = 0.01


def before(
    config: TrainingConfig, base: Outline, train: Split, val: Split, plan: Plan, budget: int, device: str
) -> str:
    """Describe the plan."""
    what, epochs = train.recipe, "1 epoch" if config.num_epochs == 1 else f"{config.num_epochs} epochs"
    nested = ""
    if what == "windows" and config.collapse_nested_windows:
        nested = f", {plan.tokens:,} of them computed: windows that begin alike share a pass"
    all_of_it = "" if config.num_epochs == 1 else f" in {epochs}"
    lines = [
        f"base      {base.repo} ({base.revision})",
        f"{what:<9} {len(train.examples):,} to train on, {len(val.examples):,} held out",
        f"tokens    {plan.window_tokens:,}{all_of_it}{nested}",
        f"steps     {len(plan):,}: {epochs}, {config.windows_per_step} {what} a step, {budget:,} tokens at a time",
        f"device    {device}, computing in {'bfloat16' if config.bf16 else 'float32'}",
    ]
    if config.goldfish_k is not None:
        whole = train.recipe == "windows" and config.train_on_inputs
        targets = sum(len(one.ids) - 1 if whole else int(one.reply.sum()) for one in train.examples)
        left_out = f"{targets - train.learnt:,} of {targets:,} tokens of the loss are left out"
        lines.append(f"goldfish  {left_out} (goldfish_k: {config.goldfish_k})")
    for name, split in (("training", train), ("held-out", val)):
        if split.shortened or split.skipped:
            lines.append(f"note      longer than {config.sequence_len:,} tokens: {_too_long(name, split)}")
    if not val.examples:
        lines.append(f"note      no held-out {what}, so memorising cannot be told from learning: export more chats")
    return "\n".join(lines)


def _too_long(name: str, split: Split) -> str:
    if split.recipe == "windows":
        return (
            f"{split.shortened:,} {name} windows lost turns at the front, {split.skipped:,} were left out "
            "(their last two turns alone are too long)"
        )
    return (
        f"{split.shortened + split.skipped:,} {name} conversations are cut into pieces, "
        f"{split.skipped:,} of them without turns that alone are too long"
    )


def after(facts: Facts, config: TrainingConfig, out: Path, *, distilled: bool = False) -> str:
    """Describe the result. `out` is the adapter's folder. A distilled one is not merged to where its teacher may be."""
    first, last = facts["heldout"]["before"], facts["heldout"]["after"]
    lines = [f"trained   {price_and_speed(facts)}"]
    if first and last:
        lines.append(f"held out  loss of replies {first['reply_loss']:.3f} → {last['reply_loss']:.3f} nats a token")
        if last["tokens"] != last["reply_tokens"]:
            lines.append(f"          of all tokens   {first['loss']:.3f} → {last['loss']:.3f}")
    lines.append(f"kept      {_kept(facts, config)}")
    if facts["steps"] < facts["planned_steps"]:
        epochs = f"epoch {_epoch(facts, facts['steps'])} of {config.num_epochs}"
        why = f"{config.early_stopping_patience} measurements in a row were no better (early_stopping_patience)"
        if collapsed(facts["evaluations"]):
            why = "at two measurements no sampled reply ended, all repeated themselves, and the base was better"
        lines.append(f"stopped   after step {facts['steps']:,}, {epochs}: {why}")
    lines += [f"note      {note}" for note in facts["notes"]]
    merge = ["ghost", "merge", str(out), *(["--out", f"{out}-merged"] if distilled else [])]
    return "\n".join([*lines, f"curve     {out / curve.CURVE}", f"adapter   {out}", f"next      {shlex.join(merge)}"])


def notes(facts: Facts, config: TrainingConfig) -> list[str]:
    """Comment on the losses, with their numbers. `facts` need no `notes` yet."""
    trained, first, found = _trained(facts), facts["heldout"]["before"], []
    if not trained:
        return []
    best, last = _best(trained), trained[-1]
    lowest, at_end = best["reply_loss"], last["reply_loss"]
    if first and lowest >= first["reply_loss"]:
        start = "the adapter that it continues" if facts.get("continues") else "the base itself"
        found.append(
            f"no step was better on held-out replies than {start} ({first['reply_loss']:.3f} before, {lowest:.3f} at "
            "best): learning_rate is too high, or there is too little to learn from"
        )
    then, now = (_training_loss(facts, one["step"]) for one in (best, last))
    if then is not None and now is not None and now < then and at_end > lowest * (1 + RISE):
        epochs = math.ceil(epochs_done(best["step"], facts["steps_per_epoch"]))
        advice = f"; fewer epochs would do (num_epochs: {epochs})" if epochs < config.num_epochs else ""
        found.append(
            f"from epoch {_epoch(facts, best['step'])} on the loss of held-out replies rises ({lowest:.3f} → "
            f"{at_end:.3f}) while that of training falls ({then:.3f} → {now:.3f}): it memorises{advice}"
        )
    if not config.load_best_model_at_end and lowest < at_end:
        found.append(
            f"step {best['step']:,} was better on held-out replies than what is kept ({lowest:.3f}, and {at_end:.3f} "
            "at the end): load_best_model_at_end: true would have kept it"
        )
    return found


def price_and_speed(facts: Facts) -> str:
    seconds, speed = facts["seconds"]["total"], facts["tokens_per_second"] or 0
    words = f"in {duration(seconds)}, {speed:,.0f} tokens/s"
    if facts["tokens"]["saved"] >= 0.01:  # less is rounding
        words += f" ({speed / (1 - facts['tokens']['saved']):,.0f} counted window by window)"
    price = facts["dollars_per_hour"]
    return words if price is None else f"{words}, ${price * seconds / 3600:,.2f} at ${price:,.2f} an hour"


def _kept(facts: Facts, config: TrainingConfig) -> str:
    step, trained = facts["kept_step"], _trained(facts)
    which = f"step {step:,} of {facts['steps']:,}" if step < facts["steps"] else f"the last step, {step:,}"
    if not config.load_best_model_at_end:
        return f"{which} (load_best_model_at_end: false)"
    if len(trained) < 2 or step != _best(trained)["step"]:
        return which
    loss = f"{_best(trained)['reply_loss']:.3f}"
    return (
        f"{which}, epoch {_epoch(facts, step)}: of {len(trained)} measurements the lowest on held-out replies, {loss}"
    )


def _trained(facts: Facts) -> list[dict[str, Any]]:
    """The finite measurements, without that of the base."""
    return [entry for entry in facts["evaluations"] if entry["step"] and math.isfinite(entry["reply_loss"])]


def _best(trained: list[dict[str, Any]]) -> dict[str, Any]:
    return min(trained, key=lambda entry: float(entry["reply_loss"]))


def _training_loss(facts: Facts, step: int) -> float | None:
    """The mean training loss since the measurement before the one at `step`."""
    start = max((entry["step"] for entry in facts["evaluations"] if entry["step"] < step), default=0)
    losses = [entry["loss"] for entry in facts["log"] if start < entry["step"] <= step]
    return fmean(losses) if losses else None


def _epoch(facts: Facts, step: int) -> str:
    """Format as `3` or `2.5`."""
    return f"{epochs_done(step, facts['steps_per_epoch']):.1f}".removesuffix(".0")


def facts(
    config: TrainingConfig,
    train: Split,
    val: Split,
    plan: Plan,
    state: State,
    device: str,
    price: float | None,
    continues: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Make the content of training_report.json. `tokens.computed` went through the model; `tokens.windows` is what that
    would have been one window at a time. `config` holds the resolved `gradient_checkpointing`; `price` is in dollars
    per hour; `continues` is Parent.lineage."""
    seconds = state.seconds["training"]
    share = plan.tokens / plan.window_tokens
    found = {
        "windows": {"train": _counts(train), "val": _counts(val)},
        "tokens": {
            "epoch": train.tokens,
            "epoch_predicted": train.learnt,
            "computed": state.tokens,
            "windows": round(state.tokens / share),
            "saved": round(1 - share, 4),
        },
        "micro_batch_tokens": state.budget,
        "gradient_checkpointing": config.gradient_checkpointing,
        "out_of_memory": state.halved,
        **outcome(state),
        "planned_steps": len(plan),
        "steps_per_epoch": plan.epochs,
        "evaluations": state.evaluations,
        "seconds": {name: round(value, 3) for name, value in state.seconds.items()},
        "resumed_at": state.resumed,
        "tokens_per_second": round(state.tokens / seconds, 1) if seconds else None,
        "device": device,
        "dollars_per_hour": price,
        "continues": continues,
        "log": state.log,
    }
    return {**found, "notes": notes(found, config)}


def _counts(split: Split) -> dict[str, int]:
    return {"read": split.read, "used": len(split.examples), "shortened": split.shortened, "skipped": split.skipped}
