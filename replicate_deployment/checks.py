"""What a check is, and the build context that most of them look at.

A check returns what it found, or raises: Problem (what was found, what to type) or one of our own errors. They are in
cog_checks.py (cog.yaml, requirements), image_checks.py (what would be copied) and weights_checks.py (the model).
"""

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml

from .dockerignore import Patterns
from .errors import GhostError

REQUIREMENTS = "requirements.txt"
Subject = TypeVar("Subject")


class Problem(Exception):
    """A check failed: what was found, and what to type."""

    def __init__(self, found: str, todo: str) -> None:
        super().__init__(found)
        self.todo = todo


@dataclass(frozen=True)
class Result:
    check: str
    status: Literal["ok", "failed", "skipped"]
    found: str
    todo: str = ""
    """What to type when it failed."""

    def __str__(self) -> str:
        line = f"{self.status:8}{self.check:28}{self.found}"
        return f"{line}\n{'':36}→ {self.todo}" if self.todo else line


def result(name: str, look: Callable[[Subject], str], subject: Subject) -> Result:
    try:
        return Result(name, "ok", look(subject))
    except Problem as problem:
        return Result(name, "failed", str(problem), problem.todo)
    except GhostError as error:
        return Result(name, "failed", str(error))
    except yaml.MarkedYAMLError as error:  # whose own text repeats the line
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        return Result(name, "failed", f"cog.yaml is not YAML{line}: {error.problem}", "correct it in cog.yaml")
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        # A file that is missing or not what its name says.
        return Result(name, "failed", f"{type(error).__name__}: {' '.join(str(error).split())}")


@dataclass(frozen=True)
class Context:
    """The build context: a folder laid out as `replicate_deployment/`."""

    folder: Path

    @property
    def weights(self) -> Path:
        return self.folder / "weights"

    @cached_property
    def cog(self) -> dict[str, Any]:
        document = yaml.safe_load((self.folder / "cog.yaml").read_text(encoding="utf-8"))
        if not isinstance(document, dict) or not isinstance(document.get("build"), dict):
            raise Problem("cog.yaml: no `build:` block", f"git checkout {self.folder / 'cog.yaml'}")
        return document

    @cached_property
    def pins(self) -> dict[str, str]:
        """Requirement → exact version, or "" where it is not pinned so."""
        path = self.folder / str(self.cog["build"].get("python_requirements", REQUIREMENTS))
        lines = path.read_text(encoding="utf-8").splitlines()
        wanted = [line.partition("#")[0].strip() for line in lines]
        exact = {line: re.fullmatch(r"([A-Za-z0-9._-]+)==([0-9][0-9A-Za-z.+]*)", line) for line in wanted if line}
        return {pin[1] if pin else line: pin[2] if pin else "" for line, pin in exact.items()}

    @cached_property
    def dockerignore(self) -> Patterns:
        return Patterns.of(self.folder)

    def files(self) -> Iterator[Path]:
        """Every file of the folder, in order, but for what Python, Cog and torch's compiler make anew.

        Links are not followed.
        """
        for root, folders, names in os.walk(self.folder):
            folders[:] = sorted(name for name in folders if name not in {"__pycache__", ".cog", ".weights.inductor"})
            yield from (Path(root) / name for name in sorted(names))

    def size(self) -> int:
        """Bytes that go into the image from here."""
        names = {path: path.relative_to(self.folder).as_posix() for path in self.files()}
        return sum(path.stat().st_size for path, name in names.items() if not self.dockerignore.leaves_out(name))
