"""The proof of a merge: that its arithmetic is right, and that the merged model is the one that was trained.

Arithmetic is exact, so it gates. Log-probabilities against the same float32 base + adapter differ only by FP16's
rounding of the weights, so their mean gates. Against the nf4 base that training saw they also differ by nf4's
rounding, which the merge undoes on purpose: printed, never gated. Nor is greedy agreement: rounding alone changed
0.2-0.4% of argmaxes on a toy model.
"""

import math
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from replicate_deployment.chat_format import Labels, Turn, render
from replicate_deployment.tokenization import Tokenizer, encode
from scripts.adapter import Adapter
from scripts.weights import Weights
from training.console import progress
from training.errors import MergeError
from training.finetuning.base import Base, load_base

LIMIT = 2e-3  # nats
SAMPLED_ROWS = 256  # of a larger tensor; a smaller one is checked whole
FLOAT32_UNIT = 2.0**-24  # half the distance from 1 to the next float32


@dataclass(frozen=True)
class Arithmetic:
    """How much was recomputed."""

    tensors: int
    merged: int
    values_checked: int
    values: int
    seed: int


class Difference(NamedTuple):
    """Two models on the same text: log-probabilities of its tokens in nats, and the share of equal argmaxes."""

    mean_abs_logprob: float
    max_abs_logprob: float
    greedy_agreement: float
    tokens: int


def check_arithmetic(base: Weights, adapter: Adapter, folder: Path, *, seed: int) -> Arithmetic:
    """Every tensor in `folder` is F16 and equals W + s·B·A, computed in float32 and rounded once.

    Recomputed in float64 by numpy, so by other code than the merge. A float32 result lies within e of the exact x,
    e = (r + 4)·u·|s|·|B|·|A| + u·|W|: the standard bound for a dot product of length r and the steps after it (Higham,
    Accuracy and Stability of Numerical Algorithms, 3.1). Rounding keeps order, so a correct value lies in
    [fp16(x - e), fp16(x + e)]: one number, but for the few x that lie within e of a rounding border or cancel to about
    e. Without an adapter the value is fp16(W) exactly.

    Raises MergeError naming the first tensor that fails.
    """
    import numpy

    choice = random.Random(seed)
    checked = 0
    with Weights.of_model(folder) as merged, progress("checking the arithmetic", total=len(base.shapes)) as bar:
        stray = sorted(set(base.shapes) ^ set(merged.shapes))
        if stray:
            raise MergeError(f"{len(stray)} tensors are in the base or in the merged model only, first {stray[0]}")
        for name, shape in base.shapes.items():
            if merged.dtypes[name] != "F16" or merged.shapes[name] != shape:
                raise MergeError(f"{name}: written as {merged.dtypes[name]} {merged.shapes[name]}, not F16 {shape}")
            rows = (
                sorted(choice.sample(range(shape[0]), SAMPLED_ROWS)) if shape[0] > SAMPLED_ROWS else [*range(shape[0])]
            )
            exact = base.rows(name, rows).double().numpy()
            error = numpy.zeros_like(exact)
            factors = adapter.factors(name)
            if factors is not None:
                a, b = factors[0].double().numpy(), factors[1][rows].double().numpy()
                error = FLOAT32_UNIT * ((adapter.rank + 4) * abs(adapter.scale) * (abs(b) @ abs(a)) + abs(exact))
                exact = exact + adapter.scale * (b @ a)
            written = merged.rows(name, rows).numpy()
            with numpy.errstate(over="ignore"):  # just below FP16's largest value the upper bound may round to inf
                low, high = ((exact + sign * error).astype(numpy.float16) for sign in (-1, 1))
            wrong = int((~((low <= written) & (written <= high))).sum())
            if wrong:
                raise MergeError(f"{name}: {wrong:,} of {written.size:,} values checked are not fp16(W + s·B·A)")
            checked += written.size
            bar.advance()
    values = sum(math.prod(shape) for shape in base.shapes.values())
    return Arithmetic(len(base.shapes), len(adapter.targets), checked, values, seed)


def probes(tokenizer: Tokenizer, labels: Labels) -> list[list[int]]:
    """Ids of a few finished conversations: both languages, mixed, accents, emoji, short and long."""
    conversations = [
        ["hey! tu fais quoi ce soir ?", "rien de spécial, je cuisine 🍝"],
        ["did you watch the match yesterday?", "yeah, what a game. I still can't believe that last goal"],
        ["on se voit at the café?", "oui, give me ten minutes", "ok à toute !", "👍"],
        ["ça va mieux depuis hier ?", "un peu, merci\nj'ai dormi douze heures", "tant mieux 😊", "et toi ?"],
        ["can you send me the address", "12 rue des Lilas, second floor, the door on the left after the stairs"],
        ["lol", "mdr"],
    ]
    sides = (labels.other, labels.me)
    texts = [
        render([Turn(sides[number % 2], text) for number, text in enumerate(texts)], labels) for texts in conversations
    ]
    return [encode(tokenizer, text, end=True).ids for text in texts]


def difference(one: list[Any], other: list[Any]) -> Difference:
    """Of two results of `score`, on the same probes."""
    import torch

    distances = torch.cat([(a[0] - b[0]).abs() for a, b in zip(one, other, strict=True)])
    agreed = torch.cat([a[1] == b[1] for a, b in zip(one, other, strict=True)])
    mean, largest = float(distances.mean()), float(distances.max())
    return Difference(mean, largest, float(agreed.double().mean()), len(distances))


def score(model: Any, probes: list[list[int]], label: str) -> list[Any]:
    """For each probe, (log-probability of each token after the first, argmax at each position), on the CPU."""
    import torch

    results = []
    with torch.inference_mode(), progress(label, total=len(probes)) as bar:
        for ids in probes:
            tokens = torch.tensor(ids, device=model.device)
            logprobs = torch.log_softmax(model(input_ids=tokens[None], use_cache=False).logits[0, :-1].float(), -1)
            results.append((logprobs.gather(1, tokens[1:, None])[:, 0].cpu(), logprobs.argmax(-1).cpu()))
            bar.advance()
    return results


def score_with_adapter(base: Base, adapter: Path, probes: list[list[int]], label: str, **precision: bool) -> list[Any]:
    """`score` of base + adapter, unmerged, through peft. `precision` is that of `load_base`."""
    import warnings

    from peft import PeftModel

    with warnings.catch_warnings():
        # peft 0.21 asks transformers for a name that it is about to rename
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
        model = PeftModel.from_pretrained(load_base(base, **precision), str(adapter)).eval()
    return score(model, probes, label)
