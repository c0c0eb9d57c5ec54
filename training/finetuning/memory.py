"""What training needs of a device's memory, by component, and how many tokens may go through the model at once.

Bytes, computed from shapes alone. The terms that grow with the tokens are those that PyTorch's autograd keeps of a
block in transformers 5 and peft 0.21; a test counts them in a model and must find the same. On a GPU nothing has been
measured yet. For Mistral-7B's shape at sequence 1024 they give, in GB at 4k, 8k, 16k and 32k tokens, 8, 11, 16 and 25
with gradient checkpointing, and 40, 73 and 141 without.
"""

from dataclasses import astuple, dataclass

from training.errors import TrainingError
from training.finetuning.config import TrainingConfig
from training.finetuning.shapes import Shapes

CONTEXT = 500_000_000  # PyTorch's CUDA context with its libraries and their workspaces: assumed, 400 to 600 MB
HEADROOM = 0.9  # of what is free: micro-batches differ in length, and what they leave behind is not one piece
LOGITS = 1 << 25  # float32 logits that exist at once, as objective.py cuts them
STEP = 512  # budgets are multiples of it
# Below this many tokens at once, making each matrix of an nf4 base a bfloat16 one (22 to 31 ms a pass over a 7B on an
# H100) takes longer than computing the forward pass twice, so checkpointing with a larger budget is faster.
LEAST_WITHOUT_CHECKPOINTING = 1024
# What a CPU gains is little, and its caches are small. On one core, 5 million weights in float32: where windows have 40
# tokens, 330 tokens/s one at a time, 1,120 at 1,024, 1,360 at 4,096; where they have 208, 850, 860 and 840, 990 at 512.
CPU_TOKENS = 1024
MASK = 1  # bytes in which CUDA's dropout remembers what it dropped


@dataclass(frozen=True)
class Memory:
    """Bytes. `activations` and `working` grow with the tokens, the others do not.

    base         the blocks' linear layers, nf4
    rest         embeddings, head and norms
    adapter      LoRA matrices in float32, and the bfloat16 copy that computes
    gradients    of the adapter, float32
    optimizer    AdamW's two float32 moments
    activations  what the forward pass keeps for the backward pass
    working      gradients of activations, on the way through a block
    loss         logits of a chunk of targets, their softmax, their gradient
    context      CUDA itself
    """

    base: int
    rest: int
    adapter: int
    gradients: int
    optimizer: int
    activations: int
    working: int
    loss: int
    context: int

    @property
    def total(self) -> int:
        return sum(astuple(self))


@dataclass(frozen=True)
class Budget:
    """`tokens` go through the model at once, with gradient checkpointing or without; that takes `memory`."""

    tokens: int
    checkpointing: bool
    memory: Memory


def needed(shapes: Shapes, config: TrainingConfig, tokens: int, *, checkpointing: bool, cuda: bool = True) -> Memory:
    """The peak for micro-batches of `tokens`. Raises ConfigError on LoRA targets that the base lacks."""
    width = 2 if config.bf16 else 4
    lora = shapes.lora_parameters(config.lora_target_modules, config.lora_r)
    block = saved_by_block(shapes, config, width=width)
    kept = shapes.layers * shapes.hidden * width + block if checkpointing else shapes.layers * block
    return Memory(
        base=round(shapes.linear_parameters * bytes_of_a_weight(config)),
        rest=shapes.other_parameters * width,
        adapter=lora * (4 + (width if config.bf16 else 0)),
        gradients=lora * 4,
        optimizer=lora * 8,
        activations=tokens * kept,
        working=tokens * 2 * (shapes.hidden + shapes.inner) * width,
        loss=LOGITS * (4 + 4 + width),
        context=CONTEXT if cuda else 0,
    )


def bytes_of_a_weight(config: TrainingConfig) -> float:
    """Of an nf4 weight: half a byte, and a scale for each block of 64: float32, or one byte, of which each 256 share a
    float32 (QLoRA, arXiv:2305.14314, section 3)."""
    double = config.bnb_config_kwargs.bnb_4bit_use_double_quant
    return 0.5 + ((1 + 4 / 256) / 64 if double else 4 / 64)


