"""Whether llama.cpp reads an exported model as we meant it: the same token ids, the same greedy tokens.

    ghost demo                                            the starter model, as demo/merged
    python -m benchmarks.gguf_runtime demo/merged         prints the tables of benchmarks/results/gguf.md

It needs llama-cpp-python, which builds llama.cpp from source and which nothing else here needs. Exit code 1 when an id
differs, or a greedy token of f16 with a float32 cache.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ghost.evaluation.prompts import PROMPTS, conversation
from ghost.serving.export import export
from replicate_deployment import ghost_json
from replicate_deployment.chat_format import Turn, render_prompt
from replicate_deployment.tokenization import Tokenizer, encode, encode_prompt, load_tokenizer

NEW_TOKENS = 96
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


def open_llama(file: Path, *, cache: str = "f32") -> Any:
    """The file in llama.cpp, on the CPU; the scores of all positions are kept. Its own default cache is f16."""
    import llama_cpp

    kind = {"f32": llama_cpp.GGML_TYPE_F32, "f16": llama_cpp.GGML_TYPE_F16}[cache]
    cached = {"type_k": kind, "type_v": kind}
    return llama_cpp.Llama(str(file), n_ctx=1024, n_gpu_layers=0, n_threads=1, logits_all=True, verbose=False, **cached)


def text_ids(llama: Any, text: str) -> list[int]:
    """BOS and the text's ids, nothing in it read as a special token. The space is the one that training's tokenizer
    adds, and that the file tells llama.cpp not to."""
    return list(llama.tokenize((" " + text).encode(), add_bos=True, special=False))


class Chat(NamedTuple):
    llama: list[int]
    transformers: list[int]


def chat_ids(llama: Any, tokenizer: Tokenizer, turns: Sequence[Turn], me: str) -> Chat:
    """The ids of a chat by the template in the file, special tokens read as such, as servers make them."""
    messages = [{"role": "assistant" if turn.label == me else "user", "content": turn.text} for turn in turns]
    template = llama.metadata["tokenizer.chat_template"]
    text = tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False, add_generation_prompt=True)
    ours = tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
    return Chat(list(llama.tokenize(text.encode(), add_bos=False, special=True)), list(ours))


def greedy_llama(llama: Any, ids: Sequence[int], end: int) -> list[int]:
    llama.reset()
    drawn: list[int] = []
    for token in llama.generate(ids, temp=0.0, top_k=1, repeat_penalty=1.0):
        drawn.append(int(token))
        if token == end or len(drawn) == NEW_TOKENS:
            break
    return drawn


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


def off(llama: Any, model: Any, ids: Sequence[int]) -> list[float]:
    """|Δ log-probability| in nats of the likeliest next token at each position."""
    import torch

    llama.reset()
    llama.eval(ids)
    theirs = torch.from_numpy(llama.scores[: len(ids)].copy()).log_softmax(-1)
    ours = logprobs(model, ids)
    best = ours.argmax(-1, keepdim=True)
    return [float(value) for value in (ours.gather(1, best) - theirs.gather(1, best)).abs().flatten()]


def load_model(folder: Path) -> Any:
    """In float32, as the engine loads it on a CPU."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()


def agreement(model: Any, ids: Sequence[int], ours: list[int], theirs: list[int]) -> str:
    """`all`, or where they part and how far apart our two likeliest tokens are there."""
    if ours == theirs:
        return "all"
    pairs = enumerate(zip(ours, theirs, strict=False))
    at = next((place for place, (one, other) in pairs if one != other), min(len(ours), len(theirs)))
    first, second = logprobs(model, [*ids, *ours[:at]])[-1].topk(2).values.tolist()
    return f"{at}, then {first - second:.1g} nats apart"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    folder: Path = parser.parse_args().model
    ghost, tokenizer, model = ghost_json.read(folder), load_tokenizer(folder), load_model(folder)
    end, me = tokenizer.eos_token_id, ghost.labels.me
    chats = {name: conversation(texts, ghost.labels) for name, texts in PROMPTS.items()}
    prompts = {name: encode_prompt(tokenizer, turns, ghost.labels, ghost.recipe) for name, turns in chats.items()}
    ours = {name: greedy_transformers(model, ids, end) for name, ids in prompts.items()}
    columns: dict[str, list[str]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        f16 = Path(export(folder, Path(scratch, "f16"), "f16")["file"])
        q8_0 = Path(export(folder, Path(scratch, "q8_0"), "q8_0")["file"])
        for column, file, cache in (
            ("f16, cache f32", f16, "f32"),
            ("f16, cache f16", f16, "f16"),
            ("q8_0, cache f16", q8_0, "f16"),
        ):
            llama = open_llama(file, cache=cache)
            if not columns:
                texts = [*TEXTS, *(render_prompt(turns, ghost.labels) for turns in chats.values())]
                same = [text_ids(llama, text) == encode(tokenizer, text).ids for text in texts]
                pairs = [chat_ids(llama, tokenizer, turns, me) for turns in chats.values()]
                chatted = [pair.llama == pair.transformers for pair in pairs]
                print(f"the same ids: {sum(same)} of {len(same)} texts, {sum(chatted)} of {len(chatted)} chats\n")
            columns[column] = [
                agreement(model, ids, ours[name], greedy_llama(llama, ids, end)) for name, ids in prompts.items()
            ]
            apart = [value for ids in prompts.values() for value in off(llama, model, ids)]
            columns[column].append(f"{sum(apart) / len(apart):.1g}, {max(apart):.1g}")
            llama.close()
    print("| prompt | tokens | drawn |", " | ".join(columns), "|\n|---|---:|---:|", "---|" * len(columns))
    for name, *cells in zip(prompts, *columns.values(), strict=False):
        print(f"| {name} | {len(prompts[name])} | {len(ours[name])} |", " | ".join(cells), "|")
    print("| mean, largest Δlogp | | |", " | ".join(column[-1] for column in columns.values()), "|")
    greedy = columns["f16, cache f32"][:-1]
    return 0 if all(same) and all(chatted) and {*greedy} == {"all"} else 1


if __name__ == "__main__":
    sys.exit(main())
