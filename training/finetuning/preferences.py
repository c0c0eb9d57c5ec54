"""`ghost train --preferences`: learn from what became of the bot's drafts, on a new adapter over the merged ghost.

What was sent is preferred over the draft that it replaced: such pairs are learnt by DPO (arXiv:2305.18290). Where there
are too few of them, each reply that was sent is desirable and each that was refused undesirable: KTO
(arXiv:2402.01306). Both losses depend on the model only through log π(reply | context) − log π_ref(reply | context), so
their gradient is that of a weighted negative log-likelihood. A step measures its replies without gradient, computes the
weights, and then runs as any other step. The reference is the same model with its adapter disabled, measured once.
"""

import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ghost.console import progress
from ghost.errors import BaseModelError, DataError
from replicate_deployment import ghost_json
from replicate_deployment.chat_format import Turn
from replicate_deployment.errors import WeightsError
from replicate_deployment.ghost_json import Ghost
from replicate_deployment.tokenization import Tokenizer
from training import config as training_config
from training.config import PreferenceConfig, TrainingConfig
from training.finetuning.base import Outline
from training.finetuning.curve import CURVE
from training.finetuning.data import Example, Split, encode_turns
from training.finetuning.packing import Plan, Segment, Step, pack, segment, token_losses
from training.finetuning.report import price_and_speed, prompt_of
from training.lineage import Known
from training.preparation import corrections
from training.preparation.corrections import Correction
from training.tokens import fit_window

LEAST = 50  # pairs, or drafts with a label; fewer are refused
FEW = 300  # below this many, warn
SUFFIX = "-preferences"  # of the folders of the adapter and of what is merged from it
RATE = 0.4  # of the training config's learning rate: all of it costs likelihood (docs/decisions/training.md)
HELD_OUT = 0.1  # the share that is not learnt: the latest, as in preparation

