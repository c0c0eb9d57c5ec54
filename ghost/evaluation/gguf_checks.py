"""The checks of `ghost check FILE.gguf`: an exported model, base or LoRA adapter.

They compare the file with the folder that it was exported from, if that is on this disk, and, if xllamacpp is
installed, what llama.cpp computes with what transformers does.
"""

import importlib.util
import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ghost.errors import ConversionError
from ghost.evaluation.prompts import PROMPTS, conversation
from ghost.installed import install_command
from ghost.serving import gguf_file
from ghost.serving.checks import Problem, Skipped
from ghost.serving.gguf_file import PROBES, ByteLevelVocabulary, Decoder, Vocabulary, read_decoder
from replicate_deployment import ghost_json
from replicate_deployment.chat_format import Labels, render_prompt
from replicate_deployment.errors import WeightsError
from replicate_deployment.tokenization import Tokenizer, encode, load_tokenizer
from training.config import base_named
from training.finetuning.base import resolve_base
from training.merging import adapter as adapters
from training.merging import proof
from training.merging.weights import Weights, row_blocks

AGAIN = "ghost export"
# Nats, mean |Δ log-probability|. On SmolLM2-135M f16 moves by 0.002, q8_0 by 0.06, q4_0 by 0.65: `weights` is the sharp
# check of rounded files.
LIMIT, ROUNDED_LIMIT = 0.05, 2.0


@dataclass
class GgufFile:
    """A GGUF file and what it was made from.

    merged   the merged folder; without one, `merged` beside the file's folder, if the file was exported from it
    adapter  of a LoRA file: the adapter's folder; without one, `adapter` beside the file's folder
    base     of a base's file: that base. Of a LoRA file: the GGUF file of the base to run it over
    """

    path: Path
    merged: Path | None
    adapter: Path | None
    base: str | None

    @cached_property
    def reader(self) -> Any:
        return _open(self.path)

    @cached_property
    def fields(self) -> dict[str, Any]:
        return _contents(self.reader)

    @cached_property
    def facts(self) -> dict[str, Any]:
        return _facts(self.path)

    @cached_property
    def reference(self) -> Path:
        """The folder that holds in full precision what the file computes."""
        if self.facts["kind"] == "base":
            return self._base_folder()
        folder = self.merged or self.path.resolve().parent.parent / "merged"
        if self.merged is None and not (folder / ghost_json.NAME).is_file():
            raise Skipped("no merged model beside it; --merged FOLDER names one")
        ghost = ghost_json.read_merged(folder)
        same: dict[str, object] = {name: ghost.facts.get(name) for name in ("text", "golden") if name in self.facts}
        same |= {"adapter_sha256": ghost.block("merge").get("adapter_sha256")} if "adapter_sha256" in self.facts else {}
        if any(self.facts[name] != value for name, value in same.items()):
            if self.merged is None:
                raise Skipped(f"{folder} is another ghost; --merged FOLDER names the model that it was exported from")
            raise Problem(
                f"{folder} is another ghost than {self.path}", f"{AGAIN} {folder}, or name its own merged model"
            )
        return folder

    def _base_folder(self) -> Path:
        if self.base is None:
            raise Skipped("--base BASE names the base that it was exported from")
        base = resolve_base(*base_named(self.base))
        if base.weights_sha256 != self.facts["base_sha256"]:
            raise Problem(f"{self.path} is of another base than {self.base}", f"{AGAIN} --base {self.base}")
        return base.folder

    @cached_property
    def under(self) -> Path | None:
        """Of a LoRA file: the base's GGUF file."""
        if self.facts["kind"] != "adapter":
            return None
        if self.base is None:
            raise Skipped("--base FILE.gguf names the file to run it over")
        return Path(self.base)

    @cached_property
    def vocabulary(self) -> Vocabulary | ByteLevelVocabulary:
        fields = self.fields if self.under is None else _contents(_open(self.under))
        pieces, kinds = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"]
        if fields["tokenizer.ggml.model"] == Vocabulary.model:
            return Vocabulary(pieces, fields["tokenizer.ggml.scores"], kinds)
        merges = [tuple(pair.split(" ", 1)) for pair in fields["tokenizer.ggml.merges"]]
        return ByteLevelVocabulary(pieces, kinds, merges, fields["tokenizer.ggml.pre"])

    def texts(self) -> list[str]:
        labels = Labels(**self.facts["text"]["labels"]) if "text" in self.facts else Labels()
        return [*PROBES, *(render_prompt(conversation(texts, labels), labels) for texts in PROMPTS.values())]


