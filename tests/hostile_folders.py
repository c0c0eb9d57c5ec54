"""Model folders as a stranger might make them: what is wrong with each, and the words of the refusal.

`python -m tests.hostile_folders > docs/hostile_folders.md` writes the page; tests/test_hostile_folders.py tries each.
"""

import json
import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from ghost import artifact
from replicate_deployment import ghost_json

Edit = Callable[[Path], object]
CODE = "from pathlib import Path\nPath(__file__).with_name('ran').touch()\n"


class Hostile(NamedTuple):
    kind: str
    """base, merged, adapter or gguf"""
    what: str
    edit: Edit
    says: str
    """A regular expression that the refusal matches, in each program that reads such a folder."""
    listed: bool = True
    """Of a merged folder: its ghost.json lists the changed files with their right hashes."""


def change(name: str, **values: object) -> Edit:
    """Set keys of a JSON file, made if it is not there."""

    def edit(folder: Path) -> None:
        path = folder / name
        found = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps(found | values))

    return edit


def deeper(name: str, *keys: str, value: object) -> Edit:
    """Set a value deeper in a JSON file."""

    def edit(folder: Path) -> None:
        found = json.loads((folder / name).read_text())
        part = found
        for key in keys[:-1]:
            part = part.setdefault(key, {}) if isinstance(part.get(key, {}), dict) else part[key]
        part[keys[-1]] = value
        (folder / name).write_text(json.dumps(found))

    return edit


def text(name: str, content: str) -> Edit:
    def edit(folder: Path) -> None:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)

    return edit


def raw(name: str, before: str, after: str) -> Edit:
    def edit(folder: Path) -> None:
        content = (folder / name).read_text()
        assert before in content
        (folder / name).write_text(content.replace(before, after, 1))

    return edit


def twice(name: str) -> Edit:
    """A key given twice, after many others."""
    others = ",".join(f'"{number}":0' for number in range(250_000))
    return text(name, f'{{{others},"x":0,"x":0}}')


