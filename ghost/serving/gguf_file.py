"""Write a merged model as one GGUF file: shapes, vocabulary, tensors.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Key and tensor names come from the gguf package.
"""

import hashlib
import json
import math
import re
import shutil
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO, Literal

from ghost.errors import BaseModelError, ConversionError
from replicate_deployment import ghost_json
from replicate_deployment.errors import WeightsError
from replicate_deployment.model_folder import parse_json, transformers_config
from replicate_deployment.settings import Settings
from replicate_deployment.tokenization import Tokenizer, token_bytes
from training.finetuning.base import ATTENTION, Shapes, read_config, read_shapes
from training.merging.weights import Weights, row_blocks

# Check that one of llama.cpp's architectures can run the model, and list its tensors.

# Names of gguf.MODEL_ARCH.
ARCHITECTURES = {
    "LlamaForCausalLM": "LLAMA",
    "MistralForCausalLM": "LLAMA",
    "Qwen2ForCausalLM": "QWEN2",
    "Qwen3ForCausalLM": "QWEN3",
    "SmolLM3ForCausalLM": "SMOLLM3",
}
INTERLEAVED = ("LLAMA", "SMOLLM3")  # see `interleaved`
ROPE_FACTORS = "rope_freqs.weight"


@dataclass(frozen=True)
class Decoder:
    """`context` is in tokens, `rope_base` the base of the rotary embedding's wavelengths.

    `rope_factors`: what each wavelength is multiplied by (Llama 3.1), of each pair of values of a head.
    """

    architecture: str
    shapes: Shapes
    context: int
    rms_eps: float
    rope_base: float
    rope_factors: tuple[float, ...] = ()

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
                if name in shapes.biased:
                    tensors[f"{start}{block}.{name}.bias"] = (outputs,)
            for name in ("input_layernorm", "post_attention_layernorm"):
                tensors[f"{start}{name}.weight"] = (shapes.hidden,)
            for name in ("q_norm", "k_norm") if shapes.head_norms else ():
                tensors[f"{start}self_attn.{name}.weight"] = (shapes.head_dim,)
        tensors["model.norm.weight"] = (shapes.hidden,)
        return tensors if shapes.tied else tensors | {"lm_head.weight": embeddings}


def read_decoder(folder: Path) -> Decoder:
    """Raises ConversionError on a config.json that llama.cpp would run as a different model."""
    path = folder / "config.json"
    try:
        config = read_config(folder)
        found = [str(name) for name in config.get("architectures") or ["no architecture"]]
        if found[0] not in ARCHITECTURES:
            raise ConversionError(f"{path}: {found[0]}; only {', '.join(ARCHITECTURES)} can be exported")
        shapes = read_shapes(config, str(folder))
        rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
        rope_type = rope.get("rope_type", rope.get("type", "default"))
        wanted: dict[str, tuple[object, object]] = {"hidden_act": (config.get("hidden_act"), "silu")}
        wanted["rope_type"] = (rope_type, "llama3" if rope_type == "llama3" else "default")
        if ARCHITECTURES[found[0]] == "SMOLLM3":  # llama.cpp knows one pattern
            every_fourth = [int(layer % 4 != 0) for layer in range(1, shapes.layers + 1)]
            wanted["no_rope_layers"] = (config.get("no_rope_layers") or every_fourth, every_fourth)
        for key, (value, only) in wanted.items():
            if value != only:
                raise ConversionError(f"{path}: {key} is {value!r}; only {only!r} can be exported")
        # The file names no sliding window; within one window, full attention computes the same.
        window = config.get("sliding_window") if config.get("use_sliding_window", True) else None
        context = min(shapes.positions, window or shapes.positions)
        rope_base = float(rope.get("rope_theta") or config["rope_theta"])
        factors = _rope_factors(folder, shapes.head_dim, rope_base) if rope_type == "llama3" else ()
        return Decoder(ARCHITECTURES[found[0]], shapes, context, float(config["rms_norm_eps"]), rope_base, factors)
    except BaseModelError as error:
        raise ConversionError(str(error)) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConversionError(f"{path}: not a model's config ({type(error).__name__}: {error})") from error


