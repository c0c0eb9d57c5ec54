"""The header of a safetensors file, without torch or safetensors: what the file holds, and that it is whole.

Eight bytes of little-endian length, that much JSON, then the tensors without gaps
(https://github.com/huggingface/safetensors#format).
"""

import json
from pathlib import Path
from typing import NamedTuple

from .errors import WeightsError


class Entry(NamedTuple):
    dtype: str
    """As the format spells it: F32, F16, BF16, ..."""
    size: int
    """In bytes."""
    shape: tuple[int, ...]
    start: int
    """Of its first byte in the file."""


def read_header(path: Path) -> dict[str, Entry]:
    """The tensors of the file by name. Raises WeightsError when it is no safetensors file, or one cut short."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        start = stream.read(8)
        length = int.from_bytes(start, "little")
        if 8 + length > size:
            hint = "a Git LFS pointer: run git lfs pull" if start.startswith(b"version ") else "copy or pull it again"
            raise WeightsError(f"{path}: {size:,} bytes, too short for its safetensors header; {hint}")
        try:
            header = json.loads(stream.read(length))
            header.pop("__metadata__", None)
            spans = {name: tuple(map(int, facts["data_offsets"])) for name, facts in header.items()}
            entries = {
                name: Entry(facts["dtype"], end - begin, tuple(map(int, facts["shape"])), 8 + length + begin)
                for (name, facts), (begin, end) in zip(header.items(), spans.values(), strict=True)
            }
        except (ValueError, KeyError, AttributeError, TypeError) as error:
            raise WeightsError(f"{path}: not a safetensors file ({type(error).__name__} in its header)") from error
    promised = 8 + length + max((end for _, end in spans.values()), default=0)
    if size != promised:
        raise WeightsError(f"{path}: {size:,} bytes, its header promises {promised:,}; copy or pull it again")
    return entries