def link(name: str, target: str) -> Edit:
    """`target` is relative to the folder's parent, where the test keeps what no one may read."""

    def edit(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(target if target.startswith("/") or target == name else Path("..", target))

    return edit


def pipe(name: str) -> Edit:
    def edit(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)

    return edit


def sparse(name: str, size: int) -> Edit:
    def edit(folder: Path) -> None:
        with (folder / name).open("wb") as stream:
            stream.truncate(size)

    return edit


def weights(content: bytes | Callable[[bytes], bytes]) -> Edit:
    def edit(folder: Path) -> None:
        path = next(folder.glob("*.safetensors"))
        path.write_bytes(content(path.read_bytes()) if callable(content) else content)

    return edit


def header(change: Callable[[dict[str, Any]], object]) -> Edit:
    """Change the header of the weights."""

    def edit(folder: Path) -> None:
        path = next(folder.glob("*.safetensors"))
        content = path.read_bytes()
        length = int.from_bytes(content[:8], "little")
        found = json.loads(content[8 : 8 + length])
        change(found)
        changed = json.dumps(found).encode()
        path.write_bytes(struct.pack("<Q", len(changed)) + changed + content[8 + length :])

    return edit


def index(shard: object) -> Edit:
    def edit(folder: Path) -> None:
        path = next(folder.glob("*.safetensors"))
        path.rename(folder / "model-00001-of-00001.safetensors")
        (folder / "model.safetensors.index.json").write_text(
            json.dumps({"metadata": {"total_size": 1}, "weight_map": {"lm_head.weight": shard}})
        )

    return edit


def both(*edits: Edit) -> Edit:
    def edit(folder: Path) -> None:
        for one in edits:
            one(folder)

    return edit


def relist(folder: Path) -> None:
    """List what is there with its right hash, as who made the folder can."""
    path = folder / ghost_json.NAME
    facts = json.loads(path.read_text())
    path.unlink()
    artifact.write(folder, facts)


def listing(name: str) -> Edit:
    """ghost.json lists a file of this name."""
    return deeper("ghost.json", "files", name, value={"size": 0, "sha256": "0" * 64})


def normalizer(*parts: dict[str, Any]) -> Edit:
    return change("tokenizer.json", normalizer={"type": "Sequence", "normalizers": [*parts]})


def split(*patterns: str) -> Edit:
    parts = [
        {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
        for pattern in patterns
    ]
    return change("tokenizer.json", pre_tokenizer={"type": "Sequence", "pretokenizers": parts})


def pieces(found: dict[str, int]) -> Edit:
    def edit(folder: Path) -> None:
        path = folder / "tokenizer.json"
        document = json.loads(path.read_text())
        document["model"]["vocab"] |= found
        path.write_text(json.dumps(document))

    return edit


def added(count: int) -> Edit:
    def edit(folder: Path) -> None:
        path = folder / "tokenizer.json"
        document = json.loads(path.read_text())
        flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
        document["added_tokens"] += [{"id": 1000 + place, "content": f"<{place}>", **flags} for place in range(count)]
        path.write_text(json.dumps(document))

    return edit


def files_of(folder: Path, value: object) -> None:
    path = folder / "ghost.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"files": value}))


def gguf(change: Callable[[bytes], bytes]) -> Edit:
    """Change the bytes of the file itself, which `path` names."""

    def edit(path: Path) -> None:
        path.write_bytes(change(path.read_bytes()))

    return edit


def after(content: bytes, name: bytes, value: bytes) -> bytes:
    """Overwrite what follows a name."""
    place = content.index(struct.pack("<Q", len(name)) + name) + 8 + len(name)
    return content[:place] + value + content[place + len(value) :]


def deep_facts(content: bytes) -> bytes:
    name = b"ghost.facts"
    place = content.index(struct.pack("<Q", len(name)) + name) + 8 + len(name) + 4
    length = int.from_bytes(content[place : place + 8], "little")
    deep = (DEEP[: 5 * 40] + "1" + "}" * 40).ljust(length).encode()
    return content[: place + 8] + deep + content[place + 8 + length :]


MULTIPLY = {"type": "Replace", "pattern": {"String": " "}, "content": " " * 4}
KERNEL = "kernels-community/flash-attn"
DEEP = '{"a":' * 100_000 + "1" + "}" * 100_000
LOOP = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
ESCAPE = "{{ ''.__class__.__mro__[1].__subclasses__() }}"

FOLDERS = [
    # config.json, of a base
    Hostile(
        "base",
        "attention that is native code from the Hub",
        change("config.json", attn_implementation=KERNEL),
        "native code",
    ),
    Hostile(
        "base",
        "the same by its private name",
        change("config.json", _attn_implementation_internal=KERNEL),
        "native code",
    ),
    Hostile(
        "base",
        "experts that are native code from the Hub",
        change("config.json", experts_implementation=KERNEL),
        "native code",
    ),
    Hostile(
        "base",
        "such attention in a nested config",
        change("config.json", text_config={"attn_implementation": KERNEL}),
        "native code",
    ),
    Hostile(
        "base",
        "auto_map and a Python file",
        both(change("config.json", auto_map={"AutoModelForCausalLM": "evil.Evil"}), text("evil.py", CODE)),
        "Python code in the folder, which is never loaded",
    ),
    Hostile(
        "base",
        "another config for this version of transformers",
        change("config.json", configuration_files=["config.4.0.0.json"]),
        "another config",
    ),
    Hostile("base", "other weights", change("config.json", transformers_weights="../outside/secret"), "other weights"),
    Hostile(
        "base",
        "a model type that transformers does not have",
        change("config.json", model_type="evil"),
        "model_type is 'evil'",
    ),
    Hostile("base", "a model type that is a list", change("config.json", model_type=["llama"]), "model_type is"),
    Hostile("base", "10⁷ layers", change("config.json", num_hidden_layers=10**7), "from 1 to 256"),
    Hostile("base", "a million heads", change("config.json", num_attention_heads=10**6), "from 1 to 1,024"),
    Hostile("base", "a width of 2³⁰", change("config.json", hidden_size=2**30), "from 1 to 65,536"),
    Hostile("base", "a vocabulary of 2⁴⁰", change("config.json", vocab_size=2**40), "from 1 to 2,000,000"),
    Hostile(
        "base",
        "weights of 400 GB promised, 0.3 MB held",
        change("config.json", vocab_size=1_900_000, hidden_size=51_200),
        "promises|with this config it must be|has the shape",
    ),
    Hostile("base", "a negative number of layers", change("config.json", num_hidden_layers=-1), "whole number"),
    Hostile("base", "layers that are a text", change("config.json", num_hidden_layers="2"), "whole number"),
    Hostile("base", "no heads", change("config.json", num_attention_heads=0), "whole number"),
    Hostile(
        "base", "NaN", raw("config.json", '"rms_norm_eps": ', '"rms_norm_eps": NaN, "was": '), "NaN is not a number"
    ),
    Hostile(
        "base",
        "an infinite number",
        raw("config.json", '"rms_norm_eps": ', '"rms_norm_eps": 1e999, "was": '),
        "out of range",
    ),
    Hostile(
        "base",
        "a number of 5,000 digits",
        raw("config.json", '"rms_norm_eps": ', f'"rms_norm_eps": {"9" * 5000}, "was": '),
        "out of range",
    ),
    Hostile("base", "a key given twice", raw("config.json", "{", '{"model_type": "gpt2", '), "is there twice"),
    Hostile("base", "half a surrogate pair", raw("config.json", "{", '{"x": "\\ud800", '), "not readable JSON"),
    Hostile("base", "a config 100,000 levels deep", text("config.json", DEEP), "more than 32 levels"),
    Hostile("base", "a config that is a list", text("config.json", "[]"), "instead of an object"),
    Hostile("base", "a config of 5 GB", sparse("config.json", 5 * 10**9), "such a file has"),
    Hostile(
        "base",
        "a config that is a link to a file outside",
        link("config.json", "outside/secret"),
        "a link out of the folder",
    ),
    Hostile("base", "a config that is a link to itself", link("config.json", "config.json"), r"config\.json"),
    Hostile("base", "a config that is a pipe", pipe("config.json"), "not a regular file"),
    Hostile("base", "a config that is a device", link("config.json", "/dev/zero"), "a link out of the folder"),
    Hostile(
        "base",
        "an adapter beside the model, whose base would be loaded instead",
        change("adapter_config.json", base_model_name_or_path="../outside"),
        "this is an adapter",
    ),
    # weights, of a base
    Hostile(
        "base",
        "an index that leads outside",
        index("../outside/secret"),
        "no safetensors file of this folder|the index and the shards",
    ),
    Hostile(
        "base",
        "an index with an absolute path",
        index("/etc/passwd"),
        "no safetensors file of this folder|the index and the shards",
    ),
    Hostile(
        "base",
        "an index that names a pickle",
        index("pytorch_model.bin"),
        "no safetensors file of this folder|the index and the shards",
    ),
    Hostile(
        "base",
        "an index with a number for a name",
        index(7),
        "no safetensors file of this folder|the index and the shards",
    ),
    Hostile(
        "base",
        "an index without entries",
        both(index("x"), change("model.safetensors.index.json", weight_map={})),
        "no weight_map",
    ),
    Hostile(
        "base",
        "a shard that is a link outside",
        both(index("model-00002.safetensors"), link("model-00002.safetensors", "outside/secret")),
        "a link out of the folder",
    ),
    Hostile(
        "base",
        "a single file and an index of others",
        both(index("model-00001-of-00001.safetensors"), text("model.safetensors", "x")),
        "holds both",
    ),
    Hostile(
        "base",
        "only pickles",
        both(lambda folder: next(folder.glob("*.safetensors")).unlink(), text("pytorch_model.BIN", "x")),
        "only pickles",
    ),
    Hostile("base", "weights that are a pipe", pipe("model.safetensors"), "not a regular file"),
    Hostile("base", "a header of 2⁶³ bytes", weights(struct.pack("<Q", 2**63) + b"{}"), "too short"),
    Hostile(
        "base",
        "a header 100,000 levels deep",
        weights(struct.pack("<Q", len(DEEP)) + DEEP.encode()),
        "not a safetensors file",
    ),
    Hostile("base", "weights that end early", weights(lambda content: content[:-1]), "its header promises"),
    Hostile("base", "tensors that overlap", header(lambda found: found.update(x=found["lm_head.weight"])), "overlap"),
    Hostile(
        "base",
        "a tensor that begins before the file",
        header(lambda found: found["lm_head.weight"].update(data_offsets=[-8, 8])),
        "not a safetensors file",
    ),
    Hostile(
        "base",
        "a tensor whose size is a text",
        header(lambda found: found["lm_head.weight"].update(shape=["9", "9"])),
        "not a safetensors file",
    ),
    # tokenizer, of a base
    Hostile("base", "a tokenizer.json of 5 GB", sparse("tokenizer.json", 5 * 10**9), "such a file has"),
    Hostile(
        "base",
        "a tokenizer.json that is a link outside",
        link("tokenizer.json", "outside/secret"),
        "a link out of the folder",
    ),
    Hostile("base", "a tokenizer.json that is a pipe", pipe("tokenizer.json"), "not a regular file"),
    Hostile("base", "a vocabulary with an id of 2³²", pieces({"evil": 2**32}), "an id out of range"),
    Hostile("base", "a piece of 20,000 letters, which takes quadratic time", pieces({"a" * 20_000: 600}), "too long"),
    Hostile("base", "100,000 added tokens", added(100_000), "added tokens"),
    Hostile("base", "a regular expression that takes exponential time", split("(a+)+$"), "time may explode"),
    Hostile("base", "10,000 regular expressions", split(*["[a" * 1_000] * 10_000), "rules that are too large"),
    Hostile("base", "a key that is there twice, after 250,000 others", twice("tokenizer.json"), "twice"),
    Hostile(
        "base",
        "a chat template of a million letters",
        change("tokenizer_config.json", chat_template="a" * 10**6),
        "a text of more than 100,000",
    ),
    Hostile("base", "replacements that multiply a text by 4¹²", normalizer(*[MULTIPLY] * 12), "multiply"),
    Hostile(
        "base", "a long text before each text", normalizer({"type": "Prepend", "prepend": "x" * 10**5}), "long text"
    ),
    Hostile(
        "base",
        "texts padded to 10⁹ tokens",
        change(
            "tokenizer.json",
            padding={
                "strategy": {"Fixed": 10**9},
                "direction": "Right",
                "pad_to_multiple_of": None,
                "pad_id": 0,
                "pad_type_id": 0,
                "pad_token": "<unk>",
            },
        ),
        "a padding",
    ),
    Hostile("base", "a tokenizer that is random", deeper("tokenizer.json", "model", "dropout", value=0.5), "dropout"),
    Hostile("base", "another kind of model", deeper("tokenizer.json", "model", "type", value="Unigram"), "not BPE"),
    Hostile("base", "a tokenizer that is a list", text("tokenizer.json", "[1]"), "instead of an object"),
    Hostile(
        "base",
        "a model whose parts have other types",
        change("tokenizer.json", model={"type": "BPE", "vocab": [], "merges": {}}),
        "tokenizer",
    ),
    Hostile(
        "base",
        "a tokenizer class in Python",
        both(change("tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.Evil", None]}), text("evil.py", CODE)),
        "never run",
    ),
    Hostile(
        "base", "a longest text that is a word", change("tokenizer_config.json", model_max_length="long"), "tokenizer"
    ),
    Hostile("base", "an end token that is a number", change("tokenizer_config.json", eos_token=7), "tokenizer"),
    # adapters
    Hostile(
        "adapter",
        "an adapter that is only a pickle",
        both(lambda folder: (folder / "adapter_model.safetensors").unlink(), text("adapter_model.bin", "x")),
        "a pickle|can run code",
    ),
    Hostile(
        "adapter",
        "a module to import",
        change("adapter_config.json", megatron_config={"a": 1}, megatron_core="evil"),
        "not merged here",
    ),
    Hostile(
        "adapter",
        "targets by an expression that never ends",
        change("adapter_config.json", target_modules="(.*)*x"),
        "for ever",
    ),
    Hostile(
        "adapter",
        "1,500 targets by expressions that are never closed",
        change("adapter_config.json", target_modules=["[^" * 1_000] * 1_500),
        "adapter",
    ),
    Hostile("adapter", "a rank of 10¹²", change("adapter_config.json", r=10**12), "adapter"),
    Hostile("adapter", "a config 100,000 levels deep", text("adapter_config.json", DEEP), "more than 32 levels"),
    Hostile(
        "adapter",
        "a config that is a link outside",
        link("adapter_config.json", "outside/secret"),
        "a link out of the folder",
    ),
    Hostile(
        "adapter",
        "weights that are a link outside",
        link("adapter_model.safetensors", "outside/secret"),
        "a link out of the folder",
    ),
    # merged models: ghost.json lists all with right hashes, unless said otherwise
    Hostile(
        "merged",
        "attention that is native code from the Hub",
        change("config.json", attn_implementation=KERNEL),
        "native code",
    ),
    Hostile("merged", "10⁷ layers", change("config.json", num_hidden_layers=10**7), "from 1 to 256"),
    Hostile(
        "merged",
        "an index that leads outside",
        index("../outside/secret"),
        "no safetensors file of this folder|the index and the shards",
    ),
    Hostile("merged", "a pickle, listed", text("old.bin", "x"), "can run code"),
    Hostile("merged", "a pickle in capitals, listed", text("OLD.BIN", "x"), "can run code"),
    Hostile("merged", "a pickle in capitals, not listed", text("OLD.PKL", "x"), "not listed", listed=False),
    Hostile("merged", "a shared library, not listed", text("fast.so", "x"), "not listed", listed=False),
    Hostile("merged", "Python code, not listed", text("modeling.py", CODE), "not listed", listed=False),
    Hostile(
        "merged",
        "an unlisted file that loading reads",
        text("special_tokens_map.json", "{}"),
        "not listed",
        listed=False,
    ),
    Hostile("merged", "files: {}", lambda folder: files_of(folder, {}), "not listed", listed=False),
    Hostile(
        "merged",
        "files that are a list",
        lambda folder: files_of(folder, []),
        "not a readable ghost.json",
        listed=False,
    ),
    Hostile("merged", "a listed file outside", listing("../outside/secret"), "no stage writes", listed=False),
    Hostile("merged", "a listed absolute path", listing("/etc/passwd"), "no stage writes", listed=False),
    Hostile(
        "merged", "a listed name with an escape sequence", listing("\x1b[2Jx.json"), "no stage writes", listed=False
    ),
    Hostile(
        "merged", "two names that differ in case only", listing("CONFIG.json"), "upper and lower case", listed=False
    ),
    Hostile(
        "merged",
        "a listed file that is a link outside",
        link("generation_config.json", "outside/secret"),
        "a link out of the folder",
        listed=False,
    ),
    Hostile(
        "merged", "a ghost.json 100,000 levels deep", text("ghost.json", DEEP), "more than 32 levels", listed=False
    ),
    Hostile("merged", "a ghost.json that is a pipe", pipe("ghost.json"), "not a regular file", listed=False),
    Hostile(
        "merged",
        "a size of 10³⁰⁰",
        raw("ghost.json", '"size": ', f'"size": 1{"0" * 300}, "was": '),
        "out of range",
        listed=False,
    ),
    Hostile("merged", "a tolerance of 10⁹", deeper("ghost.json", "golden", "tolerance", value=1e9), "tolerance"),
    Hostile("merged", "golden ids that are texts", deeper("ghost.json", "golden", "ids", value=["1"]), "whole number"),
    Hostile("merged", "a base whose name is a list", deeper("ghost.json", "base", "repo", value=["x"]), "base.repo"),
    Hostile(
        "merged",
        "a sampling setting that nobody knows",
        deeper("ghost.json", "sampling", "evil", value=1),
        "no such setting",
    ),
    Hostile(
        "merged",
        "a million stop sequences",
        deeper("ghost.json", "text", "stop_sequences", value=["x"] * 10**6),
        "at most 64",
    ),
    *(
        Hostile(
            "merged",
            f"a {what} of a million letters",
            deeper("ghost.json", *keys, value="a" * 10**6 + ":"),
            "a text of more than 100,000",
        )
        for what, *keys in (
            ("label", "text", "labels", "me"),
            ("golden prompt", "golden", "prompt"),
            ("recipe", "text", "recipe"),
            ("stop sequence", "text", "stop_sequences"),
            ("sampling setting", "sampling", "top_k"),
            ("key", "text", "a" * 10**6),
        )
    ),
    *(
        Hostile("merged", f"a {what} of 90,000 letters", deeper("ghost.json", *keys, value="a" * 90_000 + ":"), says)
        for what, says, *keys in (
            ("label", "too long", "text", "labels", "other"),
            ("golden prompt", "too long", "golden", "prompt"),
            ("recipe", "are known", "text", "recipe"),
            ("sampling setting", "whole number", "sampling", "top_k"),
        )
    ),
    # The chat template: `ghost check` compares it as text.
    Hostile(
        "template",
        "a chat template that never ends",
        text("chat_template.jinja", LOOP),
        "not the one that ghost merge writes",
    ),
    Hostile(
        "template",
        "a chat template that reaches for Python",
        text("chat_template.jinja", ESCAPE),
        "not the one that ghost merge writes",
    ),
    Hostile(
        "template",
        "a chat template with one more space",
        raw("chat_template.jinja", "{", " {"),
        "not the one that ghost merge writes",
    ),
]

