"""How a step's segments and a base's weights are divided over processes."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from training.finetuning.segments import Segment


def share(segments: Sequence[Segment], count: int) -> list[list[Segment]]:
    """A part for each of `count` processes, of about as many tokens: the longest segment first, each to whoever has
    least so far.

    The largest part has at most 4/3 of the tokens that it must have (Graham, SIAM J. Appl. Math. 17, 1969).
    """
    parts: list[list[Segment]] = [[] for _ in range(count)]
    loads = [0] * count
    for segment in sorted(segments, key=lambda segment: -len(segment.ids)):
        place = loads.index(min(loads))
        parts[place].append(segment)
        loads[place] += len(segment.ids)
    return parts


def weightless(segments: Sequence[Segment]) -> Segment:
    """The shortest of them, such that nothing is learnt from it: its gradient is zero."""
    shortest = min(segments, key=lambda segment: len(segment.ids))
    return replace(shortest, weights=np.zeros_like(shortest.weights), windows=0)


def shard(model: Any) -> None:
    """FSDP2 for the frozen weights of the decoder's layers. The adapters in them, embeddings and head stay whole.

    It takes bitsandbytes' packed bytes as they are: nothing of them is reduced, so any types may meet in one layer.
    """
    from torch.distributed.fsdp import fully_shard

    decoder = model.get_base_model().model
    whole = {parameter for parameter in model.parameters() if parameter.requires_grad}
    for layer in decoder.layers:
        fully_shard(layer, ignored_params=whole)
    # The decoder around them shards nothing itself; it has the next layer fetched while one computes.
    whole |= {parameter for name, parameter in decoder.named_parameters() if not name.startswith("layers.")}
    fully_shard(decoder, ignored_params=whole)
