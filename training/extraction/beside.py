"""What lies beside a chat's file in its export: files found by a pattern, and JSON that says who is who."""

import fnmatch
import glob
import json
import posixpath
import re
from typing import Any

from training.errors import ExportError
from training.extraction.source import DAMAGE, Source, archive


def beside(source: Source, pattern: str) -> list[Source]:
    """The files that match `pattern` from the source's folder (`../../Users/*/user_info.json`), in the same zip."""
    if not source.member:
        folder = source.path.absolute().parent
        while pattern.startswith("../"):
            folder, pattern = folder.parent, pattern.removeprefix("../")
        return [Source(path) for path in sorted(folder.glob(pattern)) if path.is_file()]
    wanted = posixpath.normpath(posixpath.join(glob.escape(posixpath.dirname(source.member)), pattern))
    depth, matches = wanted.count("/"), re.compile(fnmatch.translate(wanted)).match
    try:
        members = archive(source.path).namelist()
    except (*DAMAGE, OSError, ValueError):
        return []
    return [Source(source.path, name) for name in sorted(members) if name.count("/") == depth and matches(name)]


def companion(source: Source | None) -> Any:
    """The JSON of a file that lies beside a chat; None where there is none or it cannot be read."""
    if source is None:
        return None
    try:
        with source.open() as stream:
            return json.loads(stream.read())
    except (ExportError, ValueError, RecursionError):
        return None


def objects(value: Any) -> list[dict[str, Any]]:
    """The objects of a list that should hold nothing else."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