# GGUF files
FOLDERS += [
    Hostile("gguf", what, gguf(change), says)
    for what, says, change in (
        ("a file that is no GGUF file", "does not begin with GGUF", lambda content: b"GGML" + content[4:]),
        ("a file that ends in its header", "ends early", lambda content: content[:2000]),
        ("a file of 12 bytes", "ends early", lambda content: content[:12]),
        ("2⁶³ tensors", "tensors", lambda content: content[:8] + struct.pack("<Q", 2**63) + content[16:]),
        ("2⁶³ keys", "keys", lambda content: content[:16] + struct.pack("<Q", 2**63) + content[24:]),
        ("a key of 2⁴⁰ letters", "too long", lambda content: content[:24] + struct.pack("<Q", 2**40) + content[32:]),
        (
            "a version that nobody knows",
            "version 99",
            lambda content: content[:4] + struct.pack("<I", 99) + content[8:],
        ),
        (
            "10⁷ layers",
            "out of range",
            lambda content: after(content, b"llama.block_count", struct.pack("<II", 4, 10**7)),
        ),
        (
            "layers that are a text",
            "out of range",
            lambda content: after(content, b"llama.block_count", struct.pack("<IQ", 8, 0)),
        ),
        (
            "an array of arrays",
            "an array of values",
            lambda content: after(content, b"tokenizer.ggml.tokens", struct.pack("<II", 9, 9)),
        ),
        (
            "an array of 2⁶⁰ texts",
            "an array of",
            lambda content: after(content, b"tokenizer.ggml.tokens", struct.pack("<IIQ", 9, 8, 2**60)),
        ),
        (
            "a value of no known type",
            "a value of type",
            lambda content: after(content, b"llama.context_length", struct.pack("<I", 77)),
        ),
        (
            "a tensor of 9 dimensions",
            "dimensions",
            lambda content: after(content, b"token_embd.weight", struct.pack("<I", 9)),
        ),
        (
            "a tensor of 2⁶² values",
            "does not fit",
            lambda content: after(content, b"token_embd.weight", struct.pack("<IQQ", 2, 2**31, 2**31)),
        ),
        ("facts 40 levels deep", "more than 32 levels", deep_facts),
    )
]
FOLDERS.append(Hostile("gguf", "a pipe", lambda path: (path.unlink(), os.mkfifo(path)), "no such folder"))

