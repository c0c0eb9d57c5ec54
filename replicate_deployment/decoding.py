"""Compute next-token scores over a dynamic or a static KV cache; both give the same scores.

DynamicDecoder is transformers' own forward pass, for CPUs and for any length. StaticDecoder is for GPUs, where
launching a step's thousand kernels from Python takes several times as long as running them. It

1. computes every layer by one function over a KV cache of fixed length, so one compilation (Inductor, which fuses the
   operations between matrix products) serves all layers;
2. records a step as a CUDA graph and replays it with one call.

It records the graph itself because torch.compile's "reduce-overhead" mode, which transformers' `generate` uses, ties
the graph to the thread that made it, and Cog runs `setup` and predictions in different threads.
"""

import inspect
from collections.abc import Callable, Sequence
from threading import Lock
from typing import Any

import torch

from .errors import PromptError, WeightsError

# 1,024 for the history, where training windows are cut, plus 1,024 for the longest reply. Every step reads every slot,
# used or not: 256 MiB at Mistral-7B's shape, 2% of its weights.
STATIC_TOKENS = 2048
# Read the prompt in pieces of this many tokens, each finished before the next, so a cancellation waits for one at most.
PREFILL_TOKENS = 512
# Parts of the cache read in parallel (flash-decoding: Dao et al. 2023,
# https://crfm.stanford.edu/2023/10/12/flashdecoding.html). With one part, 8 key heads use 8 of a GPU's 132 processors.
PARTS = 16
# Tune Triton kernels for one-row products to the chip, as gpt-fast does; the results are kept in Inductor's cache.
INDUCTOR_OPTIONS: dict[str, str | int | bool | Callable[..., Any]] = {"coordinate_descent_tuning": True}


def cache_argument(model: Any) -> str:
    """Return the name of `forward`'s KV cache argument: `cache` since transformers 5.24, before that `past_key_values`.

    `**kwargs` swallows a wrong name silently, and each token would then be read without context.

    Raises WeightsError when `forward` has neither argument.
    """
    known = inspect.signature(type(model).forward).parameters
    for name in ("cache", "past_key_values"):
        if name in known:
            return name
    raise WeightsError(
        f"{type(model).__name__}.forward takes a KV cache neither as `cache` nor as `past_key_values`: install a "
        "version of transformers that pyproject.toml allows"
    )


class DynamicDecoder:
    """transformers' forward pass over a dynamic KV cache. Make one for each reply."""

    def __init__(self, model: Any) -> None:
        from transformers import DynamicCache

        self._model = model
        self.cache = DynamicCache(config=model.config)
        self._arguments = {cache_argument(model): self.cache, "use_cache": True, "logits_to_keep": 1}

    def start(self, ids: Sequence[int]) -> Any:
        """Return the scores (vocabulary,) of the token after `ids`. Raises PromptError when GPU memory runs out."""
        prompt: Any = torch.tensor([ids])
        pieces = prompt.split(PREFILL_TOKENS, dim=1)
        try:
            for piece in pieces[:-1]:
                self._forward(piece)
                if self._model.device.type == "cuda":
                    torch.cuda.synchronize()
            return self._forward(pieces[-1])
        except torch.OutOfMemoryError as error:
            raise PromptError(f"the prompt's {len(ids):,} tokens do not fit the GPU's memory; shorten it") from error

    def next(self, token: Any) -> Any:
        """Append `token` (1,) and return the scores (vocabulary,) of the next one."""
        return self._forward(token[None])

    @torch.inference_mode()
    def _forward(self, ids: Any) -> Any:
        return self._model(input_ids=ids.to(self._model.device), **self._arguments).logits[0, -1]


