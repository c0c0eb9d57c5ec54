"""Checks of a merged model, used by `ghost check` and `ghost preflight`.

A check takes what it inspects and returns its findings as text, or raises: Problem (what was found, what to type),
another GhostError, or Skipped where what it would look at is missing.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from replicate_deployment import ghost_json, golden
from replicate_deployment.chat_format import END_TOKEN, Turn
from replicate_deployment.errors import GhostError
from replicate_deployment.ghost_json import Ghost
from replicate_deployment.model_folder import read_header, read_json
from replicate_deployment.settings import from_facts
from replicate_deployment.tokenization import Tokenizer, encode, encode_prompt, load_tokenizer, template_for

if TYPE_CHECKING:
    from replicate_deployment.engine import Engine

Subject = TypeVar("Subject")
CONFIGS = ("config.json", "generation_config.json")
COPY = "copy or pull the merged folder again"


class Problem(GhostError):
    """A failed check: what was found, and what to type."""

    def __init__(self, found: str, todo: str) -> None:
        super().__init__(found)
        self.todo = todo


class Skipped(Exception):
    """There is nothing to look at: why."""


@dataclass(frozen=True)
class Result:
    check: str
    status: Literal["ok", "failed", "skipped"]
    found: str
    todo: str = ""
    """What to type if the check failed."""

    def __str__(self) -> str:
        line = f"{self.status:8}{self.check:28}{self.found}"
        return f"{line}\n{'':36}→ {self.todo}" if self.todo else line


def result(name: str, look: Callable[[Subject], str], subject: Subject) -> Result:
    try:
        return Result(name, "ok", look(subject))
    except Skipped as why:
        return Result(name, "skipped", str(why))
    except Problem as problem:
        return Result(name, "failed", str(problem), problem.todo)
    except GhostError as error:
        return Result(name, "failed", str(error))
    except (OSError, ValueError, KeyError, TypeError) as error:
        # A file that is missing or malformed.
        return Result(name, "failed", f"{type(error).__name__}: {' '.join(str(error).split())[:1000]}")


class Model:
    """The folder under test; each part is loaded when a check first needs it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def ghost(self) -> Ghost:
        return ghost_json.read_merged(self.folder)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        return load_tokenizer(self.folder)

    @cached_property
    def engine(self) -> "Engine":
        import accelerate  # noqa: F401  (fail now if it is missing: loading would fail later, with a long message)

        from replicate_deployment.engine import Engine

        return Engine.load(self.folder, hashes=False)  # the check `hashes` has verified them

    def json(self, name: str) -> dict[str, Any]:
        return read_json(self.folder, name)


def hashes(model: Model) -> str:
    ghost_json.verify(model.ghost)
    return f"{len(model.ghost.block('files'))} files as recorded"


def shards(model: Model) -> str:
    headers = {path.name: read_header(path) for path in sorted(model.folder.glob("*.safetensors"))}
    tensors = [(name, shard, entry) for shard, header in headers.items() for name, entry in header.items()]
    homes = {name: shard for name, shard, _ in tensors}
    if not tensors:
        raise Problem(f"no tensors in {model.folder}", COPY)
    if len(homes) < len(tensors):
        twice = next(f"{shard} and {homes[name]}" for name, shard, _ in tensors if shard != homes[name])
        raise Problem(f"{len(tensors) - len(homes)} tensors are stored twice, first in {twice}", COPY)
    other = [(name, entry.dtype) for name, _, entry in tensors if entry.dtype != "F16"]
    if other:
        name, dtype = other[0]
        raise Problem(f"{len(other)} of {len(tensors)} tensors are not F16, first {name} ({dtype})", "ghost merge")
    size = sum(entry.size for *_, entry in tensors)
    index = model.folder / "model.safetensors.index.json"
    if index.is_file():
        document = model.json(index.name)
        if document["weight_map"] != homes:
            raise Problem("the index and the shards' headers list different tensors", COPY)
        if document["metadata"]["total_size"] != size:
            raise Problem(f"the index says {document['metadata']['total_size']:,} bytes, the headers {size:,}", COPY)
    elif len(headers) > 1:
        raise Problem(f"{len(headers)} shards but no {index.name}", COPY)
    return f"{len(headers)} with {len(tensors)} F16 tensors, {size / 1e9:.2f} GB"