def saved_by_block(shapes: Shapes, config: TrainingConfig, *, width: int, mask: int = MASK) -> int:
    """Bytes a token that a block keeps for its backward pass; `width` bytes a number, `mask` bytes for one dropped.

    The block itself: inputs of both norms in float32 and their inverse deviations; queries, keys, values, what
    attention gives and its log-normaliser; of the feed-forward the gate before and after its SiLU, and the other half.
    The adapters: A's output, and each one's own input after dropout with the mask of it. Without dropout that input is
    one that neighbours share: a norm's output, what attention gives, the feed-forward's product.
    """
    norms = 2 * (4 * shapes.hidden + 4)
    attention = width * (2 * shapes.queries + 2 * shapes.keys) + 4 * shapes.heads
    feed_forward = width * 3 * shapes.inner
    targets = [shapes.linear[name][0] for name in config.lora_target_modules]
    if config.lora_dropout:
        inputs = (width + mask) * sum(targets)
    else:
        shared = ({"q_proj", "k_proj", "v_proj"}, shapes.hidden), ({"gate_proj", "up_proj"}, shapes.hidden)
        inputs = width * sum(size for names, size in shared if names & set(config.lora_target_modules))
        inputs += width * shapes.inner * ("down_proj" in config.lora_target_modules)
    return norms + attention + feed_forward + inputs + width * config.lora_r * len(targets)


def resolve_budget(
    shapes: Shapes,
    config: TrainingConfig,
    free: int,
    *,
    longest: int,
    most: int | None = None,
    cuda: bool = True,
) -> Budget:
    """How many tokens go through the model at once on a device with `free` bytes, and whether with checkpointing.

    `longest` is the longest segment, which any budget must hold; `most` what a step has at most: more would never be
    filled. A number in the config stands, and null for `gradient_checkpointing` means: only where memory asks for it.
    Raises TrainingError when it does not fit.
    """
    wanted = None if config.micro_batch_tokens == "auto" else max(int(config.micro_batch_tokens), longest)
    if wanted is None and not cuda:
        wanted = max(CPU_TOKENS, longest)
    modest = max(longest, min(LEAST_WITHOUT_CHECKPOINTING, most or LEAST_WITHOUT_CHECKPOINTING), wanted or 0)
    choices = (False, True) if config.gradient_checkpointing is None else (config.gradient_checkpointing,)
    fitting = 0
    for checkpointing in choices:
        fitting = _fitting(shapes, config, free, checkpointing=checkpointing, cuda=cuda)
        last = checkpointing == choices[-1]
        if fitting >= (max(longest, wanted or 0) if last else modest):
            tokens = wanted or _round(min(fitting, most or fitting), longest, fitting)
            return Budget(tokens, checkpointing, needed(shapes, config, tokens, checkpointing=checkpointing, cuda=cuda))
    raise TrainingError(_refusal(shapes, config, free, max(longest, wanted or 0), fitting, cuda=cuda))


def _fitting(shapes: Shapes, config: TrainingConfig, free: int, *, checkpointing: bool, cuda: bool) -> int:
    """Tokens at once for which `free` bytes suffice; 0 or less when not even the model fits."""
    fixed = needed(shapes, config, 0, checkpointing=checkpointing, cuda=cuda).total
    each = needed(shapes, config, 1, checkpointing=checkpointing, cuda=cuda).total - fixed
    return int(free * HEADROOM - fixed) // each


def _round(tokens: int, longest: int, fitting: int) -> int:
    """To a multiple of STEP: up when that fits, else down, but never below the longest segment."""
    up = -(-tokens // STEP) * STEP
    return up if up <= fitting else max(tokens // STEP * STEP, longest)


def _refusal(shapes: Shapes, config: TrainingConfig, free: int, tokens: int, fitting: int, *, cuda: bool) -> str:
    checkpointing = config.gradient_checkpointing is not False
    need = needed(shapes, config, tokens, checkpointing=checkpointing, cuda=cuda).total / HEADROOM
    found = f"{tokens:,} tokens at once need {need / 1e9:.1f} GB and {free / 1e9:.1f} GB are free"
    if fitting <= 0:
        return f"does not fit: {found}; take a device with more memory, or a smaller base_model"
    if not checkpointing:
        return f"does not fit: {found}; set gradient_checkpointing: null, or take a device with more memory"
    key = "sequence_len" if config.micro_batch_tokens == "auto" else "micro_batch_tokens"
    return f"does not fit: {found}; lower {key} to at most {fitting:,}, or take a device with more memory"
