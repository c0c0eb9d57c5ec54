"""Tiny models for the tests, made here, and a cache in which all workers and all runs find them.

`shared` keeps what tests build but do not change in .cache/tests, in a folder that is named after the code: another
state of it builds everything anew, and what an older state left is deleted.
"""

import fcntl
import functools
import hashlib
import os
import shutil
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from filelock import FileLock

ROOT = Path(__file__).parents[1]
CACHE = ROOT / ".cache" / "tests"
SOURCES = (".py", ".yaml", ".json", ".txt", ".jinja", ".html", ".css", ".md")
LIBRARIES = ("torch", "transformers", "tokenizers", "peft", "bitsandbytes", "accelerate", "safetensors", "numpy")

SENTENCES = [
    "hey tu fais quoi ce soir",
    "pas grand chose, I was about to cook something",
    "on se voit at the café then 😂",
    "mdr ok see you there <3",
    "did you see the match? c'était dingue",
]

Files = dict[str, tuple[int, int]]
_leases: list[int] = []  # file descriptors, locked while this process lives: no other deletes what it uses
_handed_out: dict[Path, Files] = {}


def shared(name: str, build: Callable[[Path], object]) -> Path:
    """A folder that `build(folder)` has filled, once for this state of the code. Copy it to change it."""
    folder = _of_this_code() / name
    with FileLock(folder.with_name(f"{name}.lock")):
        if not folder.is_dir():
            aside = folder.with_name(f"{name}.part")
            shutil.rmtree(aside, ignore_errors=True)  # of a build that was killed
            aside.mkdir()
            build(aside)
            aside.rename(folder)
    _handed_out.setdefault(folder, _files(folder))
    return folder


def changed() -> list[Path]:
    """The folders that a test has written to, which it must not. They are deleted, so the next run is whole."""
    found = [folder for folder, files in _handed_out.items() if _files(folder) != files]
    for folder in found:
        shutil.rmtree(folder, ignore_errors=True)
    return found


@functools.cache
def _of_this_code() -> Path:
    CACHE.mkdir(parents=True, exist_ok=True)
    folder = CACHE / _fingerprint()
    with FileLock(CACHE / "lock"):
        folder.mkdir(exist_ok=True)
        _leases.append(os.open(folder / "in-use", os.O_RDWR | os.O_CREAT))
        fcntl.flock(_leases[-1], fcntl.LOCK_SH)
        for other in CACHE.iterdir():
            if other.is_dir() and other != folder and not _in_use(other):
                shutil.rmtree(other)
    return folder


def _in_use(folder: Path) -> bool:
    with (folder / "in-use").open("ab") as lease:
        try:
            fcntl.flock(lease, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _fingerprint() -> str:
    """Of the product and the tests: what builds a model is among both."""
    packages = [init.parent for init in ROOT.glob("*/__init__.py")]
    digest = hashlib.sha256(repr([sys.version, *map(version, LIBRARIES)]).encode())
    for path in sorted(path for folder in (*packages, ROOT / "config") for path in folder.rglob("*")):
        if path.suffix in SOURCES and path.is_file():
            digest.update(str(path.relative_to(ROOT)).encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def _files(folder: Path) -> Files:
    found = ((path, path.stat()) for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): (status.st_size, status.st_mtime_ns) for path, status in found}


def write_tiny_base(folder: Path, hidden: int = 64) -> Path:
    """A base folder of 2 layers with random weights: right shapes, right tokenizer, knows nothing."""
    from ghost.demo import starter

    tokenizer = starter.make_tokenizer(SENTENCES * 20, vocab_size=512)
    model = starter.make_model(tokenizer, seed=0, hidden=hidden, layers=2, heads=4)
    starter.save_base(folder, model, tokenizer)
    return folder


LETTERS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
OTHERS = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
TOKENIZERS = ("mistral", "llama3", "qwen", "smollm")


@functools.cache
def make_tokenizer(kind: str) -> Any:
    """A tokenizer that does as the base it is named after, trained on a few lines.

    mistral  pieces of text with bytes to fall back on, a space before every text, BOS
    llama3   byte-level, up to three digits a piece, BOS; tokens such as ".\\n"
    qwen     byte-level, composes characters (NFC), no BOS, a digit a piece, added tokens that are not special
    smollm   byte-level, as GPT-2 splits but for digits; names a BOS that it never uses
    """
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    from ghost.demo import starter

    if kind == "mistral":
        return starter.make_tokenizer(SENTENCES * 20, vocab_size=512)
    begin, end, *special = {
        "llama3": ("<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"),
        "qwen": (None, "<|im_end|>", "<|im_start|>", "<|endoftext|>"),
        "smollm": ("<|im_start|>", "<|im_end|>", "<|endoftext|>"),
    }[kind]
    bpe = Tokenizer(models.BPE(ignore_merges=kind == "llama3"))
    whole = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=kind == "smollm")
    digits = r"\p{N}{1,3}" if kind == "llama3" else r"\p{N}"
    before = pre_tokenizers.Split(Regex(f"{LETTERS}|{digits}{OTHERS}"), "isolated")
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True) if kind == "smollm" else before, whole]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=512,
        special_tokens=[token for token in (begin, end, *special) if token],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    joined = ["".join(f"{line}{stop}" for line in SENTENCES for stop in (".\n", "!\n", "?\n\n", " 123 4567  "))]
    bpe.train_from_iterator(joined * 20, trainer)
    if kind == "llama3":
        bpe.post_processor = processors.TemplateProcessing(f"{begin} $A", special_tokens=[(begin, 0)])
    if kind == "qwen":
        bpe.normalizer = normalizers.NFC()
        bpe.add_tokens(["<think>", "</think>"])
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, bos_token=begin, eos_token=end, pad_token=special[-1], clean_up_tokenization_spaces=False
    )


