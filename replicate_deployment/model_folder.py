"""Read a model folder, which may come from a stranger: everything that ghost reads from one goes through here.

A file is read only if its name is known and it lies in the folder itself; the rest of the folder is ignored. JSON is
bounded and strict. transformers never sees the folder's own configs: it gets the keys that its class declares, and a
tokenizer made of checked files. docs/security.md lists the attacks that tests try.
"""

import dataclasses
import json
import math
import os
import re
import shlex
import stat
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from .errors import WeightsError, first_line

MEGABYTE = 10**6
CONFIG = "config.json"
GENERATION = "generation_config.json"
INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
ADAPTER_CONFIG, ADAPTER = "adapter_config.json", "adapter_model.safetensors"
TOKENIZER, TOKENIZER_CONFIG, TEMPLATE = "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"
# Read where there is no tokenizer.json.
OLDER_TOKENIZERS = ("tokenizer.model", "vocab.json", "merges.txt")
TOKENIZER_FILES = (
    TOKENIZER,
    *OLDER_TOKENIZERS,
    TOKENIZER_CONFIG,
    TEMPLATE,
    "special_tokens_map.json",
    "added_tokens.json",
)
# What loading a model reads beside the weights: ghost.json must list these where they exist.
LOADED = (CONFIG, GENERATION, INDEX, ADAPTER_CONFIG, *TOKENIZER_FILES)
# Hugging Face's largest: 34 MB (Gemma's tokenizer.json), 200 kB (others). In memory JSON takes some ten times as much.
LARGEST = {TOKENIZER: 64 * MEGABYTE, INDEX: 16 * MEGABYTE, "ghost.json": 16 * MEGABYTE}
LARGEST |= dict.fromkeys(OLDER_TOKENIZERS, 32 * MEGABYTE)
LARGEST_OTHER = 4 * MEGABYTE
LARGEST_HEADER = 100 * MEGABYTE  # of a safetensors file: the format's own limit
DEEPEST = 32
LONGEST_TEXT = 100_000  # characters of a key or a value. Chat templates have 20,000.
LONGEST_NUMBER = 40  # digits. Tokenizers spell "no limit" as 10^30.


def path_of(folder: Path, name: str) -> Path:
    """Return the path of a file of `folder`. Raises WeightsError if it leads outside or is not a regular file.

    Links may lead to other files of the folder, and from a snapshot in the Hub's cache to its blobs.
    """
    path = folder / name
    try:
        real, root = path.resolve(), folder.resolve()
        homes = [root, root.parents[1] / "blobs"] if root.parent.name == "snapshots" else [root]
        regular = stat.S_ISREG(real.stat().st_mode)
    except (OSError, RuntimeError, ValueError) as error:  # RuntimeError: a link to itself
        reason = getattr(error, "strerror", None) or f"{type(error).__name__}"
        raise WeightsError(f"{path}: cannot be read ({reason})") from error
    if not any(real.is_relative_to(home) for home in homes):
        raise WeightsError(f"{path}: a link out of the folder; put the file itself there if you trust it")
    if not regular:
        raise WeightsError(f"{path}: not a regular file; copy or download the folder again")
    return path


def read_bytes(folder: Path, name: str) -> bytes:
    """Return a small file. Raises WeightsError if it is too large, or as `path_of` does."""
    path = path_of(folder, name)
    size, largest = path.stat().st_size, LARGEST.get(name, LARGEST_OTHER)
    if size > largest:
        raise WeightsError(f"{path}: {size:,} bytes; such a file has {largest:,} at most")
    return path.read_bytes()


def read_json(folder: Path, name: str) -> dict[str, Any]:
    """Return the object in a JSON file. Raises WeightsError if it is not strict JSON, or as `read_bytes` does."""
    return parse_json(read_bytes(folder, name), folder / name)


