"""Micro-batches without padding: segments laid end to end in one row, each blind to the others."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from training.finetuning.segments import Segment


def pack(segments: Sequence[Segment], budget: int) -> list[list[Segment]]:
    """Micro-batches of at most `budget` tokens each; a segment that is longer has one of its own.

    First-fit decreasing: at most 22% + 1 more of them than the fewest possible (Dósa, ESCAPE 2007).
    """
    batches: list[list[Segment]] = []
    rooms: list[int] = []
    for segment in sorted(segments, key=lambda segment: -len(segment.ids)):
        length = len(segment.ids)
        place = next((place for place, room in enumerate(rooms) if length <= room), None)
        if place is None:
            batches.append([segment])
            rooms.append(budget - length)
        else:
            batches[place].append(segment)
            rooms[place] -= length
    return batches


def flatten(segments: Sequence[Segment], device: Any) -> dict[str, Any]:
    """The keyword arguments of Objective: one row of all segments, on `device`.

    input_ids, position_ids  (1, tokens) int64; positions start at 0 in each segment
    places, labels           (targets,) int64; places count from the row's start
    weights                  (targets,) float32
    lengths                  tokens of each segment, in order: where attention ends
    """
    import torch

    lengths = [len(segment.ids) for segment in segments]
    starts = np.cumsum([0, *lengths[:-1]])
    positions = np.concatenate([np.arange(length) for length in lengths])
    places = np.concatenate([segment.places + start for segment, start in zip(segments, starts, strict=True)])

    def tensor(array: Any) -> torch.Tensor:
        return torch.from_numpy(array).to(device)

    return {
        "input_ids": tensor(np.concatenate([segment.ids for segment in segments]).astype(np.int64))[None],
        "position_ids": tensor(positions.astype(np.int64))[None],
        "places": tensor(places.astype(np.int64)),
        "labels": tensor(np.concatenate([segment.labels for segment in segments]).astype(np.int64)),
        "weights": tensor(np.concatenate([segment.weights for segment in segments])),
        "lengths": lengths,
    }