def _rope_factors(folder: Path, head_dim: int, rope_base: float) -> tuple[float, ...]:
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](transformers_config(folder), "cpu")
    return tuple(rope_base ** (-2 * pair / head_dim) / value for pair, value in enumerate(scaled.tolist()))


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
    """`pieces`, `scores` and `kinds` (gguf.TokenType values) are indexed by id.

    `begin` is what training's tokenizer puts before a text, and llama.cpp does not.
    """

    pieces: list[str]
    scores: list[float]
    kinds: list[int]
    model = "llama"
    begin = " "
    pre = "default"
    differs: tuple[str, ...] = ()

    def encode(self, text: str) -> list[int]:
        """Encode as llama.cpp does: no BOS, special tokens as text, no added space."""
        ids = {piece: place for place, piece in enumerate(self.pieces)}
        symbols, _ = join(text.replace(" ", SPACE), dict(zip(self.pieces, self.scores, strict=True)))
        whole = (
            [ids[symbol]] if symbol in ids else [ids[BYTES[byte]] for byte in symbol.encode()] for symbol in symbols
        )
        return [place for places in whole for place in places]


# The tokenizer as llama.cpp's `gpt2` vocabulary: byte-level BPE. It names how a text is split before pairs are joined,
# and llama.cpp knows each name's regular expressions (`llm_tokenizer_bpe` in its src/llama-vocab.cpp): (one after the
# other, whether a split part that is a piece is taken whole).

_CASED = r"'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD]|[^\r\n\p{L}\p{N}]?\p{L}+|"
_UPPER, _LOWER = r"((?=[\p{L}])([^a-z]))", r"((?=[\p{L}])([^A-Z]))"
_MARKS, _SPACES = r"| ?[^\s\p{L}\p{N}]+", r"|\s*[\r\n]+|\s+(?!\S)|\s+"
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+" + _MARKS + r"|\s+(?!\S)"
_LLAMA3 = _CASED + r"\p{N}{1,3}" + _MARKS + r"[\r\n]*" + _SPACES
_BEFORE = r"[^\r\n\p{L}\p{N}]?"
_TEKKEN = f"{_BEFORE}{_UPPER}*{_LOWER}+|{_BEFORE}{_UPPER}+{_LOWER}*" + r"|\p{N}" + _MARKS + r"[\r\n/]*" + _SPACES
PRE_TOKENIZERS: dict[str, tuple[list[str], bool]] = {
    "llama-bpe": ([_LLAMA3], True),
    "smaug-bpe": ([_LLAMA3], False),
    "qwen2": ([_CASED + r"\p{N}" + _MARKS + r"[\r\n]*" + _SPACES], False),
    "tekken": ([_TEKKEN], True),
    "smollm": ([r"\p{N}", _GPT2], False),
    "gpt-2": ([_GPT2], False),
}
# The right name gives the tokenizer's ids to all of these.
PROBES = (
    "B: I don't, WE'LL see; l'été d'Été 1234567 12:30 3rd v2 x_1",
    "A: ok...\n\n\nB:  well !!\n  \n? ¿qué?\r\n\t\tx/y//\n (a) [b] {c} a@b.c #d\nA: fine.\n",
    "日本語です。한국어 Привет, как дела?! مرحبا ελληνικά №½ ﷽ «ça»…",
    "👩‍🍳🏳️‍🌈 <3 :-) ^^ <|x|> \u00a0x\u200by   z ",
)
# What llama.cpp itself does otherwise for some of them: it composes nothing, and splits some words elsewhere.
KNOWN_TO_DIFFER = {
    "accents written apart from their letters": "e\u0301te\u0301 A\u030a",
    "letters with marks (Hindi, Thai, …)": "नमस्ते दुनिया สวัสดี",
    "accented capitals inside words": "BonjourÉté ÉTÉété",
}


