"""The starter base: a small Mistral made on the spot, for the demo and the tests.

Same architecture class as Mistral-7B (grouped-query attention, RMSNorm, SwiGLU, untied head) and the same kind of
tokenizer (BPE over "▁" words with byte fallback, BOS 1, end token 2, no pad, a newline is the one token <0x0A>).
"""

import hashlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import count, islice
from pathlib import Path
from random import Random
from typing import Any

from ghost.atomic import replace_folder
from ghost.console import console, progress
from ghost.demo.chats import conversations, other_chats, turns
from replicate_deployment import chat_format, tokenization
from replicate_deployment.chat_format import Labels, Turn, render
from replicate_deployment.tokenization import encode

# Pretraining of the starter base: other people's chats, packed rows, one plain loop.
#
# The person of the demo is not in this corpus: her partners and their friends are, on both sides of the conversation.
# So the base knows the format, the languages and what can be talked about, and her voice is left to fine-tuning.


@dataclass(frozen=True)
class Recipe:
    """Every number that the starter base depends on."""

    seed: int = 0
    vocab_size: int = 4096
    hidden: int = 256
    layers: int = 4  # in the same minute: 2.8 nats per token, 6 layers reach 3.3
    heads: int = 8
    tokenizer_windows: int = 4000  # texts that the tokenizer is trained on
    row: int = 128  # tokens
    rows: int = 4  # per step; in a fixed minute, many small steps learn far more than few large ones
    steps: int = 360
    warmup: int = 20  # steps
    lr: float = 3e-3  # of the embeddings ten times this
    weight_decay: float = 0.1


def windows(seed: int) -> Iterator[str]:
    """Endless rendered windows of 1 to 10 turns that end in an A: turn, from every pair of the other people."""
    rng = Random(seed)
    labels = Labels()
    chats = [(chat, conversations(chat, seed=seed, mean_gap=24)) for chat in other_chats()]
    for number in count():
        chat, stream = chats[number % len(chats)]
        said = [Turn(labels.me if mine else labels.other, text) for mine, text in turns(next(stream), chat.members[0])]
        size = rng.randint(1, 10)
        window: list[Turn] = []
        for turn in said:
            window.append(turn)
            if turn.label == labels.me and len(window) >= size:
                yield render(window)
                window, size = [], rng.randint(1, 10)


def packed_rows(tokenizer: Any, recipe: Recipe) -> Iterator[list[int]]:
    """Windows one after the other, each with BOS and end token, cut every `row` tokens."""
    ids: list[int] = []
    for window in windows(recipe.seed):
        ids += encode(tokenizer, window, end=True).ids
        while len(ids) >= recipe.row:
            yield ids[: recipe.row]
            ids = ids[recipe.row :]