class StaticDecoder:
    """A model shaped like LlamaForCausalLM, over a static KV cache of `length` tokens. Hold `lock` during a reply.

    Each call overwrites the scores that the previous one returned.
    """

    def __init__(self, model: Any, length: int, layer: Callable[..., Any] | None = None) -> None:
        """Use `layer`, a compiled `decoder_layer`, if given."""
        config, weight = model.config, model.model.embed_tokens.weight
        self.length = length
        self.lock = Lock()
        self._model, self._layer = model, layer or decoder_layer
        shape = (config.num_key_value_heads, length, model.model.layers[0].self_attn.head_dim)
        with torch.inference_mode():
            self._cache = [(weight.new_zeros(shape), weight.new_zeros(shape)) for _ in range(config.num_hidden_layers)]
            self._slots = torch.arange(length, device=weight.device)
            self._position = torch.zeros(1, dtype=torch.long, device=weight.device)
            self._token = torch.zeros(1, dtype=torch.long, device=weight.device)
            self._scores = torch.zeros(config.vocab_size, device=weight.device)
        self._run: Callable[[], None] = self._step

    @torch.inference_mode()
    def start(self, ids: Sequence[int]) -> Any:
        """Like `DynamicDecoder.start`, which it calls: prompts vary in length, so compiling would not pay."""
        dynamic = DynamicDecoder(self._model)
        scores = dynamic.start(ids)
        for (keys, values), read in zip(self._cache, dynamic.cache.layers, strict=True):
            for slots, found in ((keys, read.keys), (values, read.values)):
                slots[:, : len(ids)] = found[0]
                slots[:, len(ids) :] = 0  # an infinity left by another reply is NaN, even at a weight of zero
        self._position.fill_(len(ids))
        return scores

    @torch.inference_mode()
    def next(self, token: Any) -> Any:
        """Like `DynamicDecoder.next`, for up to `length` tokens."""
        self._token.copy_(token)
        self._run()
        return self._scores

    @torch.inference_mode()
    def record(self) -> None:
        """Run one step, which compiles it; on a GPU, record it as the CUDA graph for later steps."""
        self._position.zero_()
        if self._position.device.type != "cuda":
            self._step()
            return
        # Libraries allocate on first use, which capture forbids, so warm up three times on a separate stream
        # (https://docs.pytorch.org/docs/stable/notes/cuda.html#whole-network-capture).
        cuda: Any = torch.cuda
        stream = cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                self._step()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self._step()
        self._run = graph.replay

    def _step(self) -> None:
        model = self._model.model
        hidden = model.embed_tokens(self._token[None])
        cos, sin = model.rotary_emb(hidden, self._position[None])
        visible = self._slots <= self._position
        unrotated = torch.ones_like(cos), torch.zeros_like(sin)
        for layer, (keys, values) in zip(model.layers, self._cache, strict=True):
            rotation = (cos, sin) if getattr(layer.self_attn, "use_rope", True) else unrotated  # SmolLM3 has both
            hidden = self._layer(layer, hidden, rotation[0], rotation[1], keys, values, self._position, visible)
        self._scores.copy_(self._model.lm_head(model.norm(hidden))[0, -1])
        self._position += 1


def decoder_layer(
    layer: Any, hidden: Any, cos: Any, sin: Any, keys: Any, values: Any, position: Any, visible: Any
) -> Any:
    """Compute transformers' LlamaDecoderLayer for one token (1, 1, hidden); write its key and value at `position`."""
    attention = layer.self_attn
    read = layer.input_layernorm(hidden)
    query = attention.q_proj(read).view(-1, attention.head_dim)
    key = attention.k_proj(read).view(-1, 1, attention.head_dim)
    if hasattr(attention, "q_norm"):  # Qwen3
        query, key = attention.q_norm(query), attention.k_norm(key)
    query, key = _rotate(query, cos[0], sin[0]), _rotate(key, cos, sin)
    keys.index_copy_(1, position, key)
    values.index_copy_(1, position, attention.v_proj(read).view(-1, 1, attention.head_dim))
    found = attend(query * attention.scaling, keys, values, visible)
    hidden = hidden + attention.o_proj(found.view(1, 1, -1))
    return hidden + layer.mlp(layer.post_attention_layernorm(hidden))


def attend(query: Any, keys: Any, values: Any, visible: Any) -> Any:
    """Attention of one token, (heads, width): scaled query (heads, width); keys, values (key heads, length, width).

    Heads that share a key head are rows of one product, so keys and values are not repeated. Parts of the length are
    computed in parallel, with the maximum score over all parts subtracted.
    """
    heads, length, width = keys.shape
    parts = PARTS if length % PARTS == 0 else 1
    rows = query.view(heads, 1, -1, width)
    scores = (rows @ keys.view(heads, parts, -1, width).transpose(2, 3)).float()
    scores = scores.masked_fill(~visible.view(parts, 1, -1), float("-inf"))
    weights = (scores - scores.amax((1, 3), keepdim=True)).exp()
    found = (weights.to(values.dtype) @ values.view(heads, parts, -1, width)).float().sum(1)
    return (found / weights.sum((1, 3))[..., None]).to(values.dtype).view(-1, width)


def _rotate(states: Any, cos: Any, sin: Any) -> Any:
    """Rotary position embedding (Su et al. 2021, https://arxiv.org/abs/2104.09864), halves as in transformers."""
    first, second = states.chunk(2, dim=-1)
    return states * cos + torch.cat((-second, first), dim=-1) * sin