def parse_json(content: bytes, path: Path) -> dict[str, Any]:
    """Raises WeightsError on a key given twice, NaN, half a surrogate pair, a long number or text, or more than 32
    levels."""
    try:
        text = content.decode("utf-8")
        found = json.loads(
            text, object_pairs_hook=_each_key_once, parse_constant=_no_number, parse_float=_finite, parse_int=_whole
        )
        if not isinstance(found, dict):
            raise ValueError(f"a {type(found).__name__} instead of an object")
        level: list[Any] = [found]
        for _ in range(DEEPEST):
            values = [
                value for part in level for value in ([*part, *part.values()] if isinstance(part, dict) else part)
            ]
            if any(len(value) > LONGEST_TEXT for value in values if isinstance(value, str)):
                raise ValueError(f"a text of more than {LONGEST_TEXT:,} characters")
            level = [value for value in values if isinstance(value, (dict, list))]
        if level:
            raise ValueError(f"more than {DEEPEST} levels")
        if re.search(r"\\u[dD][89a-fA-F]", text):
            json.dumps(found, ensure_ascii=False).encode()
    except RecursionError:
        raise WeightsError(f"{path}: not readable JSON (more than {DEEPEST} levels)") from None
    except ValueError as error:  # UnicodeError, JSONDecodeError, and those below
        raise WeightsError(f"{path}: not readable JSON ({first_line(error)[:200]})") from error
    return found


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        [(twice, _)] = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"{twice[:40]!r} is there twice")
    return found


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is not a number")


def _finite(text: str) -> float:
    if len(text) > LONGEST_NUMBER or not math.isfinite(found := float(text)):
        raise ValueError(f"{text[:20]} is out of range")
    return found


def _whole(text: str) -> int:
    if len(text) > LONGEST_NUMBER:
        raise ValueError(f"{text[:20]}… is out of range")
    return int(text)


# config.json

# The largest models on the Hub have 126 layers, a width of 16,384 and 128 heads.
BOUNDS = {
    "num_hidden_layers": 256,
    "n_layer": 256,
    "hidden_size": 65_536,
    "n_embd": 65_536,
    "intermediate_size": 2**20,
    "n_inner": 2**20,
    "head_dim": 4_096,
    "vocab_size": 2_000_000,
    "max_position_embeddings": 2**27,
    "n_positions": 4_096,  # GPT-2 allocates its square, a byte each, in every layer
    "n_ctx": 2**20,
    "sliding_window": 2**27,
}
COUNT = 1_024  # of other things: keys that begin with num_ or n_
# Keys with which transformers would load something else than this folder's safetensors.
LEADS_ELSEWHERE = {
    "auto_map": "Python code in the folder",
    "configuration_files": "another config",
    "transformers_weights": "other weights",
    "custom_generate": "Python code in the folder",
    "kernel_config": "native code from the Hub",
    "use_kernels": "native code from the Hub",
}
IMPLEMENTATIONS = ("eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention", "grouped_mm")
# Keys of older configs that the classes of transformers 5 translate.
OLDER_KEYS = {"rope_theta", "rope_scaling", "partial_rotary_factor"}


def read_config(folder: Path) -> dict[str, Any]:
    """Return config.json. Raises WeightsError if a size is out of bounds or a key would load something else."""
    found = read_json(folder, CONFIG)
    path = folder / CONFIG
    for part in _objects(found):
        for key, value in part.items():
            if key in LEADS_ELSEWHERE and value:
                raise WeightsError(
                    f"{path}: {key} names {LEADS_ELSEWHERE[key]}, which is never loaded; choose a model without it"
                )
            if key.endswith(("_implementation", "_implementation_internal")) and value not in (None, *IMPLEMENTATIONS):
                raise WeightsError(f"{path}: {key} is {value!r:.60}: native code from elsewhere is never loaded")
            bound = BOUNDS.get(key) or (COUNT if key.startswith(("num_", "n_")) else None)
            least = 1 if key in BOUNDS or key.endswith("heads") else 0
            if bound and value is not None and not (type(value) is int and least <= value <= bound):
                raise WeightsError(f"{path}: {key} is {value!r:.60}: a whole number from {least} to {bound:,} expected")
            if type(value) is int and abs(value) > 2**53:
                raise WeightsError(f"{path}: {key} is out of range")
    for key, kinds in (("model_type", str), ("architectures", list)):
        if not isinstance(found.get(key), (kinds, type(None))):
            raise WeightsError(f"{path}: {key} is {found[key]!r:.60}")
    return found


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
    for child in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _objects(child)


