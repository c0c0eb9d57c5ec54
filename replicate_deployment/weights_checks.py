"""What `cog push` would fail on, in weights/: the merged model as the engine will load it."""

import importlib.util
import json
import struct
from functools import partial
from pathlib import Path
from typing import Any

from . import ghost_json, golden
from .chat_format import END_TOKEN, Turn, chat_template, render_prompt
from .checks import Context, Problem, Unable, check
from .settings import from_facts

check_of_weights = partial(check, of_weights=True)


@check_of_weights("ghost.json and hashes")
def hashes(context: Context) -> str:
    if context.weights.is_symlink():
        found = f"{context.weights} is a link, and Docker follows none out of the build context"
        raise Problem(found, f"copy what it links to: cp -r {context.weights.resolve()}/. {context.weights}/")
    ghost_json.verify(context.ghost)
    return f"{len(context.ghost.block('files'))} files as recorded"


@check_of_weights("shards")
def shards(context: Context) -> str:
    todo = "copy or pull the merged folder again"
    headers = {path.name: _header(path) for path in sorted(context.weights.glob("*.safetensors"))}
    tensors = {name: (shard, facts) for shard, header in headers.items() for name, facts in header.items()}
    if not tensors:
        raise Problem(f"no safetensors in {context.weights}", todo)
    for name, (shard, facts) in tensors.items():
        if facts["dtype"] != "F16":
            raise Problem(f"{shard}: {name} is {facts['dtype']}, not F16", "ghost merge")
    size = sum(facts["data_offsets"][1] - facts["data_offsets"][0] for _, facts in tensors.values())
    index = context.weights / "model.safetensors.index.json"
    if index.is_file():
        document = json.loads(index.read_text(encoding="utf-8"))
        if document["weight_map"] != {name: shard for name, (shard, _) in tensors.items()}:
            raise Problem("the index and the shards' headers do not list the same tensors", todo)
        if document["metadata"]["total_size"] != size:
            raise Problem(f"the index says {document['metadata']['total_size']:,} bytes, the headers {size:,}", todo)
    elif len(headers) > 1:
        raise Problem(f"{len(headers)} shards and no {index.name}", todo)
    return f"{len(headers)} with {len(tensors)} F16 tensors, {size / 1e9:.2f} GB"


@check_of_weights("end token")
def end_token(context: Context) -> str:
    def read(name: str) -> dict[str, Any]:
        path = context.weights / name
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}

    spelled = read("tokenizer_config.json").get("eos_token")
    spelled = spelled["content"] if isinstance(spelled, dict) else spelled
    ids = {added["content"]: added["id"] for added in read("tokenizer.json").get("added_tokens", [])}
    for name in ("config.json", "generation_config.json"):
        facts = read(name)
        if "eos_token_id" in facts and facts["eos_token_id"] != ids.get(spelled):
            found = f"{name} ends on {facts['eos_token_id']}, the tokenizer's {spelled} is {ids.get(spelled)}"
            raise Problem(found, "ghost merge")
        if facts.get("pad_token_id") is not None and facts["pad_token_id"] == facts.get("eos_token_id"):
            raise Problem(f"{name}: the pad token is the end token", "ghost merge")
    return f"{spelled} = {ids.get(spelled)}"


@check_of_weights("sampling")
def sampling(context: Context) -> str:
    settings = from_facts(context.ghost.block("sampling"))
    return f"{settings.max_new_tokens} tokens at temperature {settings.temperature}"


@check_of_weights("chat template")
def template(context: Context) -> str:
    _need("transformers")
    from .tokenization import encode, load_tokenizer

    tokenizer, labels = load_tokenizer(context.weights), context.ghost.labels
    # The equality is claimed for turns without special strings.
    turns = [Turn(label, text.replace(END_TOKEN, "")) for label, text in golden.turns(labels)]
    if context.ghost.facts["text"]["recipe"] != "windows":
        turns = turns[-1:]  # only windows leave an A: turn of the history without an end token
    roles = [{"role": "user" if label == labels.other else "assistant", "content": text} for label, text in turns]
    if tokenizer.chat_template is None:
        raise Problem("the tokenizer has no chat template", "ghost merge")
    ids = tokenizer.apply_chat_template(roles, add_generation_prompt=True, return_dict=False)
    if ids != encode(tokenizer, render_prompt(turns, labels)).ids:
        raise Problem("the tokenizer's chat template does not give the ids that chat_format gives", "ghost merge")
    return "the ids of chat_format" + (", word for word" if tokenizer.chat_template == chat_template(labels) else "")


@check_of_weights("golden prompt")
def golden_prompt(context: Context) -> str:
    _need("torch", "transformers", "accelerate")
    from .engine import Engine

    engine = Engine.load(context.weights, hashes=False)
    return f"{len(engine.ghost.block('golden')['ids'])} ids and 5 log-probabilities, on {engine.model.device}"


def _need(*packages: str) -> None:
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        raise Unable(f"{missing[0]} is not installed: pip install -e '.[serve]'")


def _header(path: Path) -> dict[str, Any]:
    """Format: eight bytes of little-endian length, then JSON, then the tensors without gaps."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        start = stream.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
        if length > size - 8:
            raise Problem(f"{path.name}: not a whole safetensors file", "copy or pull the merged folder again")
        header = dict(json.loads(stream.read(length)))
    header.pop("__metadata__", None)
    if max((facts["data_offsets"][1] for facts in header.values()), default=0) != size - 8 - length:
        raise Problem(f"{path.name}: its tensors do not fill it", "copy or pull the merged folder again")
    return header
