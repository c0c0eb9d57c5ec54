"""The starter base: a small Mistral made on the spot, for the demo and the tests.

Same architecture class as Mistral-7B (grouped-query attention, RMSNorm, SwiGLU, untied head) and the same kind of
tokenizer (BPE over "▁" words with byte fallback, BOS 1, end token 2, no pad, a newline is the one token <0x0A>).
"""

import hashlib
from collections.abc import Iterable
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

from replicate_deployment import chat_format, tokenization
from training.aside import replace_folder
from training.console import console
from training.sample.pretraining import Recipe, pretrain, windows

RECIPE = Recipe()
SOURCES = ("topics_fr", "topics_en", "scripts", "people", "chats", "pretraining", "starter")
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
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
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
