"""Whether llama.cpp reads an exported model as we meant it: the same token ids, the same greedy tokens.

    ghost demo                                            the starter model, as demo/merged
    python -m benchmarks.gguf_runtime demo/merged         prints the tables of benchmarks/results/gguf.md

It needs xllamacpp (the extra `home`). Exit code 1 when an id differs, or a greedy
token of f16.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, get_args

from ghost.evaluation.prompts import PROMPTS, conversation
from ghost.serving.export import export, export_adapter, export_base
from ghost.serving.gguf_file import Type
from ghost.serving.llama_cpp import LlamaCpp
from replicate_deployment import ghost_json
from replicate_deployment.chat_format import Turn, render_prompt
from replicate_deployment.tokenization import Tokenizer, encode, encode_prompt, load_tokenizer

NEW_TOKENS = 24
EVERY = 5  # positions of the prompts, whose log-probabilities are compared
TEXTS = (
    "B: tu fais quoi ce soir ?\nA:",
    "B: l'été à Noël, ça va? “oui” — non…\nA: œuf, Straße, naïve, l’été\nB: ok\nA:",
    "B: 😂😂 👩‍🍳 👨‍👩‍👧‍👦 🏳️‍🌈 🇫🇷 👍🏽\nA: 🙃\nB: ☕️?\nA:",
    "B: one\n two\n\n three\n \n B: four\nA:",
    "B: a  b   c    d     e        f\nA:",
    "B: e\u0301 (two code points), \u200bzero\u00a0width, ﷽, 漢字, Ελλάδα, עברית, हिन्दी\nA:",
    "B: a literal </s> and <s> and [INST] and <0x0A> and <unk>\nA:",
    "B: tab\there, a return\r\nand ▁ the mark itself ▁▁\nA:",
    'B: https://example.org/a?b=c&d=%20#e {"x": [1, 2.5e-3]} C:\\dir\\file\nA:',
    "B: 123456789 3,14 18h04 +33 6 12 34 56 78\nA:",
)


class Chat(NamedTuple):
    llama: list[int]
    transformers: list[int]


def chat_ids(llama: LlamaCpp, tokenizer: Tokenizer, turns: Sequence[Turn], me: str) -> Chat:
    """The ids of a chat by the template in the file, special tokens read as such, as servers make them."""
    messages = [{"role": "assistant" if turn.label == me else "user", "content": turn.text} for turn in turns]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    ours = tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
    return Chat(llama.ids(text, bos=False, special=True), list(ours))


def greedy_transformers(model: Any, ids: Sequence[int], end: int) -> list[int]:
    import torch

    asked = torch.tensor([[*ids]])
    plain = {"do_sample": False, "temperature": 1.0, "top_k": 50, "repetition_penalty": 1.0}
    limits = {"max_new_tokens": NEW_TOKENS, "eos_token_id": end, "pad_token_id": end}
    drawn = model.generate(asked, attention_mask=torch.ones_like(asked), **plain, **limits)
    return [int(token) for token in drawn[0, len(ids) :]]


def logprobs(model: Any, ids: Sequence[int]) -> Any:
    """float32 (positions, vocabulary) of transformers' model."""
    import torch

    with torch.inference_mode():
        return model(input_ids=torch.tensor([[*ids]]), use_cache=False).logits[0].float().log_softmax(-1)


class Off(NamedTuple):
    """|Δ log-probability| in nats at each position: of our likeliest next token, and of the text's own; and the text's
    log-probabilities by us and by llama.cpp."""

    likeliest: list[float]
    text: list[float]
    ours: list[float]
    theirs: list[float]


def off(llama: LlamaCpp, model: Any, texts: Sequence[Sequence[int]]) -> Off:
    found = Off([], [], [], [])
    for ids in texts:
        scores = logprobs(model, ids)
        for at in range(EVERY, len(ids), EVERY):
            best = int(scores[at - 1].argmax())
            theirs = llama.logprobs(ids[:at])
            own = float(theirs[ids[at]])
            found.likeliest.append(abs(float(theirs[best]) - float(scores[at - 1, best])))
            found.ours.append(float(scores[at - 1, ids[at]]))
            found.theirs.append(own)
            found.text.append(abs(own - found.ours[-1]))
    return found


