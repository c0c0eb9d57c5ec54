"""Small exports that the tests write, and the shortest way to read one."""

import json
from pathlib import Path
from typing import Any

from training.extraction.platform import Record
from training.extraction.platforms import PLATFORMS, recognise
from training.extraction.source import Source


def save(folder: Path, content: str | bytes | dict[str, Any] | list[Any], name: str = "chat.txt") -> Path:
    """Write `content` to `folder/name` byte for byte; a dict or a list is written as JSON."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, dict | list):
        content = json.dumps(content)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def records(path: Path, date_order: str | None = None) -> list[Record]:
    """Every record of a file, on the platform that its content shows."""
    source = Source(path)
    recognised = recognise(source)
    assert recognised is not None, f"{path} was not recognised"
    return list(recognised.platform.read(source, date_order).records)


def whatsapp(path: Path, date_order: str | None = None) -> list[Record]:
    return list(PLATFORMS["whatsapp"].read(Source(path), date_order).records)