@dataclass(frozen=True)
class ByteLevelVocabulary:
    """`pieces` and `kinds` are by id, `merges` in order; `differs` names what has other ids in llama.cpp."""

    pieces: list[str]
    kinds: list[int]
    merges: list[tuple[str, str]]
    pre: str
    differs: tuple[str, ...] = ()
    model = "gpt2"
    begin = ""

    def encode(self, text: str) -> list[int]:
        """As llama.cpp does: without BOS, special tokens as text."""
        return list(self._as_read.encode(text, add_special_tokens=False).ids)

    @cached_property
    def _as_read(self) -> Any:
        from tokenizers import Regex, models, pre_tokenizers
        from tokenizers import Tokenizer as Backend

        patterns, whole = PRE_TOKENIZERS[self.pre]
        ids = {piece: place for place, piece in enumerate(self.pieces)}
        backend = Backend(models.BPE(ids, self.merges, ignore_merges=whole))
        splits: list[Any] = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in patterns]
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [*splits, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
        )
        return backend


def _byte_level(tokenizer: Tokenizer, pieces: list[str], kinds: list[int], merges: list[Pair]) -> ByteLevelVocabulary:
    """Take the way of splitting that gives the tokenizer's ids to PROBES, and to most pieces by themselves.

    Raises ValueError if llama.cpp knows none.
    """
    added = tokenizer.added_tokens_decoder
    spelled = [text.decode(errors="ignore") for place, text in enumerate(token_bytes(tokenizer)) if place not in added]
    words = [text for text in spelled if text and unicodedata.is_normalized("NFC", text)]

    def ids(texts: Sequence[str]) -> list[list[int]]:
        return list(tokenizer([*texts], add_special_tokens=False, split_special_tokens=True)["input_ids"])

    def others(vocabulary: ByteLevelVocabulary, texts: Sequence[str], expected: list[list[int]]) -> list[str]:
        found = map(vocabulary.encode, texts)
        return [text for text, one, other in zip(texts, found, expected, strict=True) if one != other]

    probed, whole = ids(PROBES), ids(words)
    fitting = [
        (len(others(vocabulary, words, whole)), vocabulary)
        for vocabulary in (ByteLevelVocabulary(pieces, kinds, merges, pre) for pre in PRE_TOKENIZERS)
        if not others(vocabulary, PROBES, probed)
    ]
    if not fitting:
        raise ValueError(f"none of {', '.join(PRE_TOKENIZERS)} gives its ids")
    count, vocabulary = min(fitting, key=lambda found: found[0])
    texts = [*KNOWN_TO_DIFFER.values()]
    other = others(vocabulary, texts, ids(texts))
    differs = [name for name, text in KNOWN_TO_DIFFER.items() if text in other]
    return replace(vocabulary, differs=(*differs, *([f"{count:,} words of its vocabulary"] if count else [])))


