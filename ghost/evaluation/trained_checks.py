"""The checks of a merged model that look at its training: is anything learnt, and is it what was trained?"""

from functools import cached_property
from pathlib import Path

from ghost.evaluation import contenders
from ghost.serving.checks import Model, Problem, Skipped
from replicate_deployment import ghost_json
from replicate_deployment.errors import GhostError
from training.merging import adapter as adapters
from training.merging import proof, provenance
from training.merging.merge import Sources
from training.merging.weights import Weights, row_blocks

AGAIN = "ghost train"


class Trained(Model):
    """A merged model, and what it was made from, if that is on this disk.

    adapter  its folder; without one, `adapter` beside the model, if it is the model's own
    base     folder or Hub repo; without one, the recorded base, if it is on this disk
    """

    def __init__(self, folder: Path, adapter: Path | None = None, base: str | None = None) -> None:
        super().__init__(folder)
        self._adapter, self.base = adapter, base

    @cached_property
    def adapter(self) -> Path:
        found = self._adapter or contenders.adapter_beside(self.folder)
        if found is None:
            raise Skipped("no adapter of this model beside it; --adapter FOLDER names one")
        return found


def values(model: Trained) -> str:
    """Check every value of every tensor: prompts reach only some rows of an embedding, and a NaN may be in another."""
    count = 0
    with Weights.of_model(model.folder) as weights:
        for name, shape in weights.shapes.items():
            is_zero = _scan(weights, name, shape)
            if is_zero and len(shape) > 1:  # a bias may be
                raise Problem(f"{name}: every value is 0", "ghost merge")
            count += 1
    return f"{count} tensors, every value finite, no matrix of zeros"


def _scan(weights: Weights, name: str, shape: tuple[int, ...]) -> bool:
    """Whether all of it is 0. Raises Problem on a value that is not finite."""
    import torch

    is_zero = True
    for start, stop in row_blocks(shape):
        block = weights.rows(name, start, stop)
        if not torch.isfinite(block).all():
            raise Problem(f"{name}: NaN or infinite values", AGAIN)
        is_zero = is_zero and not block.any()
    return is_zero


def loss(model: Trained) -> str:
    """Check that the held-out loss fell in training; parity shows that the merged model is what was measured."""
    training = model.ghost.facts.get("training") or {}
    if margins := (training.get("preferences") or {}).get("margin"):  # which may cost some of the loss
        return _margin(margins["train"])
    measured = training.get("heldout") or {}
    before, after = (measured.get(when) or {} for when in ("before", "after"))
    kind = next((kind for kind in ("reply_loss", "loss") if before.get(kind) is not None), "")
    if not kind or after.get(kind) is None:
        raise Skipped("training recorded no held-out loss")
    found = f"{before[kind]:.3f} before training, {after[kind]:.3f} after, nats a token of held-out replies"
    if not after[kind] < before[kind]:  # not `>=`: a NaN must fail too
        raise Problem(f"{found}: nothing was learnt", f"{AGAIN}, with a lower learning_rate or more chats")
    return found


def _margin(measured: dict[str, float]) -> str:
    """How much likelier what the owner sent has become than what they refused."""
    found = f"preferred replies {measured['value']:+.3f} nats a token against refused ones, of {measured['n']}"
    if not measured["low"] > 0:
        raise Problem(f"{found}, and it may be 0: nothing was learnt", f"{AGAIN}, for more epochs or with more drafts")
    return found


def adapter(model: Trained) -> str:
    """Check that training changed the adapter: B matrices begin as zero, and with those a merge gives the base."""
    folder = model.adapter
    recorded = model.ghost.block("merge").get("adapter_sha256")
    if recorded != ghost_json.sha256(folder / adapters.WEIGHTS):
        raise Problem(f"{folder} is not the adapter that was merged", f"ghost merge {folder}")
    with Weights([folder / adapters.WEIGHTS]) as weights:
        zero = {name: _scan(weights, name, shape) for name, shape in weights.shapes.items()}
    learnt = {name: is_zero for name, is_zero in zero.items() if "lora_B" in name or "lora_embedding_B" in name}
    if learnt and all(learnt.values()):
        raise Problem(f"all {len(learnt)} B matrices of {folder} are 0: this model is its base, untrained", AGAIN)
    dead = sum(learnt.values())
    return f"{len(zero)} tensors, every value finite" + (f"; {dead} of {len(learnt)} B matrices are 0" if dead else "")


def same(model: Trained) -> str:
    """Repeat the merge's proof: compare the merged files with base and adapter as peft runs them."""
    ghost = provenance.read_facts(model.adapter)
    try:
        base = contenders.find_base(model.ghost, model.adapter, model.base)
    except GhostError as error:
        if model.base is not None:
            raise
        raise Skipped(str(error)) from error
    read = adapters.read_adapter(model.adapter, base.folder)
    merged_onto = model.ghost.block("merge").get("base_weights", "original")
    sources = Sources(base, read, provenance.precision(ghost), merged_onto)
    with sources.open() as (source, _):
        probes = proof.probes(model.tokenizer, model.ghost.labels)
        parity, _ = proof.compare(model.folder, base.folder, source, read, probes)
    if not parity.holds:
        raise Problem(f"the merged model is not base + adapter: {parity}", f"ghost merge {model.adapter}")
    return str(parity)