# Architecture, by the name of its config: the tokenizer that goes with it, and what its config says beside the shapes.
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    "Llama": ("llama3", {"tie_word_embeddings": True}),
    "Mistral": ("mistral", {"sliding_window": None}),
    "Qwen2": ("qwen", {"tie_word_embeddings": True}),
    "Qwen3": ("qwen", {"tie_word_embeddings": False}),
    "SmolLM3": ("smollm", {"tie_word_embeddings": True}),
}


def write_base(folder: Path, architecture: str) -> Path:
    """A base of four layers with random weights and a vocabulary that is padded beyond its tokenizer's."""
    import torch
    import transformers

    from ghost.demo import starter

    kind, more = ARCHITECTURES[architecture]
    tokenizer = make_tokenizer(kind)
    config = getattr(transformers, f"{architecture}Config")(
        vocab_size=len(tokenizer) + 6,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=2048,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=[tokenizer.eos_token_id, tokenizer.pad_token_id] if kind != "mistral" else tokenizer.eos_token_id,
        pad_token_id=None,
        **more,
    )
    torch.manual_seed(0)
    model = getattr(transformers, f"{architecture}ForCausalLM")(config)
    with torch.no_grad():  # biases start at zero and norms at one, and nothing would notice that they are lost
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.2)
    starter.save_base(folder, model, tokenizer)
    return folder


def write_tiny_merged(folder: Path, base: Path) -> Path:
    """A merged folder as `ghost merge` writes it, from a base: servable, and talking rubbish."""
    from dataclasses import asdict

    import torch
    from transformers import AutoModelForCausalLM

    from ghost import artifact
    from replicate_deployment import golden
    from replicate_deployment.chat_format import DEFAULT_LABELS
    from replicate_deployment.settings import Settings
    from replicate_deployment.tokenization import load_tokenizer, template_for

    tokenizer = load_tokenizer(base)
    tokenizer.chat_template = template_for(tokenizer, DEFAULT_LABELS, "windows")
    tokenizer.save_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float16)
    model.save_pretrained(folder)
    labels = {"me": DEFAULT_LABELS.me, "other": DEFAULT_LABELS.other}
    artifact.write(
        folder,
        None,
        text={"labels": labels, "recipe": "windows", "stop_sequences": DEFAULT_LABELS.stop_sequences},
        data={"counts": {"messages": 0}, "train_sha256": "", "val_sha256": ""},
        base={"repo": str(base), "revision": None},
        training={"steps": 0},
        merge={"dtype": "float16"},
        sampling=asdict(Settings()),
        golden=golden.record(model.float(), tokenizer, DEFAULT_LABELS),
    )
    return folder