def read_vocabulary(tokenizer: Tokenizer, size: int) -> Vocabulary | ByteLevelVocabulary:
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
    pairs: list[Pair] = [(left, right) for left, right in document["model"].get("merges", [])]
    try:
        for token in document["added_tokens"]:
            if token["lstrip"] or token["rstrip"] or token["single_word"]:
                raise ValueError(f"its token {token['content']!r} strips spaces around it")
        if "ByteLevel" in str(tokenizer.backend_tokenizer.decoder):
            return _byte_level(tokenizer, pieces, [int(kind) for kind in kinds], pairs)
        _check_kind(document, ids)
        scores = scores_of({pair: rank for rank, pair in enumerate(pairs)}, pieces)
    except ValueError as reason:
        raise ConversionError(
            f"{name}: llama.cpp would tokenise differently ({reason}); choose another base"
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
        raise ValueError(f"{lacking} of the 256 bytes are no pieces")
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


Type = Literal["f16", "q8_0", "q5_1", "q5_0", "q4_0"]
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
    factor: float = 1.0
    """What an adapter's values are multiplied by."""

    @property
    def head(self) -> int:
        """Rows of a head, or 1."""
        return self.shape[0] // self.heads if self.heads else 1


def plan(decoder: Decoder, weights: Weights, kind: Type) -> list[Stored]:
    """The tensors of the file, in order: matrices as `kind`, vectors in float32.

    Below 8 bits the head, which is also the embedding where the two are tied, stays in q8_0: llama.cpp's own quantizer
    keeps it in 6 bits, a type that the gguf package cannot write. So do the projections of the values, 2% of a 7B,
    whose rounding alone costs half of what q4_0 does (benchmarks/results/gguf.md).

    Raises ConversionError when the weights do not match the config.
    """
    import gguf

    expected = decoder.tensors()
    head = "model.embed_tokens.weight" if decoder.shapes.tied else HEAD
    others = weights.shapes.keys() - expected.keys()
    if decoder.shapes.tied and HEAD in others and weights.equal(HEAD, head):
        others.remove(HEAD)  # some bases hold the tied matrix twice
    for name in [*expected.keys() - weights.shapes.keys(), *others]:
        what = "is missing" if name in expected else "has no place in llama.cpp's llama architecture"
        raise ConversionError(f"{name} {what}: the weights and config.json are not of one model")
    tensors = []
    if decoder.rope_factors:
        count = len(decoder.rope_factors)
        tensors.append(Stored(ROPE_FACTORS, "", (count,), 0, gguf.GGMLQuantizationType.F32, 4 * count))
    for source, shape in expected.items():
        if weights.shapes[source] != shape:
            raise ConversionError(f"{source}: {[*weights.shapes[source]]}; with this config it must be {[*shape]}")
        held = "q8_0" if kind != "f16" and (source == head or ".v_proj." in source) else kind
        stored = gguf.GGMLQuantizationType[held.upper() if len(shape) > 1 else "F32"]
        per_block, block_bytes = gguf.GGML_QUANT_SIZES[stored]
        if shape[-1] % per_block:
            raise ConversionError(f"{source}: rows of {shape[-1]} values, but {kind} needs multiples of {per_block}")
        size = math.prod(shape) // per_block * block_bytes
        tensors.append(Stored(gguf_name(decoder, source), source, shape, heads_of(decoder, source), stored, size))
    return tensors


HEAD = "lm_head.weight"


def gguf_name(decoder: Decoder, source: str) -> str:
    """The name in a GGUF file of the tensor `source` of the model folder."""
    import gguf

    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[decoder.architecture], decoder.shapes.layers)
    return str(names.get_name(source, try_suffixes=(".weight", ".bias")))


def heads_of(decoder: Decoder, source: str) -> int:
    """The number of heads in whose rows the halves must be interleaved (see `interleaved`), or 0."""
    heads = {"q_proj": decoder.shapes.heads, "k_proj": decoder.shapes.kv_heads}
    return heads.get(source.split(".")[-2], 0) if decoder.architecture in INTERLEAVED else 0