def _open(path: Path) -> Any:
    from gguf import GGUFReader

    try:
        gguf_file.check_file(path)
        return GGUFReader(path)
    except ConversionError as error:
        raise Problem(str(error), AGAIN) from error
    except OSError as error:
        raise Problem(f"{path}: {error.strerror or error}", AGAIN) from error
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, MemoryError) as error:
        raise Problem(f"{path}: truncated, or no GGUF file ({' '.join(str(error).split())[:90]})", AGAIN) from error


def _contents(reader: Any) -> dict[str, Any]:
    return {name: field.contents() for name, field in reader.fields.items()}


def _facts(path: Path) -> dict[str, Any]:
    try:
        return gguf_file.read_facts(path)
    except (WeightsError, ConversionError) as error:
        raise Problem(str(error), AGAIN) from error


def whole(file: GgufFile) -> str:
    """Its facts, and its hash where the ghost.json beside it lists one."""
    kind, size = file.facts["kind"], file.path.stat().st_size
    try:
        listed = ghost_json.read(file.path.parent).block("files").get(file.path.name)
    except WeightsError:
        listed = None
    if listed is None:
        return f"{kind}, {size / 1e9:.2f} GB; no ghost.json beside it lists its hash"
    if listed["sha256"] != ghost_json.sha256(file.path):
        raise Problem(f"{file.path}: its SHA-256 is not the one in {ghost_json.NAME}; the file was altered", AGAIN)
    return f"{kind}, {size / 1e9:.2f} GB, as recorded"


def fits(file: GgufFile) -> str:
    """Check that an adapter is this ghost's, and that the base to run it over is the one it was trained on."""
    if file.facts["kind"] != "adapter":
        raise Skipped("not an adapter")
    folder = file.adapter or file.path.resolve().parent.parent / "adapter"
    weights = folder / adapters.WEIGHTS
    of = ""
    if file.adapter is not None or weights.is_file():
        if ghost_json.sha256(weights) != file.facts["adapter_sha256"]:
            raise Problem(
                f"{file.path} is not of the adapter {folder}: another ghost's", f"{AGAIN} {folder} --gguf-adapter"
            )
        of = f"of {folder}; "
    if file.under is None:
        raise Skipped("not an adapter")
    base = _facts(file.under)
    if base["kind"] != "base" or base["base_sha256"] != file.facts["base_sha256"]:
        found = "a merged model" if base["kind"] == "merged" else f"base {base.get('base_sha256', '?')[:12]}…"
        raise Problem(
            f"{file.under} is {found}; {file.path.name} was trained on base {file.facts['base_sha256'][:12]}…",
            f"{AGAIN} --base BASE --gguf q4_0, with the adapter's base",
        )
    shapes = {tensor.name: tuple(tensor.shape) for tensor in _open(file.under).tensors}
    for tensor in file.reader.tensors:
        name, end = tensor.name.rsplit(".", 1)
        at = 0 if end == "lora_a" else 1
        if name not in shapes or tensor.shape[at] != shapes[name][at]:
            raise Problem(f"{tensor.name} fits no tensor of {file.under}", AGAIN)
    return f"{of}{len(file.reader.tensors)} tensors fit {file.under}"


def ids(file: GgufFile) -> str:
    """Check that llama.cpp makes the same ids of texts as the tokenizer."""
    golden = file.facts.get("golden")
    if golden is not None:
        found = file.vocabulary.encode(file.vocabulary.begin + golden["prompt"])
        if found != golden["ids"][-len(found) :]:
            raise Problem("the golden prompt gives other ids than it records", AGAIN)
    tokenizer = load_tokenizer(file.reference)
    texts = file.texts()
    expected = [encode(tokenizer, text).ids for text in texts]
    by = "by its vocabulary"
    ours = [[*_bos(tokenizer), *file.vocabulary.encode(file.vocabulary.begin + text)] for text in texts]
    if importlib.util.find_spec("xllamacpp"):
        by = "by llama.cpp"
        with _llama(file) as llama:
            ours = [llama.ids(file.vocabulary.begin + text) for text in texts]
    wrong = [text for text, one, other in zip(texts, ours, expected, strict=True) if one != other]
    if wrong:
        raise Problem(f"{len(wrong)} of {len(texts)} texts get other ids {by}, first {wrong[0][:30]!r}", AGAIN)
    return f"{len(texts)} texts get the tokenizer's ids {by}"


