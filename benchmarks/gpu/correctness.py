"""Correctness rows: what the suite cannot show without a GPU."""

import dataclasses
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.gpu.models import DENSE, EACH, FLASH, Scale, attending, merged, random_base
from benchmarks.gpu.training import sample
from benchmarks.training import TOLERANCE
from training.finetuning.hardware import Gpu

LIMIT = 240  # seconds that a row may take
ROOT = Path(__file__).parents[2]
TIMES = 2  # as far from the gradient in float32 as one window at a time a way may be
PROMPTS, LENGTH = 8, 64


def measure(name: str, scale: Scale, scratch: Path) -> dict[str, Any]:
    """`ok`, and `found` in words."""
    return ROWS[name](scale, scratch)


def marked_tests(scale: Scale, scratch: Path) -> dict[str, Any]:
    files = sorted(str(path) for path in (ROOT / "tests").rglob("test_*.py") if "pytest.mark.gpu" in path.read_text())
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-m", "gpu", *files]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    last = (done.stdout.strip().splitlines() or done.stderr.strip().splitlines() or ["no output"])[-1]
    sys.stderr.write(done.stdout)
    return {"ok": done.returncode == 0 and "passed" in last, "found": re.sub(r" in [\d.]+s.*", "", last.strip("= "))}


def gradients(scale: Scale, scratch: Path) -> dict[str, Any]:
    """One step's loss and gradient in bfloat16 on nf4, beside those of the same weights in float32, one window at a
    time: what rounding takes them apart by, and whether nesting, packing or a kind of attention takes them further."""
    import torch
    from bitsandbytes.nn import Linear4bit

    from training.finetuning.loss import SegmentLoss
    from training.finetuning.model import adapted
    from training.finetuning.packing import Plan, forward_backward, pack

    config = dataclasses.replace(scale.recipe(), lora_dropout=0.0)
    model = adapted(random_base(scale.facts, config, scale.device), config, "the random base")
    for name, parameter in model.named_parameters():
        if "lora_B" in name:  # at zero, as training starts, A would have no gradient
            torch.nn.init.normal_(parameter, std=0.01)
    segment_loss = SegmentLoss(model).train()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]

    def step(nested: bool, budget: int, attention: str = FLASH, bf16: bool = True) -> tuple[float, Any]:
        plan = Plan(sample(scale)[1], dataclasses.replace(config, collapse_nested_windows=nested))
        first = next(plan.steps())
        model.zero_grad()
        with attending(model, attention):
            batches = pack(first.segments, budget)
            loss = sum(float(forward_backward(segment_loss, batch, first.labels, bf16=bf16)) for batch in batches)
        return loss, torch.cat([parameter.grad.flatten() for parameter in trained])

    budget = 8192 // scale.divisor
    found = {
        "one window at a time": step(nested=False, budget=1),
        "packed": step(nested=False, budget=budget),
        "nested and packed": step(nested=True, budget=budget),
        f"the same, {EACH}": step(True, budget, EACH),
        f"the same, {DENSE}": step(True, budget, DENSE),
    }
    for module in model.float().modules():
        if isinstance(module, Linear4bit):
            module.compute_dtype = torch.float32
    loss, exact = step(nested=False, budget=1, bf16=False)
    apart = {
        way: (abs(other - loss) / loss, float((gradient - exact).norm() / exact.norm()))
        for way, (other, gradient) in found.items()
    }
    most = TIMES * apart["one window at a time"][1]
    said = "; ".join(f"{way}: loss {off:.1e}, gradient {far:.1e}" for way, (off, far) in apart.items())
    return {
        "ok": all(off <= TOLERANCE and far <= most for off, far in apart.values()),
        "found": f"relative to float32 (loss {loss:.4f}): {said}",
    }


def greedy(scale: Scale, scratch: Path) -> dict[str, Any]:
    """Greedy tokens of the engine, over its static and its dynamic cache, beside transformers' generate. Where they
    part, the two tokens must be as close as rounding moves a log-probability (golden.TOLERANCE)."""
    import torch

    from replicate_deployment.engine import Engine
    from replicate_deployment.golden import TOLERANCE

    engine = Engine.load(merged(scratch, scale), device=scale.device, accelerate=True)
    if engine.static is None:
        raise RuntimeError("the static decoder could not be set up: see the log")
    engines = {"static": engine, "dynamic": dataclasses.replace(engine, static=None)}
    settings = engine.settings.replace(temperature=0, repetition_penalty=1, max_new_tokens=LENGTH)
    generator, parted = torch.Generator().manual_seed(0), []
    for number in range(PROMPTS):
        ids = [1, *torch.randint(3, 500, (5 + 12 * number,), generator=generator).tolist()]
        given = torch.tensor([ids], device=scale.device)
        done = engine.model.generate(
            given, attention_mask=torch.ones_like(given), do_sample=False, min_new_tokens=LENGTH, max_new_tokens=LENGTH,
            pad_token_id=2, return_dict_in_generate=True, output_logits=True, eos_token_id=None,
        )  # fmt: skip
        expected = done.sequences[0, len(ids) :].tolist()
        for name, each in engines.items():
            drawn = list(each._draw(ids, settings, seed=None))
            at = next(
                (place for place, pair in enumerate(zip(drawn, expected, strict=True)) if pair[0] != pair[1]), None
            )
            if at is not None:
                likely = done.logits[at][0].float().log_softmax(-1)
                parted.append((name, number, at, float(likely.max() - likely[drawn[at]])))
    text = f"{PROMPTS} prompts of 6 to {6 + 12 * (PROMPTS - 1)} tokens, {LENGTH} tokens each, static and dynamic"
    if parted:
        text += "; parted: " + ", ".join(
            f"{n} cache, prompt {p}, token {at}, by {by:.3f} nats" for n, p, at, by in parted
        )
    else:
        text += ": equal"
    return {"ok": all(by <= TOLERANCE for *_, by in parted), "found": text}


ROWS = {
    "tests marked gpu": marked_tests,
    "losses and gradients, nested and one window at a time, each kind of attention": gradients,
    "greedy replies: engine and generate": greedy,
}


def page(found: dict[str, dict[str, Any]], scale: Scale, gpu: Gpu | None) -> Iterator[str]:
    yield "\n## Correctness\n"
    yield "| what | | found |"
    yield "|---|---|---|"
    for name in ROWS:
        row = found.get(name, {})
        verdict = "not measured" if not row else "as it should be" if row.get("ok") else "NOT as it should be"
        yield f"| {name} | {verdict} | {row.get('failed') or row.get('found', '–')} |"
    yield f"\nA gradient in bfloat16 may be {TIMES} times as far from float32's as one window at a time is, a loss"
    yield f"{TOLERANCE:g} of itself. Greedy replies may part where two tokens are equally likely but for rounding."