def write(
    path: Path,
    architecture: str,
    tensors: list[Stored],
    blocks: Callable[[Stored], Iterable[Block]],
    add_metadata: Callable[[Any], None],
    advance: Callable[[], None],
) -> str:
    """Write the file, a block of rows at a time, and return its SHA-256; call `advance` after each tensor.

    Raises ConversionError when the disk is too full, or a value is not finite or does not fit float16.
    """
    import gguf
    import numpy as np

    writer = gguf.GGUFWriter(path, gguf.MODEL_ARCH_NAMES[gguf.MODEL_ARCH[architecture]])
    add_metadata(writer)
    for tensor in tensors:
        writer.add_tensor_info(tensor.name, tensor.shape, np.dtype(np.float16), tensor.size, raw_dtype=tensor.kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    header = path.read_bytes()
    align = writer.data_alignment
    check_disk(path, sum(_padded(tensor.size, align) for tensor in tensors))
    digest = hashlib.sha256(header)
    with path.open("ab") as stream:

        def put(content: Any) -> None:
            flat = memoryview(content).cast("B")
            digest.update(flat)
            stream.write(flat)

        put(bytes(_padded(len(header), align) - len(header)))
        for tensor in tensors:
            for block in blocks(tensor):
                with np.errstate(over="ignore", invalid="ignore"):  # refused below
                    stored = gguf.quantize(block, tensor.kind)
                if not np.isfinite(block if stored.dtype == np.uint8 else stored).all():
                    raise ConversionError(f"{tensor.source}: a value is NaN, infinite or beyond 65504")
                put(stored)
            put(bytes(_padded(tensor.size, align) - tensor.size))
            advance()
    return digest.hexdigest()


def check_disk(path: Path, needed: int) -> None:
    free = shutil.disk_usage(path.parent).free
    if needed > free:
        raise ConversionError(
            f"{path.name} takes {needed / 1e9:.1f} GB and the disk has {free / 1e9:.1f} GB free; "
            "free some, or use another disk: --out FOLDER"
        )


def model_blocks(tensor: Stored, decoder: Decoder, weights: Weights) -> Iterator[Block]:
    """The source's rows in the file's order, some at a time."""
    import numpy as np

    if not tensor.source:
        yield np.array(decoder.rope_factors, np.float32)
        return
    for start, stop in row_blocks(tensor.shape, tensor.head):
        block = weights.rows(tensor.source, start, stop)
        yield interleaved((block if weights.dtypes[tensor.source] == "F16" else block.float()).numpy(), tensor.head)


def interleaved(rows: Block, head: int) -> Block:
    """Interleave the two halves of each `head` rows.

    transformers turns value i of a head with value i + d/2, llama.cpp's architectures in INTERLEAVED 2i with 2i + 1.
    """
    import numpy as np

    if head == 1:
        return rows
    return np.ascontiguousarray(rows.reshape(-1, 2, head // 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape))


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


FACTS = "ghost.facts"


def own_facts(writer: Any, facts: Mapping[str, Any]) -> None:
    """What `ghost check` and later stages need of ghost.json, since a file may travel without it."""
    writer.add_string(FACTS, json.dumps(facts, ensure_ascii=False))


def read_facts(path: Path) -> dict[str, Any]:
    """Return what `own_facts` has written. Raises WeightsError or ConversionError when the file lacks it, is damaged,
    or of another version."""
    text = check_file(path).get(FACTS)
    if not isinstance(text, str):
        raise WeightsError(f"{path}: not written by ghost export ({FACTS} is missing); export the model: ghost export")
    facts = parse_json(text.encode(), path)
    kind, version = facts.get("kind"), facts.get("format")
    if kind not in ("merged", "base", "adapter") or version != ghost_json.FORMAT:
        raise WeightsError(f"{path}: {FACTS} of kind {kind!r:.60}, format {version!r:.60}; update ghost")
    if kind != "merged" and not isinstance(facts.get("base_sha256"), str):
        raise WeightsError(f"{path}: {FACTS} names no base; export it again")
    return facts


def tokenizer_facts(writer: Any, tokenizer: Tokenizer, vocabulary: Vocabulary | ByteLevelVocabulary) -> None:
    """The vocabulary, and that BOS begins a text, if the base has it, and nothing else is added to it.

    llama.cpp would add a space before the text and after each special token. In training only the first has one, so
    the chat template writes that one itself.
    """
    writer.add_tokenizer_model(vocabulary.model)
    writer.add_tokenizer_pre(vocabulary.pre)
    writer.add_token_list(vocabulary.pieces)
    if isinstance(vocabulary, Vocabulary):
        writer.add_token_scores(vocabulary.scores)
    else:
        writer.add_token_merges([f"{left} {right}" for left, right in vocabulary.merges])
    writer.add_token_types(vocabulary.kinds)
    if tokenizer.bos_token_id is not None:
        writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    if tokenizer.unk_token_id is not None:
        writer.add_unk_token_id(tokenizer.unk_token_id)
    writer.add_add_bos_token(tokenizer.bos_token_id is not None)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(False)
    if tokenizer.chat_template is not None:
        writer.add_chat_template(tokenizer.chat_template)


# Check a GGUF file before a library reads it: llama.cpp is native code, and a file may come from a stranger.

BYTES_OF = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}  # of a value, by its type
TEXT, ARRAY = 8, 9
# Values and bytes of a block, by the number of the type: F32, F16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K, Q6_K.
BLOCKS = {0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34)}
BLOCKS |= {12: (256, 144), 13: (256, 176), 14: (256, 210)}
MOST_KEYS, MOST_TENSORS, MOST_VALUES, LONGEST_TEXT = 1_000, 20_000, 4_000_000, 64 * 2**20
LARGEST_SIZE = {"block_count": 256, "context_length": 2**27, "embedding_length": 65_536, "feed_forward_length": 2**20}
LARGEST_SIZE |= {"head_count": 1_024, "head_count_kv": 1_024}


def check_file(path: Path) -> dict[str, int | str | None]:
    """Walk through a file's header and return its values, floats as their bits and arrays as None.

    Raises ConversionError if a count, a length or a tensor's place does not fit the file.

    The layout: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
    """
    try:
        if not path.exists():
            raise ConversionError(f"{path}: no such file; ghost export writes GGUF files")
        if not path.is_file():
            raise ConversionError(f"{path}: not a file; name a GGUF file, which ghost export writes")
        with path.open("rb") as stream:
            return _Header(stream, path.stat().st_size).check()
    except OSError as error:
        raise ConversionError(f"{path}: {error.strerror or error}") from error
    except ValueError as error:  # struct.error, UnicodeDecodeError and those below
        raise ConversionError(f"{path}: truncated, or no GGUF file ({error})") from error


class _Header:
    def __init__(self, stream: BinaryIO, size: int) -> None:
        self._stream, self._size = stream, size

    def check(self) -> dict[str, int | str | None]:
        if self._take(4) != b"GGUF":
            raise ValueError("it does not begin with GGUF")
        version, tensors, keys = self._number(4), self._number(8), self._number(8)
        if version not in (2, 3) or tensors > MOST_TENSORS or keys > MOST_KEYS:
            raise ValueError(f"version {version}, {tensors:,} tensors, {keys:,} keys")
        align, names, values = 32, set(), dict[str, int | str | None]()
        for _ in range(keys):
            name, kind = self._text(), self._number(4)
            value = self._value(kind)
            if name in names:
                raise ValueError(f"{name[:60]!r} is there twice")
            names.add(name)
            values[name] = value
            largest = LARGEST_SIZE.get(name.rpartition(".")[2])
            if largest and not (isinstance(value, int) and 0 <= value <= largest):
                raise ValueError(f"{name[:60]!r} is out of range")
            if name == "general.alignment":
                if not isinstance(value, int) or value not in (8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096):
                    raise ValueError("its alignment is out of range")
                align = value
        places = []
        for _ in range(tensors):
            name, dimensions = self._text(), self._number(4)
            if dimensions > 4:
                raise ValueError(f"{name[:60]!r} has {dimensions:,} dimensions")
            shape = [self._number(8) for _ in range(dimensions)]
            # The library knows which other types there are.
            per_block, block_bytes = BLOCKS.get(self._number(4), (1, 0))
            places.append((self._number(8) + math.prod(shape) // per_block * block_bytes, name))
            # The smallest type has less than two bits a value.
            if math.prod(shape) > 8 * self._size or name in names:
                raise ValueError(f"{name[:60]!r} does not fit the file, or is there twice")
            names.add(name)
        start = _padded(self._stream.tell(), align)
        if places and start + max(places)[0] > self._size:
            raise ValueError(f"{max(places)[1][:60]!r} ends after byte {self._size:,}, where the file does")
        return values

    def _take(self, count: int) -> bytes:
        if count > self._size - self._stream.tell():
            raise ValueError("it ends early")
        return self._stream.read(count)

    def _number(self, count: int) -> int:
        return int.from_bytes(self._take(count), "little")

    def _text(self) -> str:
        length = self._number(8)
        if length > LONGEST_TEXT:
            raise ValueError("a text is too long")
        return self._take(length).decode()

    def _value(self, kind: int) -> int | str | None:
        if kind == TEXT:
            return self._text()
        if kind in BYTES_OF:
            return self._number(BYTES_OF[kind])
        if kind != ARRAY:
            raise ValueError(f"a value of type {kind:,}")
        inner, count = self._number(4), self._number(8)
        if count > MOST_VALUES:
            raise ValueError(f"an array of {count:,} values")
        if inner == TEXT:
            for _ in range(count):
                self._text()
        elif inner in BYTES_OF:
            self._take(count * BYTES_OF[inner])
        else:
            raise ValueError(f"an array of values of type {inner:,}")
        return None
