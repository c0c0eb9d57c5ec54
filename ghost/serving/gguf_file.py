"""One GGUF file as a stream: its header needs names and shapes only, and the values follow, some rows at a time.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Names of keys and tensors are gguf's own.
"""

import hashlib
import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from replicate_deployment.settings import Settings
from replicate_deployment.tokenization import Tokenizer
from scripts.portable.decoder import Decoder
from scripts.portable.vocabulary import Vocabulary
from scripts.weights import Weights, row_blocks
from training.errors import ConversionError

Type = Literal["f16", "q8_0"]
Block = Any  # numpy.ndarray


@dataclass(frozen=True)
class Stored:
    """A tensor of the file: its name there, its source in the model folder, its rows' order, its type and bytes."""

    name: str
    source: str
    shape: tuple[int, ...]
    heads: int
    """Of queries or keys, whose rows stand in another order; else 0."""
    kind: Any
    """gguf.GGMLQuantizationType"""
    size: int


def plan(decoder: Decoder, weights: Weights, kind: Type) -> list[Stored]:
    """The tensors of the file, in order: matrices as `kind`, vectors in float32.

    Raises ConversionError when the weights are not those that the config promises.
    """
    import gguf

    expected = decoder.tensors()
    for name in [*expected.keys() - weights.shapes.keys(), *weights.shapes.keys() - expected.keys()]:
        what = "is missing" if name in expected else "has no place in llama.cpp's llama architecture"
        raise ConversionError(f"{name} {what}: the weights and config.json are not of one model")
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, decoder.shapes.layers)
    heads = {"q_proj": decoder.shapes.heads, "k_proj": decoder.shapes.kv_heads}
    tensors = []
    for source, shape in expected.items():
        if weights.shapes[source] != shape or weights.dtypes[source] != "F16":
            found = f"{weights.dtypes[source]} {[*weights.shapes[source]]}"
            raise ConversionError(f"{source}: {found}; a merged model of this config has F16 {[*shape]}")
        stored = gguf.GGMLQuantizationType[kind.upper() if len(shape) > 1 else "F32"]
        per_block, block_bytes = gguf.GGML_QUANT_SIZES[stored]
        if shape[-1] % per_block:
            raise ConversionError(f"{source}: rows of {shape[-1]} values, and {kind} needs multiples of {per_block}")
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
    """Write the file and return its SHA-256; `advance` is called after each tensor.

    Raises ConversionError when the disk has no room for it.
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
            "free some, or name a folder on another disk: --out"
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

    transformers turns value i of a head with value i + d/2, llama.cpp's `llama` architecture 2i with 2i + 1: so within
    each head of queries and keys the halves of the rows are interleaved.
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
    """The defaults that llama.cpp takes where its caller names none, and its own min_p switched off."""
    writer.add_sampling_temp(sampling.temperature)
    writer.add_sampling_top_p(sampling.top_p)
    writer.add_sampling_top_k(sampling.top_k)
    writer.add_sampling_min_p(0.0)
    writer.add_sampling_penalty_repeat(sampling.repetition_penalty)


def tokenizer_facts(writer: Any, tokenizer: Tokenizer, vocabulary: Vocabulary) -> None:
    """The vocabulary, and that BOS begins a text and nothing else is added to it.

    No space either, which llama.cpp would put before the text and after each special token: only the first is as in
    training, so the chat template writes that one itself.
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