def transformers_config(folder: Path) -> Any:
    """Return transformers' config of the folder, made of the keys that its class declares; others are not read.

    Raises WeightsError on a model type that transformers does not have, or as `read_config` does.
    """
    from transformers import CONFIG_MAPPING

    found, path = read_config(folder), folder / CONFIG
    kind = found.get("model_type")
    if kind not in CONFIG_MAPPING:
        raise WeightsError(f"{path}: model_type is {kind!r:.60}, which transformers does not have")
    with one_line(f"{path}: not a model's config"):
        declared = CONFIG_MAPPING[kind]
        keys = {field.name for field in dataclasses.fields(declared)} | {*declared.attribute_map} | OLDER_KEYS
        keys.remove("dtype")  # callers give their own
        return declared.from_dict({key: value for key, value in found.items() if key in keys})


@contextmanager
def one_line(what: str) -> Iterator[None]:
    """Turn whatever a library raises on strange input into one line; a missing package or memory is not the input's."""
    try:
        yield
    except (WeightsError, ImportError, MemoryError):
        raise
    except Exception as error:
        raise WeightsError(f"{what} ({first_line(error)[:200]})") from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # what Rust's panics become
            raise
        raise WeightsError(f"{what} ({first_line(error)[:200]})") from None


# Weights. Headers are read without torch or safetensors: eight bytes of little-endian length, that much JSON, then the
# tensors without gaps (https://github.com/huggingface/safetensors#format).


class Entry(NamedTuple):
    dtype: str
    """The format's name: F32, F16, BF16, ..."""
    size: int
    """Bytes."""
    shape: tuple[int, ...]
    start: int
    """Offset of its first byte in the file."""


def read_header(path: Path) -> dict[str, Entry]:
    """Return the file's tensors by name. Raises WeightsError if it is not a safetensors file or is truncated."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        start = stream.read(8)
        length = int.from_bytes(start, "little")
        if 8 + length > size:
            hint = "a Git LFS pointer: run git lfs pull" if start.startswith(b"version ") else "copy or pull it again"
            raise WeightsError(f"{path}: {size:,} bytes, too short for its safetensors header; {hint}")
        if length > LARGEST_HEADER:
            raise WeightsError(f"{path}: not a safetensors file (a header of {length:,} bytes)")
        content = stream.read(length)
    try:
        header = parse_json(content, path)
        header.pop("__metadata__", None)
        entries = {}
        for name, facts in header.items():
            begin, end = facts["data_offsets"]
            shape = tuple(facts["shape"])
            if not all(type(number) is int and 0 <= number < 2**53 for number in (begin, end, *shape)) or begin > end:
                raise ValueError(name)
            entries[name] = Entry(str(facts["dtype"]), end - begin, shape, 8 + length + begin)
    except (WeightsError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise WeightsError(f"{path}: not a safetensors file ({type(error).__name__} in its header)") from error
    promised = max((entry.start + entry.size for entry in entries.values()), default=8 + length)
    if size != promised:
        raise WeightsError(f"{path}: {size:,} bytes, its header promises {promised:,}; copy or pull it again")
    if sum(entry.size for entry in entries.values()) != size - 8 - length:
        raise WeightsError(f"{path}: its tensors overlap, or leave gaps; copy or pull it again")
    return entries


def weight_files(folder: Path) -> list[Path]:
    """Return the safetensors files that loading reads, in name order: the index's shards, or the single file.

    Raises WeightsError if there are none, a shard is missing, a name leads out of the folder, or it is an adapter.
    """
    if os.path.lexists(folder / ADAPTER_CONFIG):  # transformers would load the base that it names instead
        raise WeightsError(
            f"{folder}: holds {ADAPTER_CONFIG}, so this is an adapter; merge it: ghost merge {shlex.quote(str(folder))}"
        )
    if os.path.lexists(folder / INDEX):
        names = shard_names(folder)
        if (folder / SINGLE).exists() and SINGLE not in names:
            raise WeightsError(f"{folder}: holds both {SINGLE} and {INDEX}; remove one of them")
    elif (folder / SINGLE).exists():
        names = [SINGLE]
    else:
        raise WeightsError(f"{folder}: no {SINGLE} and no {INDEX}")
    missing = [name for name in names if not (folder / name).exists()]
    if missing:
        raise WeightsError(
            f"{folder}: {len(missing)} of {len(names)} shards of {INDEX} are missing, first {missing[0]}; "
            "download it again"
        )
    return [path_of(folder, name) for name in names]


def shard_names(folder: Path) -> list[str]:
    """Return the files that the index names. Raises WeightsError on a name that is not one of this folder's."""
    shards = read_json(folder, INDEX).get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise WeightsError(f"{folder / INDEX}: not a readable index (no weight_map)")
    for name in shards.values():
        if not (isinstance(name, str) and re.fullmatch(r"[\w-][\w.-]*\.safetensors", name)):
            raise WeightsError(f"{folder / INDEX}: names {name!r:.60}, which is no safetensors file of this folder")
    return sorted(set(shards.values()))