Reply = tuple[tuple[Turn, ...], str]
"""A context, and a reply to it."""


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two replies to one context. DPO: the preferred and the refused one. KTO: a labelled reply, and that of another
    comparison, which tells how far the model has moved on replies that nobody judged."""

    first: Example
    second: Example
    desirable: bool = True

    @cached_property
    def segments(self) -> tuple[Segment, Segment]:
        return segment([self.first]), segment([self.second])


@dataclass(frozen=True)
class Preferences:
    """What a file of corrections teaches.

    split        all replies that are learnt, as examples; `read` counts lines, `skipped` comparisons that are too long
    pairs        different pairs in the file
    drafts       different drafts in it
    desirable    different replies in it that were sent
    undesirable  different replies in it that were refused
    held_out     drafts that are left out, since their replies may be in the held-out conversations; None if the data
                 does not say when these were
    """

    method: Literal["dpo", "kto"]
    train: list[Comparison]
    heldout: list[Comparison]
    split: Split
    pairs: int
    drafts: int
    desirable: int
    undesirable: int
    held_out: int | None

    def measured_with(self, val: Split) -> Split:
        """The held-out examples, and all replies of the comparisons, for the estimate: these go through the model
        without gradient once for the reference and once in each epoch, as those do at each measurement."""
        comparisons = [example for one in (*self.train, *self.heldout) for example in (one.first, one.second)]
        return dataclasses.replace(val, examples=[*val.examples, *comparisons])


def configured(config: TrainingConfig, chosen: PreferenceConfig) -> TrainingConfig:
    """The training config with the numbers of config/preferences.yaml, and RATE of its learning rate.

    No dropout, which the measurement before a step would not see, and no choice by held-out loss, which would keep what
    has learnt least. No goldfish loss: every token of a judged reply counts.
    """
    return dataclasses.replace(
        config,
        num_epochs=chosen.num_epochs,
        learning_rate=RATE * config.learning_rate,
        micro_batch_size=chosen.replies_per_step,
        gradient_accumulation_steps=1,
        lora_dropout=0.0,
        goldfish_k=None,
        evals_per_epoch=1,
        load_best_model_at_end=False,
        early_stopping_patience=None,
    )


def lineage(folder: Path, data: Ghost) -> Ghost:
    """Return the facts that an adapter over the merged ghost in `folder` starts from; how that was trained goes to the
    block `before`. Raises BaseModelError if it is no merged ghost, or not one of the held-out `data`."""
    try:
        ghost = ghost_json.read_merged(folder)
        same = (ghost.labels, ghost.recipe) == (data.labels, data.recipe)
    except WeightsError as error:
        raise BaseModelError(
            f"{error}. --preferences teaches what ghost merge wrote; name it: --base FOLDER"
        ) from error
    if not same:
        raise BaseModelError(
            f"{folder}: its labels or recipe are not those of {data.folder}; name the data that it was trained on: "
            "--data FOLDER"
        )
    kept = {name: ghost.facts[name] for name in ("format", "text", "data") if name in ghost.facts}
    before = {name: ghost.facts[name] for name in ("base", "training", "merge", "before") if name in ghost.facts}
    return Ghost(folder, kept | {"before": before})


def read(path: Path, tokenizer: Tokenizer, ghost: Ghost, data: Ghost, config: TrainingConfig) -> Preferences:
    """Leave out what may be a reply of a conversation that `ghost` or `data` held out. Raises DataError on a line that
    the bot did not write, and if there are too few pairs and labels."""
    lines = list(corrections.parse(path, ghost.labels))
    known = [one for one in (Known.of(ghost), Known.of(data)) if one]
    spans = [span for one in known for span in one.held_out]
    found = [one for one in lines if not any(span.holds(one.time) for span in spans)]
    held_out = len(lines) - len(found) if known else None
    pairs = list(dict.fromkeys((one.context, one.final, one.draft) for one in found if one.final))
    pairs = [pair for pair in pairs if pair[1] != pair[2]]  # masking can make them the same
    judged = _judged(found)
    desirable = sum(judged.values())
    undesirable = len(judged) - desirable
    drafts = len({(one.context, one.draft) for one in found})
    paired = len(pairs) >= LEAST
    if not paired and (drafts < LEAST or not desirable or not undesirable):
        more = f" {held_out:,} more are left out: they fall in the time of held-out conversations." if held_out else ""
        raise DataError(
            f"{path}: {drafts} drafts, {len(pairs)} of them with what you sent instead; {desirable} replies were sent "
            f"and {undesirable} refused. At least {LEAST} of the second are needed, or {LEAST} drafts with replies of "
            f"both kinds.{more} Answer more drafts, then: ghost bot --corrections {path}"
        )
    rows: Iterable[tuple[tuple[Turn, ...], str, str, bool]]
    if paired:
        rows = [(context, preferred or "", refused, True) for context, preferred, refused in pairs]
    else:
        order = np.random.default_rng(config.seed).permutation(len(judged))
        replies = [*judged]
        others = {replies[one]: replies[two][1] for one, two in zip(order, np.roll(order, 1), strict=True)}
        rows = [(*reply, others[reply], wanted) for reply, wanted in judged.items()]
    usable: list[tuple[tuple[Turn, ...], Comparison]] = []
    skipped = shortened = 0
    with progress(f"tokenising {path.name}"):
        for context, first, second, wanted in rows:
            both, short = _encode(tokenizer, ghost, config.sequence_len, context, (first, second))
            if both:
                usable.append((context, Comparison(both[0], both[1], wanted)))
            skipped += not both
            shortened += short
    border = round((1 - HELD_OUT) * len(usable))
    while 0 < border < len(usable) and usable[border - 1][0] == usable[border][0]:  # no context on both sides
        border -= 1
    train, heldout = ([one for _, one in some] for some in (usable[:border], usable[border:]))
    if not train:
        raise DataError(f"{path}: the replies are longer than sequence_len: {config.sequence_len}; raise it")
    learnt = [example for one in train for example in ((one.first, one.second) if paired else (one.first,))]
    split = Split("windows", learnt, len(lines), shortened, skipped)
    method: Literal["dpo", "kto"] = "dpo" if paired else "kto"
    return Preferences(method, train, heldout, split, len(pairs), drafts, desirable, undesirable, held_out)


def _judged(found: Sequence[Correction]) -> dict[Reply, bool]:
    """Each reply, and whether it was sent. What was ever sent in a context was not refused there."""
    judged: dict[Reply, bool] = {}
    for one in found:
        judged.setdefault((one.context, one.draft), False)
        if one.final:
            judged[one.context, one.final] = True
    return judged


def _encode(
    tokenizer: Tokenizer, ghost: Ghost, limit: int, context: Sequence[Turn], replies: Sequence[str]
) -> tuple[list[Example], bool]:
    """Encode each reply with the same turns before it: as many of the last ones as fit with the longest reply. Only the
    reply and its end token are learnt. Return also whether turns were left out; no examples if not even one fits."""

    def encode(turns: Sequence[Turn], reply: str) -> Example:
        whole = [*turns, Turn(ghost.labels.me, reply)]
        example = encode_turns(tokenizer, whole, ghost.labels, recipe=ghost.recipe, replies_only=True)
        prompt = prompt_of(example)  # with `conversations`, the person's earlier turns are learnt too
        learnt = example.learnt & (np.arange(len(example.ids)) >= (len(prompt.ids) if prompt else 0))
        return dataclasses.replace(example, learnt=learnt)

    def tokens(turns: Sequence[Turn]) -> int:
        return max(len(encode(turns, reply).ids) for reply in replies)

    kept = fit_window(context, tokens, limit)
    if tokens(kept) > limit:
        return [], False
    return [encode(kept, reply) for reply in replies], len(kept) < len(context)


# The steps of a training, and the weights of their replies.


class PreferencePlan(Plan):
    """All comparisons in each epoch, in another order each time. A step's segments are the first and the second reply
    of each of its comparisons, not yet weighted."""

    def __init__(self, preferences: Preferences, config: TrainingConfig) -> None:
        super().__init__(preferences.split, config)
        self._comparisons = preferences.train

    @cached_property
    def examples(self) -> list[int]:
        return [len(self._comparisons)] * self._config.num_epochs

    @cached_property
    def tokens(self) -> int:
        """Without those of the measurement before each step."""
        segments = (run for one in self._comparisons for run in one.segments)
        return self._config.num_epochs * sum(len(run.ids) for run in segments)

    @property
    def window_tokens(self) -> int:
        return self.tokens

    @cached_property
    def longest(self) -> int:
        return max(len(run.ids) for one in self._comparisons for run in one.segments)

    def _epoch(self, number: int) -> list[Step]:
        order = np.random.default_rng([self._config.seed, number, 1]).permutation(len(self._comparisons))
        size = self._config.windows_per_step
        parts = [order[start : start + size] for start in range(0, len(order), size)]
        return [
            Step(number, [run for place in part for run in self._comparisons[place].segments], len(part), len(part))
            for part in parts
        ]


Ratios = NDArray[np.float64]
"""(comparisons, 2): log π − log π_ref of the first and of the second reply, in nats."""


def dpo(ratios: Ratios, beta: float) -> tuple[NDArray[np.float64], Ratios]:
    """Return the loss of each pair, −log σ(β (Δ_preferred − Δ_refused)), and the weights of its replies' negative
    log-likelihoods, whose weighted sum has the same gradient (arXiv:2305.18290, equation 7 and section 4)."""
    margin = beta * (ratios[:, 0] - ratios[:, 1])
    weight = beta * np.exp(-np.logaddexp(0, margin))  # β σ(−margin)
    return np.logaddexp(0, -margin), np.stack([weight, -weight], axis=1)


ANCHOR = 1.0  # weight of the preferred reply's own loss a token beside DPO's


def kto(ratios: Ratios, beta: float, desirable: NDArray[np.bool_]) -> tuple[NDArray[np.float64], Ratios]:
    """As `dpo`, of labelled replies: 1 − σ(β (Δ − z)) for a desirable one and 1 − σ(β (z − Δ)) for an undesirable one,
    where z is the mean Δ of the second replies, at least 0 (arXiv:2402.01306, section 4.1). z gets no gradient, so the
    second replies weigh nothing."""
    sign = np.where(desirable, 1.0, -1.0)
    value = beta * sign * (ratios[:, 0] - max(0.0, float(ratios[:, 1].mean())))
    agreed = np.exp(-np.logaddexp(0, -value))
    return 1 - agreed, np.stack([beta * sign * agreed * (1 - agreed), np.zeros(len(value))], axis=1)


class Objective:
    """Turns a step of a PreferencePlan into one whose weighted loss has the gradient of DPO or KTO.

    Measures the reference at once. `segment_loss` holds the PeftModel that is trained.
    """

    def __init__(self, preferences: Preferences, beta: float, segment_loss: Any, budget: int, *, bf16: bool) -> None:
        self._preferences, self._beta, self._segment_loss, self._bf16 = preferences, beta, segment_loss, bf16
        self._comparisons = {one.segments[0]: one for one in preferences.train}
        wanted = [one.desirable for one in preferences.train]
        # Both kinds count alike, however many there are of each.
        self._balance = {kind: len(wanted) / (2 * max(1, wanted.count(kind))) for kind in (True, False)}
        with progress("likelihoods of the ghost"), segment_loss.model.disable_adapter():
            segments = [run for one in (*preferences.train, *preferences.heldout) for run in one.segments]
            self._reference = self._likelihoods(segments, budget)

    def weigh(self, step: Step, budget: int) -> tuple[Step, float]:
        """Return the step to run, and its loss, the mean over its comparisons. Raises torch.OutOfMemoryError."""
        some = [self._comparisons[first] for first in step.segments[::2]]
        losses, weights = self._losses(some, self._ratios(some, budget))
        segments = [
            dataclasses.replace(run, weights=(run.weights * weight).astype(np.float32))
            for one, pair in zip(some, weights, strict=True)
            for run, weight in zip(one.segments, pair, strict=True)
            if weight
        ]
        return Step(step.epoch, segments, step.windows, step.labels), float(losses.mean())

    def measure(self, budget: int) -> dict[str, float]:
        """The figures of the held-out comparisons, for the log; empty if there are none."""
        if not self._preferences.heldout:
            return {}
        found = self.margin(self._preferences.heldout, budget)
        return {"margin": found["value"], "preferred": found["preferred"]}

    def margin(self, some: Sequence[Comparison], budget: int) -> dict[str, float]:
        """How much likelier than to the reference the wanted replies are than the unwanted ones, in nats a token: with
        pairs the mean of both replies' differences per token, else the difference of the means; its 95% interval
        (normal); and the share of replies that moved the right way (`preferred`)."""
        ratios = self._ratios(some, budget)
        per_token = ratios / [[len(run.labels) for run in one.segments] for one in some]
        if self._preferences.method == "dpo":
            groups = [per_token[:, 0] - per_token[:, 1]]
            preferred = groups[0] > 0
        else:
            wanted = np.array([one.desirable for one in some])
            groups = [part for part in (per_token[wanted, 0], -per_token[~wanted, 0]) if len(part)]
            preferred = np.concatenate(groups) > 0
        error = 1.96 * float(np.sqrt(sum(group.var(ddof=1) / len(group) for group in groups if len(group) > 1)))
        value = float(sum(group.mean() for group in groups))
        figures = {"value": value, "low": value - error, "high": value + error, "preferred": float(preferred.mean())}
        return {**{name: round(figure, 4) for name, figure in figures.items()}, "n": len(some)}

    def _losses(self, some: Sequence[Comparison], ratios: Ratios) -> tuple[NDArray[np.float64], Ratios]:
        if self._preferences.method == "dpo":
            losses, weights = dpo(ratios, self._beta)
            # DPO alone makes both replies less likely, and soon all others (arXiv:2404.19733 adds the same term).
            weights[:, 0] += ANCHOR / np.array([len(one.segments[0].labels) for one in some])
            return losses, weights
        losses, weights = kto(ratios, self._beta, np.array([one.desirable for one in some]))
        balance = np.array([self._balance[one.desirable] for one in some])
        return losses * balance, weights * balance[:, None]

    def _ratios(self, some: Sequence[Comparison], budget: int) -> Ratios:
        found = self._likelihoods([run for one in some for run in one.segments], budget)
        return np.array([[found[run] - self._reference[run] for run in one.segments] for one in some])

    def _likelihoods(self, segments: Sequence[Segment], budget: int) -> dict[Segment, float]:
        """The log-likelihood of each segment's targets, in nats. Halves the budget when memory runs out; raises
        torch.OutOfMemoryError if even one segment does not fit."""
        import torch

        found: dict[Segment, float] = {}
        for batch in pack(segments, budget):
            try:
                losses = token_losses(self._segment_loss, batch, bf16=self._bf16)
            except torch.OutOfMemoryError:
                if len(batch) == 1:
                    raise
                found |= self._likelihoods(batch, sum(len(run.ids) for run in batch) // 2)
                continue
            parts = np.split(losses, np.cumsum([len(run.labels) for run in batch])[:-1])
            found |= {run: -float(part.sum()) for run, part in zip(batch, parts, strict=True)}
        return found


# What `ghost train --preferences` records and prints.


def block(wanted: Preferences, path: Path, val: Path) -> dict[str, Any]:
    """What must be equal to resume, beside the training config; ghost.json records it in `training.config`."""
    return {
        "method": wanted.method,
        "beta": training_config.load_preferences().beta,
        "sha256": ghost_json.sha256(path),
        "val_sha256": ghost_json.sha256(val),
    }


def before(wanted: Preferences, config: TrainingConfig, base: Outline, plan: Plan, device: str) -> str:
    """Describe the plan."""
    paired, split = wanted.method == "dpo", wanted.split
    what = "pairs" if paired else "replies"
    count = wanted.pairs if paired else wanted.drafts
    lines = [
        f"ghost     {base.folder}",
        f"{what:<9} {len(wanted.train):,} to learn, {len(wanted.heldout):,} held out, of {split.read:,} corrections",
        f"loss      {'DPO' if paired else f'KTO: only {wanted.pairs} pairs, and DPO needs {LEAST}'}",
        f"steps     {len(plan):,}: {config.num_epochs} epochs, {config.windows_per_step} {what} a step",
        f"device    {device}, computing in {'bfloat16' if config.bf16 else 'float32'}",
    ]
    if wanted.held_out:
        lines.append(
            f"note      {wanted.held_out:,} corrections are left out: they fall in the time of held-out conversations, "
            "on which the result is evaluated"
        )
    if wanted.held_out is None:
        lines.append(
            "note      corrections may also be in the held-out conversations: an earlier version of ghost prepared the "
            "data, which did not record when these were; to leave them out, run ghost prepare again"
        )
    if paired and (rest := split.read - (wanted.held_out or 0) - wanted.pairs):
        lines.append(f"note      {rest:,} corrections are left out: repeated, or nothing else was sent instead")
    if split.shortened or split.skipped:
        lines.append(
            f"note      longer than sequence_len: {split.shortened:,} lost turns of their context, "
            f"{split.skipped:,} were left out"
        )
    if count < FEW:
        lines.append(f"note      {count:,} {'pairs' if paired else 'drafts'} are few; from {FEW} on more is learnt")
    return "\n".join(lines)


def facts(wanted: Preferences, objective: Objective, budget: int) -> dict[str, Any]:
    """What training_report.json says more than after another training, and other notes."""
    margins = {
        name: objective.margin(some, budget)
        for name, some in (("train", wanted.train), ("heldout", wanted.heldout))
        if some
    }
    notes = []
    if margins.get("heldout", {"low": 1})["low"] <= 0:
        notes.append(
            "on held-out preferences the margin may be 0: raise num_epochs in preferences.yaml, or correct more"
        )
    names = ("method", "pairs", "drafts", "desirable", "undesirable", "held_out")
    counts = {name: getattr(wanted, name) for name in names}
    return {"preferences": counts | {"margin": margins}, "notes": notes}


def after(facts: dict[str, Any], ghost: Path, out: Path) -> str:
    """Describe the result. `ghost` is the folder of the model that was taught, `out` the adapter's."""
    places = {"train": "on what was learnt", "heldout": "on held-out ones"}
    margins = [
        f"{one['value']:+.3f} ({one['low']:.3f} to {one['high']:.3f}) {places[name]}, {one['preferred']:.0%} above 0"
        for name, one in facts["preferences"]["margin"].items()
    ]
    lines = [f"trained   {price_and_speed(facts)}", f"margin    {'; '.join(margins)}; nats a token"]
    first, last = facts["heldout"]["before"], facts["heldout"]["after"]
    if first and last:
        lines.append(f"held out  loss of replies {first['reply_loss']:.3f} → {last['reply_loss']:.3f} nats a token")
    lines += [f"note      {note}" for note in facts["notes"]]
    merged = ghost.with_name(f"{ghost.name}{SUFFIX}")
    return "\n".join(
        [
            *lines,
            f"curve     {out / CURVE}",
            f"adapter   {out}",
            f"next      ghost merge {out} --out {merged}",
            f"then      ghost evaluate {merged} --base {ghost}, which says whether it cost the voice",
        ]
    )
