"""From ids to the scores of the next token, in two ways that agree: over a cache that grows, and over a static one.

Growing is transformers' own forward pass: for a CPU, for any length. Static is for a GPU, where launching each of a
step's thousand kernels from Python takes several times as long as the kernels do. There a step is

1. computed by one function for every layer, over keys and values of a fixed length, so that one compilation (Inductor,
   which fuses what lies between the matrix products) serves all layers;
2. recorded as a CUDA graph, and replayed by a single call.

The recording is ours and not that of torch.compile's mode "reduce-overhead", which transformers' `generate` uses for
its static cache: that one belongs to the thread that made it, and Cog runs `setup` and predictions in different ones.
"""

import inspect
from collections.abc import Callable, Sequence
from threading import Lock
from typing import Any

import torch

from .errors import PromptError, WeightsError

# Training windows are cut at 1,024 tokens, so a history beyond that is unlike anything the model has seen, and a reply
# is 1,024 at most. Every slot is read for every token, used or not: 256 MiB at Mistral-7B's shape, 2% of its weights.
STATIC_TOKENS = 2048
# The prompt goes through in pieces, each finished before the next, so that a cancellation waits for one at most.
PREFILL_TOKENS = 512
# Parts in which the cache is read side by side (flash-decoding: Dao et al. 2023,
# https://crfm.stanford.edu/2023/10/12/flashdecoding.html). With 8 key heads alone 8 of a GPU's 132 processors had work.
PARTS = 16
# Triton kernels for products with one row, tuned to the chip, as gpt-fast has them; the results are kept in the cache.
INDUCTOR: dict[str, str | int | bool | Callable[..., Any]] = {"coordinate_descent_tuning": True}


def cache_argument(model: Any) -> str:
    """The name under which `forward` takes its key/value cache: `cache` since transformers 5.24, before that
    `past_key_values`. Under a wrong name it would vanish in `**kwargs`: each token would be read without a context.

    Raises WeightsError when `forward` knows neither.
    """
    known = inspect.signature(type(model).forward).parameters
    for name in ("cache", "past_key_values"):
        if name in known:
            return name
    raise WeightsError(
        f"{type(model).__name__}.forward takes a key/value cache neither as `cache` nor as `past_key_values`: install "
        "a version of transformers that pyproject.toml allows"
    )


class Growing:
    """transformers' forward pass over keys and values that grow. One for each reply."""

    def __init__(self, model: Any) -> None:
        from transformers import DynamicCache

        self._model = model
        self.cache = DynamicCache(config=model.config)
        self._arguments = {cache_argument(model): self.cache, "use_cache": True, "logits_to_keep": 1}

    def start(self, ids: Sequence[int]) -> Any:
        """The scores (vocabulary,) of the token after `ids`. Raises PromptError when memory is too small for them."""
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
        """The scores (vocabulary,) of the token after `token` (1,), which came after all before."""
        return self._forward(token[None])

    @torch.inference_mode()
    def _forward(self, ids: Any) -> Any:
        return self._model(input_ids=ids.to(self._model.device), **self._arguments).logits[0, -1]


class Static:
    """A MistralForCausalLM over keys and values of `length` tokens, for one reply at a time: hold `lock` meanwhile.

    The scores that are returned lie in one place, and are those of the last call.
    """

    def __init__(self, model: Any, length: int, layer: Callable[..., Any] | None = None) -> None:
        """`layer` takes the place of `decoder_layer`, compiled."""
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
        """As Growing's. A prompt is read once, in any length, so nothing is gained by compiling that."""
        growing = Growing(self._model)
        scores = growing.start(ids)
        for (keys, values), read in zip(self._cache, growing.cache.layers, strict=True):
            for slots, found in ((keys, read.keys), (values, read.values)):
                slots[:, : len(ids)] = found[0]
                slots[:, len(ids) :] = 0  # an infinity left by another reply is NaN, even at a weight of zero
        self._position.fill_(len(ids))
        return scores

    @torch.inference_mode()
    def next(self, token: Any) -> Any:
        """As Growing's, while fewer than `length` tokens are there."""
        self._token.copy_(token)
        self._run()
        return self._scores

    @torch.inference_mode()
    def record(self) -> None:
        """Take a step, compiling what is to be compiled; on a GPU, record it for all those to come."""
        self._position.zero_()
        if self._position.device.type != "cuda":
            self._step()
            return
        # Libraries allocate on first use, which a recording does not allow: three times on a stream of its own first
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
        for layer, (keys, values) in zip(model.layers, self._cache, strict=True):
            hidden = self._layer(layer, hidden, cos, sin, keys, values, self._position, visible)
        self._scores.copy_(self._model.lm_head(model.norm(hidden))[0, -1])
        self._position += 1


def decoder_layer(
    layer: Any, hidden: Any, cos: Any, sin: Any, keys: Any, values: Any, position: Any, visible: Any
) -> Any:
    """transformers' MistralDecoderLayer for one token (1, 1, hidden); writes its key and value at `position`."""
    attention = layer.self_attn
    read = layer.input_layernorm(hidden)
    query = _rotate(attention.q_proj(read).view(-1, attention.head_dim), cos[0], sin[0])
    key = _rotate(attention.k_proj(read).view(-1, 1, attention.head_dim), cos, sin)
    keys.index_copy_(1, position, key)
    values.index_copy_(1, position, attention.v_proj(read).view(-1, 1, attention.head_dim))
    found = attend(query * attention.scaling, keys, values, visible)
    hidden = hidden + attention.o_proj(found.view(1, 1, -1))
    return hidden + layer.mlp(layer.post_attention_layernorm(hidden))


def attend(query: Any, keys: Any, values: Any, visible: Any) -> Any:
    """Attention of one token: query (heads, width), scaled; keys and values (key heads, length, width), read once each.

    The heads that share a key head are the rows of one product, so nothing is repeated for them; parts of the length
    are products side by side, each weighed by the largest score of all. Gives (heads, width).
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
