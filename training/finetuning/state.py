"""How far a training is, and the tensors it consists of: adapter, optimiser, random state."""

from dataclasses import dataclass, field
from typing import Any

from training.finetuning.selection import Selection

Tensors = dict[str, Any]


@dataclass
class State:
    """How far a training is.

    asked        the config's `micro_batch_tokens`
    budget       tokens of a micro-batch: what that came to, less whenever memory ran out
    step         optimiser steps done
    tokens       tokens that went through the model in them
    seconds      of `training`, `evaluating` and in `total`, with checkpoints; over all runs, without what a crash lost
    log          an entry every `logging_steps`
    evaluations  the held-out losses, with their steps
    resumed      the steps at which the training was taken up again
    halved       when memory ran out, and the budget since
    best         the adapter of `selection.best_step`
    rng          torch's random state after `step` steps
    """

    asked: int | str
    budget: int
    step: int = 0
    tokens: int = 0
    seconds: dict[str, float] = field(default_factory=lambda: {"training": 0.0, "evaluating": 0.0, "total": 0.0})
    log: list[dict[str, float]] = field(default_factory=list)
    evaluations: list[dict[str, float]] = field(default_factory=list)
    resumed: list[int] = field(default_factory=list)
    halved: list[dict[str, int]] = field(default_factory=list)
    selection: Selection = field(default_factory=Selection)
    best: Tensors | None = None
    rng: Tensors = field(default_factory=dict)


def gather(model: Any, optimizer: Any) -> Tensors:
    """Adapter and optimiser as flat tensors, on the CPU: `adapter/PARAMETER`, `optimizer/QUANTITY/PARAMETER`."""
    tensors: Tensors = {}
    for name, parameter in trained(model):
        tensors[f"adapter/{name}"] = parameter.detach().cpu().contiguous()
        for quantity, tensor in optimizer.state.get(parameter, {}).items():
            tensors[f"optimizer/{quantity}/{name}"] = tensor.cpu().contiguous()
    return tensors


def scatter(tensors: Tensors, model: Any, optimizer: Any) -> None:
    """What `gather` gathered, put back."""
    names = [name for name, _ in trained(model)]
    put(model, {name: tensors[f"adapter/{name}"] for name in names})
    states: dict[int, Tensors] = {}
    for key, tensor in tensors.items():
        kind, _, rest = key.partition("/")
        if kind == "optimizer":
            quantity, _, name = rest.partition("/")
            states.setdefault(names.index(name), {})[quantity] = tensor
    optimizer.load_state_dict({"state": states, "param_groups": optimizer.state_dict()["param_groups"]})


def adapter(model: Any) -> Tensors:
    """A copy of the trained parameters, on the CPU."""
    return {name: parameter.detach().cpu().clone() for name, parameter in trained(model)}


def put(model: Any, weights: Tensors) -> None:
    """Make `weights` the trained parameters."""
    import torch

    with torch.no_grad():
        for name, parameter in trained(model):
            parameter.copy_(weights[name])


def trained(model: Any) -> list[tuple[str, Any]]:
    return [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]


def random_state() -> Tensors:
    """Of torch's generators: dropout is all that draws from them while training."""
    import torch

    cuda = {"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {}
    return {"cpu": torch.get_rng_state(), **cuda}


def set_random_state(state: Tensors) -> None:
    import torch

    torch.set_rng_state(state["cpu"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
