"""Every form of adapter that `ghost merge` takes, beside peft's own merge in float32.

    python -m benchmarks.adapter_forms

Bases and adapters are the tests': tiny, random, written by peft. Where peft's merge gives another model than the one
that peft ran in training (tied weights that were trained apart), that one is what counts.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator
from datetime import date
from importlib.metadata import version
from pathlib import Path
from textwrap import fill
from typing import Any

from ghost.demo import starter
from tests.models import SENTENCES
from tests.training.merging.forms import FORMS, UNTIED, beside_peft, merge, write_adapter, write_base

RESULT = Path(__file__).parent / "results" / "adapter_forms.md"
NOTE = """
Tiny random bases, adapters whose every value is random. *Nearest*: in the worst tensor, the share of written FP16
values that are the nearest to peft's float32 ones; the others lie beside a border. *Distance*: the largest, in units of
the last place; FP16's own rounding is at most 0.5. *Parity*: mean |Δlogp| against base + adapter as peft runs them, in
nats; the limit is 2e-3.
"""
BASES = {"mistral": "Mistral", "biased": "Llama with biases", "tied": "Llama, tied", "gpt2": "GPT-2"}


def rows(scratch: Path) -> Iterator[str]:
    tokenizer = starter.make_tokenizer(SENTENCES * 20, vocab_size=512)
    bases = {kind: scratch / kind for kind in BASES}
    starter.save_base(bases["mistral"], starter.make_model(tokenizer, seed=0, hidden=64, layers=2, heads=4), tokenizer)
    for kind in BASES:
        if kind != "mistral":
            write_base(bases[kind], kind, "float32", bases["mistral"])
    forms: dict[str, tuple[str, dict[str, Any]]] = FORMS | {name: ("tied", lora) for name, lora in UNTIED.items()}
    forms |= {
        "resized vocabulary": ("mistral", {"resize": 8}),
        "resized, with modules_to_save": ("mistral", {"resize": 8, "modules_to_save": ["embed_tokens", "lm_head"]}),
        "resized, LoRA on embedding and head": (
            "mistral",
            {"resize": 8, "target_modules": ["q_proj", "embed_tokens", "lm_head"]},
        ),
    }
    for number, (form, (kind, lora)) in enumerate(forms.items()):
        adapter, out = scratch / f"adapter-{number}", scratch / f"merged-{number}"
        adapter.mkdir()
        write_adapter(adapter, bases[kind], **lora)
        block = merge(adapter, bases[kind], out)
        peft = "untied, which peft's merge is not | "
        if form not in UNTIED:
            found = beside_peft(adapter, bases[kind], out, kind, block)
            nearest = min(compared.nearest for compared in found.values())
            peft = f"{nearest:.2%} | {max(compared.distance for compared in found.values()):.4f}"
        arithmetic, parity = block["arithmetic"], block["parity"]
        yield (
            f"| {form} | {BASES[kind]} | {arithmetic['merged']} of {arithmetic['tensors']} | {peft} "
            f"| {parity['mean_abs_logprob']:.1e} |"
        )


def report(table: list[str]) -> Iterator[str]:
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "peft"))
    yield "# Forms of adapter, beside peft's own merge"
    yield ""
    yield f"```\npython -m benchmarks.adapter_forms\n```\n\n{date.today()}; {versions}; on a CPU."
    yield ""
    yield fill(NOTE.strip(), 119)
    yield ""
    yield "| form | base | tensors changed | nearest | distance | parity |"
    yield "|---|---|---:|---:|---:|---:|"
    yield from table


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--out", type=Path, default=RESULT, help="(default: benchmarks/results/adapter_forms.md)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        lines = list(report(list(rows(Path(scratch)))))
    args.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