def pretrain(model: Any, tokenizer: Any, recipe: Recipe) -> float:
    """Train `model` in place for `recipe.steps` steps; returns the mean loss (nats per token) of the last tenth."""
    import torch

    _initialise(model)
    embeddings = list(model.get_input_embeddings().parameters())
    rest = [parameter for name, parameter in model.named_parameters() if "embed_tokens" not in name]
    optimiser = torch.optim.AdamW(
        [{"params": rest, "peak": recipe.lr}, {"params": embeddings, "peak": 10 * recipe.lr}],
        betas=(0.9, 0.95),
        weight_decay=recipe.weight_decay,
        fused=True,
    )
    stream = packed_rows(tokenizer, recipe)
    losses: list[float] = []
    model.train()
    with progress("pretraining the starter base", total=recipe.steps) as bar:
        for step in range(recipe.steps):
            for group in optimiser.param_groups:
                group["lr"] = group["peak"] * _schedule(step, recipe)
            ids = torch.tensor(list(islice(stream, recipe.rows)))
            loss = model(input_ids=ids, labels=ids, use_cache=False).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            optimiser.zero_grad()
            losses.append(loss.item())
            bar.advance()
    model.eval()
    last = losses[-max(1, recipe.steps // 10) :]
    return sum(last) / len(last)


def _initialise(model: Any) -> None:
    """Wide embeddings, and branches that start at nothing, as in nanochat.

    With the faster embeddings: 3.80 nats per token after 51,000 tokens, where the usual 0.02 everywhere gave 4.77.
    """
    import torch

    with torch.no_grad():
        model.get_input_embeddings().weight.normal_(0, 1)
        for name, parameter in model.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight", "lm_head.weight")):
                parameter.zero_()


def _schedule(step: int, recipe: Recipe) -> float:
    """Linear warm-up, then a cosine to a tenth of the peak."""
    if step < recipe.warmup:
        return (step + 1) / recipe.warmup
    done = (step - recipe.warmup) / max(1, recipe.steps - recipe.warmup)
    return 0.55 + 0.45 * math.cos(math.pi * done)


RECIPE = Recipe()
SOURCES = ("topics_fr", "topics_en", "people", "chats", "starter")
CONTEXT = 2048  # positions; longer than `sequence_len` plus a reply
BYTE_TOKENS = [f"<0x{value:02X}>" for value in range(256)]


def starter_base(cache: Path, recipe: Recipe = RECIPE) -> Path:
    """A pretrained starter base (config.json, safetensors, tokenizer) under `cache`; made when it is not there yet.

    The folder is named after everything that went into it, so a changed number or script makes another base.
    """
    folder = cache / f"starter-{_fingerprint(recipe)}"
    if (folder / "config.json").is_file():  # the folder appears whole or not at all
        return folder
    tokenizer = make_tokenizer(islice(windows(recipe.seed), recipe.tokenizer_windows), recipe.vocab_size)
    model = make_model(tokenizer, seed=recipe.seed, hidden=recipe.hidden, layers=recipe.layers, heads=recipe.heads)
    loss = pretrain(model, tokenizer, recipe)
    console.print(f"starter base: {model.num_parameters():,} parameters, {loss:.2f} nats per token")
    with replace_folder(folder) as aside:
        save_base(aside, model, tokenizer)
    return folder


def _fingerprint(recipe: Recipe) -> str:
    """Hex digest of the recipe's numbers and of the source of all that writes, cuts and learns the chats."""
    digest = hashlib.sha256(repr(sorted(asdict(recipe).items())).encode())
    sources = [Path(__file__).parent / f"{name}.py" for name in SOURCES]
    for path in [*sources, Path(chat_format.__file__), Path(tokenization.__file__)]:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def make_tokenizer(texts: Iterable[str], vocab_size: int) -> Any:
    """A Mistral-like tokenizer trained on `texts`: ids 0-2 are <unk>, <s>, </s>; 3-258 the bytes; then words."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    # Merges must cross neither a newline nor a space; Mistral's own training split words the same way.
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex("\n"), "isolated"), pre_tokenizers.Metaspace("▁", "first", split=True)]
    )
    bpe.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    specials = ["<unk>", "<s>", "</s>"]
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[*specials, *BYTE_TOKENS],
        initial_alphabet=[chr(code) for code in range(0x21, 0x7F)],
        show_progress=False,
    )
    # A line at a time: a newline that is no word of the vocabulary falls back to its byte.
    bpe.post_processor = processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", specials.index("<s>"))])
    bpe.train_from_iterator((line for text in texts for line in text.split("\n")), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=_without_special_bytes(bpe, specials),
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        clean_up_tokenization_spaces=False,
        model_max_length=CONTEXT,
    )


def _without_special_bytes(bpe: Any, specials: list[str]) -> Any:
    """The trainer marks its reserved bytes as special tokens, which decoding would skip; keep them as plain pieces."""
    import json

    from tokenizers import Tokenizer

    document = json.loads(bpe.to_str())
    document["added_tokens"] = [token for token in document["added_tokens"] if token["content"] in specials]
    return Tokenizer.from_str(json.dumps(document))


def make_model(tokenizer: Any, *, seed: int, hidden: int = 256, layers: int = 6, heads: int = 8) -> Any:
    """A randomly initialised MistralForCausalLM in float32, sized in the proportions of the 7B."""
    import torch
    from transformers import MistralConfig, MistralForCausalLM

    torch.manual_seed(seed)
    return MistralForCausalLM(
        MistralConfig(
            vocab_size=len(tokenizer),
            hidden_size=hidden,
            intermediate_size=hidden * 7 // 2,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=heads // 4,
            max_position_embeddings=CONTEXT,
            sliding_window=None,
            rope_theta=1e6,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=None,
        )
    )


def save_base(folder: Path, model: Any, tokenizer: Any) -> None:
    """The folder layout of a base on the Hub: config, safetensors, tokenizer."""
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # a bar for thirty megabytes says nothing
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
