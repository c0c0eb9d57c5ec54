"""Write a merged model as one GGUF file: shapes, vocabulary, tensors.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Key and tensor names come from the gguf package.
"""

import hashlib
import json
import math
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from ghost.errors import BaseModelError, ConversionError
from replicate_deployment.settings import Settings
from replicate_deployment.tokenization import Tokenizer
from training.finetuning.base import Shapes, read_shapes
from training.merging.weights import Weights, row_blocks

# Check that llama.cpp's `llama` architecture can run the model, and list its tensors.

ARCHITECTURES = ("MistralForCausalLM", "LlamaForCausalLM")
ATTENTION, FEED_FORWARD = ("q_proj", "k_proj", "v_proj", "o_proj"), ("gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class Decoder:
    """`context` is in tokens, `rope_base` is the base of the rotary embedding's wavelengths, `biased` lists the
    projections with biases.
    """

    shapes: Shapes
    context: int
    rms_eps: float
    rope_base: float
    biased: tuple[str, ...]

    def tensors(self) -> dict[str, tuple[int, ...]]:
        """Shape (outputs, inputs) or (values,) of each tensor, by its name in the model folder."""
        shapes = self.shapes
        embeddings = (shapes.vocabulary, shapes.hidden)
        tensors: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": embeddings}
        for layer in range(shapes.layers):
            start = f"model.layers.{layer}."
            for name, (inputs, outputs) in shapes.linear.items():
                block = "self_attn" if name in ATTENTION else "mlp"
                tensors[f"{start}{block}.{name}.weight"] = (outputs, inputs)
                if name in self.biased:
                    tensors[f"{start}{block}.{name}.bias"] = (outputs,)
            for name in ("input_layernorm", "post_attention_layernorm"):
                tensors[f"{start}{name}.weight"] = (shapes.hidden,)
        tensors["model.norm.weight"] = (shapes.hidden,)
        return tensors if shapes.tied else tensors | {"lm_head.weight": embeddings}


def read_decoder(folder: Path) -> Decoder:
    """Raises ConversionError on a config.json that llama.cpp would run as a different model."""
    path = folder / "config.json"
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        found = [str(name) for name in config.get("architectures") or ["no architecture"]]
        if found[0] not in ARCHITECTURES:
            raise ConversionError(f"{path}: {found[0]}; only {' and '.join(ARCHITECTURES)} can be exported")
        shapes = read_shapes(config, str(folder))
        rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
        wanted = {"hidden_act": (config.get("hidden_act"), "silu")}
        wanted["rope_type"] = (rope.get("rope_type", rope.get("type", "default")), "default")
        for key, (value, only) in wanted.items():
            if value != only:
                raise ConversionError(f"{path}: {key} is {value!r}; only {only!r} can be exported")
        biased = (ATTENTION if config.get("attention_bias") else ()) + (FEED_FORWARD if config.get("mlp_bias") else ())
        # llama.cpp has no sliding window; within one window, full attention computes the same.
        context = min(shapes.positions, config.get("sliding_window") or shapes.positions)
        rope_base = float(rope.get("rope_theta") or config["rope_theta"])
        return Decoder(shapes, context, float(config["rms_norm_eps"]), rope_base, biased)
    except BaseModelError as error:
        raise ConversionError(str(error)) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConversionError(f"{path}: not a model's config ({type(error).__name__}: {error})") from error


# The tokenizer as llama.cpp's `llama` vocabulary: pieces with scores, for a BPE over "▁" words with byte fallback.
#
# llama.cpp merges neighbours whose joined text is a piece, highest score first (`llm_tokenizer_spm` in its
# src/llama-vocab.cpp). A tokenizer.json lists which pairs may merge, and in which order. Scores made from that order
# give the ids used in training. The scores of a tokenizer.model do not always: Mistral's merges runs of spaces last,
# its tokenizer.json first.

Pair = tuple[str, str]
SPACE = "▁"
BYTES = [f"<0x{value:02X}>" for value in range(256)]
METASPACE = {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": "first"}
LINES = {"type": "Split", "pattern": {"Regex": "\n"}, "behavior": "Isolated", "invert": False}
MODEL = {"type": "BPE", "byte_fallback": True, "ignore_merges": False, "dropout": None}
MODEL |= {"continuing_subword_prefix": None, "end_of_word_suffix": None}


@dataclass(frozen=True)
class Vocabulary:
    """`pieces`, `scores` and `kinds` (gguf.TokenType values) are indexed by id."""

    pieces: list[str]
    scores: list[float]
    kinds: list[int]

    def encode(self, text: str) -> list[int]:
        """Encode as llama.cpp does: no BOS, special tokens as text, no added space."""
        ids = {piece: place for place, piece in enumerate(self.pieces)}
        symbols, _ = join(text.replace(" ", SPACE), dict(zip(self.pieces, self.scores, strict=True)))
        whole = (
            [ids[symbol]] if symbol in ids else [ids[BYTES[byte]] for byte in symbol.encode()] for symbol in symbols
        )
        return [place for places in whole for place in places]


def read_vocabulary(tokenizer: Tokenizer, size: int) -> Vocabulary:
    """`size` pieces: the tokenizer's, padded with unused ones if the model has more ids.

    Raises ConversionError when llama.cpp would encode some text to other ids.
    """
    from gguf import TokenType

    document = json.loads(tokenizer.backend_tokenizer.to_str())
    name, ids = tokenizer.name_or_path, tokenizer.get_vocab()
    if max(ids.values()) >= size:
        raise ConversionError(f"{name}: ids up to {max(ids.values()):,}, but the model has {size:,}; merge again")
    # llama.cpp's own converter writes the same for ids that only pad the embeddings.
    pieces, kinds = [f"[PAD{place}]" for place in range(size)], [TokenType.UNUSED] * size
    special = {token["id"]: token["special"] for token in document["added_tokens"]}
    for piece, place in ids.items():
        kind = TokenType.BYTE if piece in BYTES else TokenType.NORMAL
        if place in special:
            kind = TokenType.CONTROL if special[place] else TokenType.USER_DEFINED
        pieces[place], kinds[place] = piece, TokenType.UNKNOWN if piece == "<unk>" else kind
    merges = {(left, right): rank for rank, (left, right) in enumerate(document["model"].get("merges", []))}
    try:
        _check_kind(document, ids)
        scores = scores_of(merges, pieces)
    except ValueError as reason:
        raise ConversionError(
            f"{name}: llama.cpp would tokenise differently ({reason}); Mistral's tokenizers can be exported"
        ) from reason
    return Vocabulary(pieces, [scores[piece] for piece in pieces], [int(kind) for kind in kinds])


def scores_of(merges: Mapping[Pair, int], pieces: Iterable[str]) -> dict[str, float]:
    """Scores with which score-based merging gives, for every text, the result of merging the pairs of `merges` by rank.

    Proof by single pieces: if every piece made by a merge results whole, by merges only, then only pairs of `merges`
    ever merge in any text. For when two neighbours X and Y make a piece, nothing has merged across its ends so far, so
    the merges between them are those of the piece on its own, and (X, Y) is the last pair merged there. It remains
    that the scores and ranks of these last pairs have the same order.

    Raises ValueError with the first difference.
    """
    ranks: dict[str, int] = {}
    for (left, right), rank in merges.items():
        ranks.setdefault(left + right, rank)
    scores = {piece: -float(ranks.get(piece, len(merges))) for piece in pieces}
    newest = -1
    for piece in ranks:  # in order of rank
        whole, joined = join(piece, scores)
        if whole != [piece] or not joined or any(pair not in merges for pair in joined):
            raise ValueError(f"its merges turn {piece!r} into {' + '.join(whole)!r}")
        if merges[joined[-1]] < newest:
            raise ValueError(f"{piece!r} is made earlier than a piece with a higher score")
        newest = merges[joined[-1]]
    for piece in scores.keys() - ranks.keys():
        if len(piece) > 1 and join(piece, scores)[0] == [piece]:
            raise ValueError(f"{piece!r} would be merged from text")
    return scores


def join(text: str, scores: Mapping[str, float]) -> tuple[list[str], list[Pair]]:
    """Merge neighbours, highest score first, leftmost among equals. Return the pieces left and the merged pairs."""
    symbols = [*text]
    joined: list[Pair] = []
    while True:
        pairs = enumerate(pairwise(symbols))
        fit = [(scores[left + right], -place) for place, (left, right) in pairs if left + right in scores]
        if not fit:
            return symbols, joined
        place = -max(fit)[1]
        joined.append((symbols[place], symbols[place + 1]))
        symbols[place : place + 2] = ["".join(joined[-1])]


def _check_kind(document: Mapping[str, Any], pieces: Iterable[str]) -> None:
    """Raises ValueError on a tokenizer.json that does more than merge pieces."""
    model = document["model"]
    for key, value in MODEL.items():
        if model.get(key) != value:
            raise ValueError(f"model.{key} is {model.get(key)!r}, not {value!r}")
    if document["normalizer"] is not None:
        raise ValueError(f"its normalizer is {document['normalizer']['type']}")
    if lacking := len({*BYTES} - {*pieces}):
        raise ValueError(f"{lacking} of the 256 bytes have no piece")
    for token in document["added_tokens"]:
        if token["lstrip"] or token["rstrip"] or token["single_word"]:
            raise ValueError(f"its token {token['content']!r} strips spaces around it")
    before = document["pre_tokenizer"] or {}
    steps = before.get("pretokenizers", [before])
    made = {"".join(pair) for pair in model["merges"]}
    if LINES in steps[:1]:
        steps = steps[1:]
        if any("\n" in piece for piece in made):
            raise ValueError("it has pieces that span its line splits")
    if steps == [METASPACE | {"split": True}]:
        if any(SPACE in piece[1:] for piece in made):
            raise ValueError("it has pieces that span its word splits")
    elif steps != [METASPACE | {"split": False}]:
        raise ValueError(f"its pre_tokenizer is {re.sub(chr(10), ' ', json.dumps(before))[:80]}")


Type = Literal["f16", "q8_0"]
Block = Any  # numpy.ndarray


@dataclass(frozen=True)
class Stored:
    """A tensor in the file: its name, its source in the model folder, its row order, type and bytes."""

    name: str
    source: str
    shape: tuple[int, ...]
    heads: int
    """Number of heads for queries and keys, whose rows are reordered; else 0."""
    kind: Any
    """gguf.GGMLQuantizationType"""
    size: int


def plan(decoder: Decoder, weights: Weights, kind: Type) -> list[Stored]:
    """The tensors of the file, in order: matrices as `kind`, vectors in float32.

    Raises ConversionError when the weights do not match the config.
    """
    import gguf

    expected = decoder.tensors()
    for name in [*expected.keys() - weights.shapes.keys(), *weights.shapes.keys() - expected.keys()]:
        what = "is missing" if name in expected else "has no place in llama.cpp's llama architecture"
        raise ConversionError(f"{name} {what}: the weights and config.json do not match")
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, decoder.shapes.layers)
    heads = {"q_proj": decoder.shapes.heads, "k_proj": decoder.shapes.kv_heads}
    tensors = []
    for source, shape in expected.items():
        if weights.shapes[source] != shape or weights.dtypes[source] != "F16":
            found = f"{weights.dtypes[source]} {[*weights.shapes[source]]}"
            raise ConversionError(f"{source}: {found}; with this config a merged model has F16 {[*shape]}")
        stored = gguf.GGMLQuantizationType[kind.upper() if len(shape) > 1 else "F32"]
        per_block, block_bytes = gguf.GGML_QUANT_SIZES[stored]
        if shape[-1] % per_block:
            raise ConversionError(f"{source}: rows of {shape[-1]} values, but {kind} needs multiples of {per_block}")
        name = str(names.get_name(source, try_suffixes=(".weight", ".bias")))
        size = math.prod(shape) // per_block * block_bytes
        tensors.append(Stored(name, source, shape, heads.get(source.split(".")[-2], 0), stored, size))
    return tensors


def write(
    path: Path,
    tensors: list[Stored],
    weights: Weights,
    add_metadata: Callable[[Any], None],
    advance: Callable[[], None],
) -> str:
    """Write the file and return its SHA-256; call `advance` after each tensor.

    Raises ConversionError when the disk is too full.
    """
    import gguf
    import numpy as np

    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[gguf.MODEL_ARCH.LLAMA])
    add_metadata(writer)
    for tensor in tensors:
        writer.add_tensor_info(tensor.name, tensor.shape, np.dtype(np.float16), tensor.size, raw_dtype=tensor.kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    header = path.read_bytes()
    align = writer.data_alignment
    needed, free = sum(_padded(tensor.size, align) for tensor in tensors), shutil.disk_usage(path.parent).free
    if needed > free:
        raise ConversionError(
            f"{path.name} takes {needed / 1e9:.1f} GB and the disk has {free / 1e9:.1f} GB free; "
            "free some, or use another disk: --out FOLDER"
        )
    digest = hashlib.sha256(header)
    with path.open("ab") as stream:

        def put(content: Any) -> None:
            flat = memoryview(content).cast("B")
            digest.update(flat)
            stream.write(flat)

        put(bytes(_padded(len(header), align) - len(header)))
        for tensor in tensors:
            for block in _blocks(tensor, weights):
                put(gguf.quantize(block, tensor.kind))
            put(bytes(_padded(tensor.size, align) - tensor.size))
            advance()
    return digest.hexdigest()


def _blocks(tensor: Stored, weights: Weights) -> Iterator[Block]:
    """The source's rows in the file's order.

    RoPE pairs value i of a head with i + d/2 in transformers, but 2i with 2i + 1 in llama.cpp's `llama` architecture,
    so interleave the two halves of each query and key head.
    """
    import numpy as np

    head = tensor.shape[0] // tensor.heads if tensor.heads else 1
    for start, stop in row_blocks(tensor.shape, head):
        block = weights.rows(tensor.source, start, stop).numpy()
        if tensor.heads:
            block = block.reshape(-1, 2, head // 2, *tensor.shape[1:]).swapaxes(1, 2).reshape(block.shape)
        yield np.ascontiguousarray(block)


def _padded(size: int, align: int) -> int:
    return size + -size % align


def model_facts(writer: Any, decoder: Decoder, kind: Type) -> None:
    import gguf

    shapes = decoder.shapes
    writer.add_type(gguf.GGUFType.MODEL)
    writer.add_file_type(gguf.LlamaFileType[f"MOSTLY_{kind.upper()}"])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_vocab_size(shapes.vocabulary)
    writer.add_context_length(decoder.context)
    writer.add_embedding_length(shapes.hidden)
    writer.add_block_count(shapes.layers)
    writer.add_feed_forward_length(shapes.inner)
    writer.add_head_count(shapes.heads)
    writer.add_head_count_kv(shapes.kv_heads)
    writer.add_key_length(shapes.head_dim)
    writer.add_value_length(shapes.head_dim)
    writer.add_rope_dimension_count(shapes.head_dim)
    writer.add_rope_freq_base(decoder.rope_base)
    writer.add_layer_norm_rms_eps(decoder.rms_eps)


def sampling_facts(writer: Any, sampling: Settings) -> None:
    """Sampling defaults for callers that name none; llama.cpp's own min_p is switched off."""
    writer.add_sampling_temp(sampling.temperature)
    writer.add_sampling_top_p(sampling.top_p)
    writer.add_sampling_top_k(sampling.top_k)
    writer.add_sampling_min_p(0.0)
    writer.add_sampling_penalty_repeat(sampling.repetition_penalty)


def tokenizer_facts(writer: Any, tokenizer: Tokenizer, vocabulary: Vocabulary) -> None:
    """The vocabulary; BOS starts a text, and nothing else is added.

    llama.cpp would add a space before the text and after each special token. In training only the first has one, so
    the chat template writes that one itself.
    """
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(vocabulary.pieces)
    writer.add_token_scores(vocabulary.scores)
    writer.add_token_types(vocabulary.kinds)
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    if tokenizer.unk_token_id is not None:
        writer.add_unk_token_id(tokenizer.unk_token_id)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(False)
    writer.add_chat_template(tokenizer.chat_template)