def load_model(folder: Path, **how: Any) -> Any:
    """Load the folder's causal language model by transformers; `how` is passed to from_pretrained.

    Raises WeightsError if the folder cannot be loaded, is an adapter, or lacks most of its weights.
    """
    from transformers import AutoModelForCausalLM

    config = sized_config(folder)
    if (folder / GENERATION).exists():
        read_json(folder, GENERATION)
    with one_line(f"{folder}: the model could not be loaded"):
        return AutoModelForCausalLM.from_pretrained(
            folder,
            config=config,
            attn_implementation="sdpa",
            trust_remote_code=False,
            use_safetensors=True,
            local_files_only=True,
            **how,
        )


def sized_config(folder: Path) -> Any:
    """Return transformers' config of a folder that holds the weights which it promises.

    Missing tensors would be allocated and filled with random numbers. Raises WeightsError if more than half are missing
    (tied ones are in the files once), or as `transformers_config` does.
    """
    import torch
    from transformers import AutoModelForCausalLM

    config = transformers_config(folder)
    held = sum(math.prod(entry.shape) for path in weight_files(folder) for entry in read_header(path).values())
    with one_line(f"{folder / CONFIG}: no model can be built from it"), torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa", trust_remote_code=False)
    promised = sum(parameter.numel() for parameter in model.parameters())
    if promised > 2 * held:
        raise WeightsError(
            f"{folder}: {CONFIG} promises {promised:,} weights, and the files hold {held:,}; download it again"
        )
    return config


# The tokenizer

# Keys of tokenizer_config.json that are read. Others name files, classes and code, or are for chat pages.
TOKENIZER_KEYS = {
    *(f"{kind}_token" for kind in ("bos", "eos", "unk", "pad", "sep", "cls", "mask")),
    *("additional_special_tokens", "extra_special_tokens", "added_tokens_decoder", "add_bos_token", "add_eos_token"),
    *("add_prefix_space", "clean_up_tokenization_spaces", "errors", "legacy", "model_max_length", "padding_side"),
    *("truncation_side", "model_input_names", "spaces_between_special_tokens", "split_special_tokens"),
    *("tokenizer_class", "chat_template"),
}
MOST_PIECES = 2_000_000
MOST_ADDED = 20_000
# The sum of the squared lengths of all pieces, with which the time of some readers grows. SmolLM2's has 3 million.
PIECES_SQUARED = 100_000_000
LARGEST_RULES = 200_000  # bytes of all but the vocabulary