def end_token(model: Model) -> str:
    """A missing or different end token makes the model continue after its reply."""
    spelled = model.json("tokenizer_config.json")
    ids = {added["content"]: added["id"] for added in model.json("tokenizer.json")["added_tokens"]}

    def of_tokenizer(kind: str) -> int | None:
        token = spelled.get(f"{kind}_token")
        return ids.get(token["content"] if isinstance(token, dict) else token)

    for kind in ("bos", "eos"):
        said: dict[str, object] = {"the tokenizer": of_tokenizer(kind)}
        said |= {name: _first(model.json(name).get(f"{kind}_token_id")) for name in CONFIGS}
        if (kind == "eos" and None in said.values()) or len(set(map(repr, said.values()))) > 1:
            found = ", ".join(f"{name} says {token}" for name, token in said.items())
            raise Problem(f"{kind}_token_id differs or is missing: {found}", "ghost merge")
    bos, end = of_tokenizer("bos"), of_tokenizer("eos")
    pads = {"the tokenizer": of_tokenizer("pad")} | {name: model.json(name).get("pad_token_id") for name in CONFIGS}
    named = {name: pad for name, pad in pads.items() if pad is not None}  # serving one reply at a time needs no padding
    for name, pad in named.items():
        if pad == end:
            raise Problem(f"{name}: the pad token is the end token, so the end of replies may be masked", "ghost merge")
    if len(set(named.values())) > 1:
        found = ", ".join(f"{name} says {pad}" for name, pad in named.items())
        raise Problem(f"pad_token_id differs: {found}", "ghost merge")
    begin = "no BOS" if bos is None else f"BOS {bos}"
    return f"end {end} and {begin}, the same in tokenizer, config and generation config"


def _first(ids: object) -> object:
    """A generation config may name several end tokens; the tokenizer's comes first."""
    return ids[0] if isinstance(ids, list) and ids else ids


def sampling(model: Model) -> str:
    settings = from_facts(model.ghost.block("sampling"))
    return f"{settings.max_new_tokens} tokens at temperature {settings.temperature}"


def tokenizer(model: Model) -> str:
    """The golden prompt's token ids. Runs before the model is loaded, which not every machine can do."""
    block = model.ghost.block("golden")
    ids = encode(model.tokenizer, block["prompt"]).ids
    if ids != block["ids"]:
        found = f"the golden prompt gives {len(ids)} ids, ghost.json records {len(block['ids'])}"
        raise Problem(f"{found}: this is not the tokenizer used at the merge", COPY)
    return f"{len(ids)} ids of the golden prompt"


def template(model: Model) -> str:
    """Compares the text first: a template is a program, and only our own is ever rendered."""
    tokenizer, labels, recipe = model.tokenizer, model.ghost.labels, model.ghost.recipe
    check_template(tokenizer, model.ghost)
    # The chat template must equal chat_format for turns without special strings only.
    turns = [Turn(label, text.replace(END_TOKEN, "")) for label, text in golden.turns(labels)]
    roles = [{"role": "user" if label == labels.other else "assistant", "content": text} for label, text in turns]
    ids = tokenizer.apply_chat_template(roles, add_generation_prompt=True, return_dict=False)
    if ids != encode_prompt(tokenizer, turns, labels, recipe):
        raise Problem("the tokenizer's chat template gives other ids than chat_format", "ghost merge")
    return "word for word that of chat_format, with its ids"


def check_template(tokenizer: Tokenizer, ghost: Ghost) -> None:
    """Raises Problem unless the tokenizer's chat template is the one that a merge writes, word for word."""
    if tokenizer.chat_template is None:
        raise Problem("the tokenizer has no chat template", "ghost merge")
    if tokenizer.chat_template != template_for(tokenizer, ghost.labels, ghost.recipe):
        raise Problem("the tokenizer's chat template is not the one that ghost merge writes", "ghost merge")


def golden_prompt(model: Model) -> str:
    engine, block = model.engine, model.ghost.block("golden")
    # `end_token` does not read every file that can set an end token; this compares the loaded values.
    loaded, configured = engine.tokenizer.eos_token_id, engine.model.config.eos_token_id
    if loaded != configured:
        raise Problem(f"once loaded, the tokenizer's end token is {loaded} and the model's {configured}", "ghost merge")
    device, tolerance = engine.model.device, block["tolerance"]
    return f"{len(block['ids'])} ids, 5 log-probabilities within {tolerance:g} nats, on {device}"


CHECKS: dict[str, Callable[[Model], str]] = {
    "ghost.json and hashes": hashes,
    "shards": shards,
    "end token": end_token,
    "sampling": sampling,
    "tokenizer": tokenizer,
    "chat template": template,
    "golden prompt": golden_prompt,
}