def load_model(folder: Path) -> Any:
    """In float32, as the engine loads it on a CPU."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def agreement(model: Any, ids: Sequence[int], ours: list[int], theirs: list[int], end: int) -> str:
    """`all`, or where they part and how far apart our two likeliest tokens are there. llama.cpp leaves out the end
    token."""
    ours, theirs = ([token for token in tokens if token != end] for tokens in (ours, theirs))
    if ours == theirs:
        return "all"
    pairs = enumerate(zip(ours, theirs, strict=False))
    at = next((place for place, (one, other) in pairs if one != other), min(len(ours), len(theirs)))
    first, second = logprobs(model, [*ids, *ours[:at]])[-1].topk(2).values.tolist()
    return f"{at}, then {first - second:.1g} nats apart"


class Column(NamedTuple):
    """A file, or a base with an adapter over it, beside the merged model."""

    name: str
    file: Path
    lora: Path | None = None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="a merged model")
    parser.add_argument("--adapter", type=Path, help="the adapter it was merged from: measured over its base too")
    parser.add_argument("--base", help="that adapter's base")
    args = parser.parse_args()
    folder: Path = args.model
    ghost, tokenizer, model = ghost_json.read(folder), load_tokenizer(folder), load_model(folder)
    end, me = tokenizer.eos_token_id, ghost.labels.me
    chats = {name: conversation(texts, ghost.labels) for name, texts in PROMPTS.items()}
    prompts = {name: encode_prompt(tokenizer, turns, ghost.labels, ghost.recipe) for name, turns in chats.items()}
    ours = {name: greedy_transformers(model, ids, end) for name, ids in prompts.items()}
    ends = []
    with tempfile.TemporaryDirectory() as scratch:
        columns = []
        for kind in get_args(Type):
            columns.append(Column(kind, Path(export(folder, Path(scratch, kind), kind)["file"])))
        if args.adapter:
            lora = Path(export_adapter(args.adapter, args.base, Path(scratch, "lora"))["file"])
            for kind in ("f16", "q4_0"):
                base = Path(export_base(args.base, Path(scratch, f"base-{kind}"), kind)["file"])
                columns.append(Column(f"base {kind} + adapter", base, lora))
        begin = "" if "ByteLevel" in str(tokenizer.backend_tokenizer.decoder) else " "
        print("| | MB | equal replies | mean Δ, likeliest | largest | mean Δ, text | loss, text |")
        print("|---|---:|---:|---:|---:|---:|---:|", flush=True)
        for column in columns:
            with LlamaCpp(column.file, column.lora) as llama:
                if column is columns[0]:
                    texts = [*TEXTS, *(render_prompt(turns, ghost.labels) for turns in chats.values())]
                    same = [llama.ids(begin + text) == encode(tokenizer, text).ids for text in texts]
                    pairs = [chat_ids(llama, tokenizer, turns, me) for turns in chats.values()]
                    chatted = [pair.llama == pair.transformers for pair in pairs]
                replies = {name: llama.greedy(ids, NEW_TOKENS) for name, ids in prompts.items()}
                equal = [agreement(model, prompts[name], drawn, replies[name], end) for name, drawn in ours.items()]
                found = off(llama, model, [*prompts.values()])
            size = column.file.stat().st_size + (column.lora.stat().st_size if column.lora else 0)
            mean = [f"{sum(values) / len(values):.2g}" for values in (found.likeliest, found.text)]
            loss = -sum(found.theirs) / len(found.theirs)
            print(
                f"| {column.name} | {size / 1e6:.1f} | {equal.count('all')} of {len(equal)} | {mean[0]} | "
                f"{max(found.likeliest):.2g} | {mean[1]} | {loss:.4f} |",
                flush=True,
            )
            ends += [f"{column.name}: {name}: {end}" for name, end in zip(ours, equal, strict=True) if end != "all"]
            if column is columns[0]:
                greedy = equal
    print(f"\nours: loss {-sum(found.ours) / len(found.ours):.4f}, {len(found.ours)} positions")
    print(f"the same ids: {sum(same)} of {len(same)} texts, {sum(chatted)} of {len(chatted)} chats")
    print(*ends, sep="\n")
    return 0 if all(same) and all(chatted) and {*greedy} == {"all"} else 1


if __name__ == "__main__":
    sys.exit(main())