def _bos(tokenizer: Tokenizer) -> list[int]:
    return [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]


def _llama(file: GgufFile) -> Any:
    from ghost.serving.llama_cpp import LlamaCpp

    return LlamaCpp(file.path) if file.under is None else LlamaCpp(file.under, file.path)


def weights(file: GgufFile) -> str:
    """Compare each matrix with the folder's, before rounding: the norm of the difference by the norm of the matrix."""
    import numpy as np

    if file.facts["kind"] == "adapter":
        raise Skipped("an adapter; log-probabilities compare it")
    decoder = read_decoder(file.reference)
    held = {tensor.name: tensor for tensor in file.reader.tensors}
    worst: dict[str, float] = defaultdict(float)
    count: dict[str, int] = defaultdict(int)
    with Weights.of_model(file.reference) as source:
        planned = gguf_file.plan(decoder, source, "f16")
        if planned_names := {tensor.name for tensor in planned} ^ held.keys():
            raise Problem(f"{min(planned_names)}: in one of file and model only", AGAIN)
        for tensor in planned:
            stored = held[tensor.name]
            if tuple(reversed(stored.shape.tolist())) != tensor.shape:
                raise Problem(f"{tensor.name}: shape {stored.shape.tolist()}, not that of the model", AGAIN)
            off = squares = 0.0
            for true, rounded in zip(
                gguf_file.model_blocks(tensor, decoder, source), _rows(stored, tensor, decoder), strict=True
            ):
                off += float(np.square(rounded - true.astype(np.float32), dtype=np.float64).sum())
                squares += float(np.square(true, dtype=np.float64).sum())
            kind = stored.tensor_type.name
            error = (off / squares) ** 0.5 if squares else off
            bits = re.match(r"I?Q(\d)", kind)
            if not error <= 4 / 2 ** int(bits[1] if bits else 12):
                raise Problem(f"{tensor.name}: {kind} is off by {error:.1%} of its norm", AGAIN)
            worst[kind], count[kind] = max(worst[kind], error), count[kind] + 1
    return ", ".join(f"{count[kind]} {kind} off by at most {worst[kind]:.2%}" for kind in sorted(count))


def _rows(stored: Any, tensor: gguf_file.Stored, decoder: Decoder) -> Iterator[Any]:
    """The values in the file, in the blocks of `gguf_file.model_blocks`."""
    from gguf import dequantize

    if not tensor.source:
        yield stored.data
        return
    for start, stop in row_blocks(tensor.shape, tensor.head):
        yield dequantize(stored.data[start:stop], stored.tensor_type).reshape(stop - start, *tensor.shape[1:])


def logprobs(file: GgufFile) -> str:
    """Compare llama.cpp's log-probabilities with those of the folder, computed in float32 layer by layer."""
    if importlib.util.find_spec("xllamacpp") is None:
        raise Skipped(f"xllamacpp is not installed, which runs the file; type: {install_command('home')}")
    tokenizer = load_tokenizer(file.reference)
    golden = file.facts.get("golden")
    probes = [encode(tokenizer, text).ids for text in file.texts()[len(PROBES) :]]
    probes = [golden["ids"], *probes] if golden else probes
    scored = proof.score_merged(file.reference, probes)
    off = []
    with _llama(file) as llama:
        for tokens, score in zip(probes, scored, strict=True):
            best = int(score.following.argmax())
            off.append(abs(float(llama.logprobs(tokens)[best]) - float(score.following[best])))
            at = len(tokens) // 2
            off.append(abs(float(llama.logprobs(tokens[:at])[tokens[at]]) - float(score.logprobs[at - 1])))
    mean = sum(off) / len(off)
    exact = {tensor.tensor_type.name for tensor in file.reader.tensors} <= {"F16", "F32"} and file.under is None
    limit = LIMIT if exact else ROUNDED_LIMIT
    found = f"mean |Δlogp| {mean:.2g} nats, max {max(off):.2g}, at {len(off)} positions of {len(probes)} prompts"
    if not mean <= limit:
        raise Problem(f"{found}; at most {limit:g} expected", AGAIN)
    return found


CHECKS: dict[str, Callable[[GgufFile], str]] = {
    "file and facts": whole,
    "adapter and base": fits,
    "ids": ids,
    "weights": weights,
    "log-probabilities": logprobs,
}