INTRODUCTION = """\
# Model folders from strangers

Each row is a folder that a test makes and gives to the programs that read such folders (`ghost export`, `ghost check`,
`ghost merge`, and the loader of `ghost serve`, `ghost chat` and `ghost preflight`). Each refuses it with one line, runs
nothing from it, opens nothing outside of it, and ends. The table is generated from `tests/hostile_folders.py`, and
`tests/test_hostile_folders.py` tries it.

| folder | what is wrong with it |
|---|---|
"""


def page() -> str:
    kinds = {"template": "merged model"} | {"merged": "merged model", "gguf": "GGUF file"}
    return INTRODUCTION + "".join(f"| {kinds.get(one.kind, one.kind)} | {one.what} |\n" for one in FOLDERS)


def make(hostile: Hostile, original: Path, folder: Path) -> Path:
    """Copy `original` and edit the copy. Beside it lies what no program may read."""
    (folder.parent / "outside").mkdir(parents=True, exist_ok=True)
    (folder.parent / "outside" / "secret").write_text("nobody may read this")
    if original.is_file():
        shutil.copyfile(original, folder)
        hostile.edit(folder)
        return folder
    shutil.copytree(original, folder)
    hostile.edit(folder)
    if (folder / ghost_json.NAME).exists() and hostile.listed:
        relist(folder)
    return folder


if __name__ == "__main__":
    print(page(), end="")