def check_tokenizer(folder: Path) -> None:
    """Check tokenizer.json before a library reads it. Raises WeightsError on what would take too long, or too much
    memory, to load or to use."""
    path, found = folder / TOKENIZER, read_json(folder, TOKENIZER)
    try:
        model = found["model"]
        kind, pieces, merges = model.get("type", "BPE"), model["vocab"], model["merges"]  # older files name no type
        added = found.get("added_tokens") or []
        ids = [*pieces.values(), *(token["id"] for token in added)]
        texts = [*pieces, *(token["content"] for token in added)]
        complaints = {
            f"a model of type {kind!r:.40}, not BPE": kind != "BPE",
            "a dropout": model.get("dropout"),
            f"more than {MOST_PIECES:,} pieces or merges": max(len(pieces), len(merges)) > MOST_PIECES,
            f"more than {MOST_ADDED:,} added tokens": len(added) > MOST_ADDED,
            "an id out of range": not all(type(number) is int and 0 <= number < MOST_PIECES for number in ids),
            "pieces that are too long": sum(len(text) ** 2 for text in texts) > PIECES_SQUARED,
            "merges that are not pairs": not all(isinstance(merge, str) or len(merge) == 2 for merge in merges),
        }
        rules = {name: value for name, value in found.items() if name not in ("model", "added_tokens")}
        too_large = len(json.dumps(rules)) > LARGEST_RULES
        complaints |= {"rules that are too large": True} if too_large else _of_rules(rules)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise WeightsError(f"{path}: not a tokenizer ({type(error).__name__}: {first_line(error)[:200]})") from error
    if complaint := next((text for text, met in complaints.items() if met), None):
        raise WeightsError(f"{path}: {complaint}; choose a base like Mistral or Llama")


def _of_rules(rules: dict[str, Any]) -> dict[str, bool]:
    """What is wrong with the parts that rewrite and split a text."""
    parts = [*_objects(rules)]
    patterns = [part["Regex"] for part in parts if isinstance(part.get("Regex"), str)]
    replacing = [str(part["content"]) for part in parts if part.get("type") == "Replace"]
    prepended = [str(part["prepend"]) for part in parts if "prepend" in part]
    return {
        "a padding of more than a million tokens": re.search(r"\d{7}", json.dumps(rules.get("padding"))) is not None,
        "replacements that multiply a text": len(replacing) > 8 or any(len(text) > 4 for text in replacing),
        "a long text before each text": any(len(text) > 16 for text in prepended),
        "a regular expression whose time may explode": any(map(may_explode, patterns)),
    }


def may_explode(pattern: str) -> bool:
    """Whether a regular expression is long, refers back, or repeats a group that repeats or chooses inside.

    Without such a group the time to match grows as a power of the text's length, not exponentially.
    """
    if len(pattern) > 2_000 or re.search(r"\\[1-9k]", pattern):
        return True
    # Without escapes and classes. One that is never closed ends with the text: else each [ would be tried to the end.
    bare = re.sub(r"\\.|\[\^?\]?(?:\\.|\[:\w+:\]|[^\]\\])*(?:\]|\Z)", "x", pattern)
    repeats = re.compile(r"[*+]|\{\d*,\d*\}|\{\d{3,}\}")
    inside = [False]
    for place, character in enumerate(bare):
        if character == "(":
            inside.append(False)
        elif character == ")" and len(inside) > 1:
            risky = inside.pop()
            if risky and repeats.match(bare, place + 1):
                return True
            inside[-1] |= risky
        elif character == "|" or (character == "?" and bare[place - 1 : place] != "(") or repeats.match(bare, place):
            inside[-1] = True
    return False


def load_tokenizer(folder: Path) -> Any:
    """Load the folder's tokenizer by transformers, from a temporary folder with the checked files and nothing else.

    The chat template stays text: compare it before anything renders it. Raises WeightsError.
    """
    from transformers import AutoTokenizer

    config = transformers_config(folder) if (folder / CONFIG).exists() else None
    names = [name for name in TOKENIZER_FILES if os.path.lexists(folder / name)]
    if TOKENIZER in names:
        check_tokenizer(folder)
        names = [name for name in names if name not in OLDER_TOKENIZERS]
    with tempfile.TemporaryDirectory(prefix="ghost-tokenizer-") as aside:
        for name in names:
            content = read_bytes(folder, name)
            if name == TOKENIZER_CONFIG:
                found = parse_json(content, folder / name)
                if found.get("auto_map"):
                    raise WeightsError(f"{folder / name}: auto_map names Python code, which is never run")
                kept = {key: value for key, value in found.items() if key in TOKENIZER_KEYS}
                content = json.dumps(kept).encode()
            elif name.endswith(".json") and name != TOKENIZER:
                parse_json(content, folder / name)
            Path(aside, name).write_bytes(content)
        with one_line(f"{folder}: no tokenizer could be loaded"):
            made = AutoTokenizer.from_pretrained(aside, config=config, trust_remote_code=False, local_files_only=True)
        made.name_or_path = str(folder)
    return made
