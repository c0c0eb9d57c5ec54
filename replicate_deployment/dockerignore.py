"""Which files of a build context Docker leaves out, by its .dockerignore.

The rules are Docker's (https://docs.docker.com/build/concepts/context/#dockerignore-files), which are not git's: a
pattern is anchored at the folder's root, the last one that matches decides, and what matches a folder takes along all
that is in it.
"""

import re
from pathlib import Path, PurePosixPath


class Patterns:
    """The lines of a .dockerignore."""

    def __init__(self, text: str) -> None:
        lines = [line.strip() for line in text.splitlines()]
        self._rules = [
            (line, _regex(line.removeprefix("!").strip()), line.startswith("!"))
            for line in lines
            if line and not line.startswith("#")
        ]

    @classmethod
    def of(cls, folder: Path) -> "Patterns":
        """Those of a folder; none where it has no .dockerignore."""
        path = folder / ".dockerignore"
        return cls(path.read_text(encoding="utf-8") if path.is_file() else "")

    def leaves_out(self, name: str) -> str | None:
        """The line that keeps the file `name` (relative, with slashes) out of the image, or None when it goes in."""
        path = PurePosixPath(name)
        candidates = [path.as_posix(), *(parent.as_posix() for parent in path.parents if parent.name)]
        decided: str | None = None
        for line, regex, brings_back in self._rules:
            if any(map(regex.fullmatch, candidates)):
                decided = None if brings_back else line
        return decided


def _regex(pattern: str) -> re.Pattern[str]:
    """`*` and `?` stay within a name, `**` is any number of folders, `[…]` and `\\` are as in Go's filepath.Match."""
    spelled = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    pieces = re.findall(r"\*\*/|\*\*|\*|\?|\[[^\]]+\]|\\.|.", pattern.strip("/").removeprefix("./"))
    return re.compile("".join(spelled.get(piece) or _literal(piece) for piece in pieces), re.DOTALL)


def _literal(piece: str) -> str:
    if piece.startswith("["):
        return piece
    return re.escape(piece.removeprefix("\\") or piece)
