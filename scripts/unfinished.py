"""A folder that grows file by file and outlives its writer: whoever comes next keeps what is finished."""

import json
import os
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from replicate_deployment import ghost_json
from replicate_deployment.errors import GhostError
from training.aside import mend, put_in_place
from training.errors import MergeError
from training.signals import Stopped

PROGRESS = "progress.json"


class Unfinished:
    """`folder`, and the files in it that are finished, with their SHA-256."""

    def __init__(self, folder: Path, plan: dict[str, Any]) -> None:
        self.folder = folder
        self._plan = plan
        self.finished: dict[str, str] = {}
        self._lock = threading.Lock()

    def keep(self, names: set[str]) -> None:
        """Of what an earlier process left: the `names` that it finished by the same plan, and that hash as recorded."""
        try:
            record = json.loads((self.folder / PROGRESS).read_text(encoding="utf-8"))
            found = dict(record["finished"]) if record["plan"] == self._plan else {}
        except (OSError, ValueError, KeyError, TypeError):
            found = {}
        for path in [*self.folder.iterdir()]:
            if path.name not in names & found.keys() or not path.is_file():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        left = sorted(self.folder.iterdir())
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for path, sha256 in zip(left, pool.map(ghost_json.sha256, left), strict=True):
                if sha256 == found[path.name]:
                    self.finished[path.name] = sha256
                else:
                    path.unlink()
        self._record()

    def finish(self, part: Path, name: str, sha256: str) -> None:
        """The whole file `part` becomes `name`. Any thread may say so."""
        os.replace(part, self.folder / name)
        with self._lock:
            self.finished[name] = sha256
            self._record()

    def seal(self) -> dict[str, str]:
        """The SHA-256 of what is finished; from here on it is not kept any more, whatever happens."""
        (self.folder / PROGRESS).unlink()
        sealed, self.finished = self.finished, {}
        return sealed

    def _record(self) -> None:
        part = self.folder / (PROGRESS + ".part")
        part.write_text(json.dumps({"plan": self._plan, "finished": self.finished}, indent=2), encoding="utf-8")
        os.replace(part, self.folder / PROGRESS)


@contextmanager
def unfinished_folder(final: Path, plan: dict[str, Any]) -> Iterator[Unfinished]:
    """Yield the folder that takes the place of `final` if the block succeeds, with what is there of it already.

    `plan` is all that decides the contents: what was made by another one is not kept. A GhostError in the block means
    that the folder is not wanted; after anything else, a stop or a full disk among them, what is finished stays for
    the next call. Raises MergeError when another process writes the same folder.
    """
    final = final.resolve()
    final.parent.mkdir(parents=True, exist_ok=True)
    mend(final)
    folder = final.parent / f".{final.name}.unfinished"
    folder.mkdir(mode=0o700, exist_ok=True)
    with _alone(folder):
        unfinished = Unfinished(folder, plan)
        try:
            yield unfinished
            put_in_place(folder, final)
        except GhostError:
            shutil.rmtree(folder)
            raise
        except Stopped as stop:
            raise Stopped(stop.number, f"stopped; {_left(unfinished)}") from stop
        except OSError as error:
            what = f"{error.filename or folder}: {error.strerror or error}"
            raise MergeError(f"{what}; {_left(unfinished)}") from error


def _left(unfinished: Unfinished) -> str:
    if not unfinished.finished:
        shutil.rmtree(unfinished.folder)
        return "nothing was finished, nothing is left"
    count = len(unfinished.finished)
    return f"{count} finished shards are kept in {unfinished.folder}, and the same command goes on from there"


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """A lock on the folder itself, which ends with the process. Windows has none, and no such lock."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not folder.exists() or not os.path.samestat(os.fstat(handle), folder.stat()):
            raise BlockingIOError  # whoever held it has just put it in place
        yield
    except BlockingIOError as error:
        raise MergeError(f"{folder}: another merge writes there; wait for it, or change --out") from error
    finally:
        os.close(handle)
