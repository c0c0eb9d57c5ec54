"""Atomic replace: write to a temporary folder, then rename. A killed stage leaves the old artifact or the new one."""

import glob
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ghost.errors import UsageError

KEEP = ".gitkeep"  # keeps an empty folder in a clone; no stage writes or removes it


@contextmanager
def replace_folder(final: Path) -> Iterator[Path]:
    """Yield an empty folder beside `final` that replaces `final` if the block succeeds.

    Its files are readable by their owner only: every artifact, from CSV to merged model, contains private chats.
    A folder cannot be renamed over another, so the old one is renamed first.
    """
    final = final.resolve()
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        mend(final)
        temporary = Path(tempfile.mkdtemp(prefix=f".{final.name}.{os.getpid()}.", suffix=".part", dir=final.parent))
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(final)) from error  # not the temporary folder
    try:
        yield temporary
        put_in_place(temporary, final)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def put_in_place(folder: Path, final: Path) -> None:
    """Rename `folder` to `final` (same parent). The old content of `final` is deleted only after that."""
    final = final.resolve()
    old = _old(final)
    if (final / KEEP).exists():
        (folder / KEEP).touch()
    for path in folder.rglob("*"):
        path.chmod(0o700 if path.is_dir() else 0o600)
    if final.exists():
        os.replace(final, old)
    os.replace(folder, final)
    shutil.rmtree(old, ignore_errors=True)


def mend(final: Path) -> None:
    """Recover from a killed `replace_folder`: between its two renames the old folder is named `.NAME.old`."""
    final = final.resolve()
    old = _old(final)
    if old.exists():
        if final.exists():
            shutil.rmtree(old)
        else:
            os.replace(old, final)
    for left in final.parent.glob(f".{glob.escape(final.name)}.*.part"):
        writer = re.search(r"\.(\d+)\.[^.]*\.part$", left.name)
        if writer and not _runs(int(writer[1])):
            shutil.rmtree(left)


def discard(folder: Path) -> None:
    """Remove `folder` by renaming it first: if killed halfway, `mend` removes the rest."""
    folder = folder.resolve()
    if folder.exists():
        gone = tempfile.mkdtemp(prefix=f".{folder.name}.{os.getpid()}.", suffix=".part", dir=folder.parent)
        os.replace(folder, Path(gone, folder.name))
        shutil.rmtree(gone, ignore_errors=True)


def refuse_foreign_files(out: Path, own: Iterable[str]) -> None:
    """Raise UsageError if `out` holds files other than `own` (relative paths): the whole folder will be replaced."""
    if not out.exists():
        return
    if not out.is_dir():
        raise UsageError(f"{out} is a file; --out names a folder")
    ours = {Path(name) for name in (*own, KEEP)}
    ours |= {parent for name in ours for parent in name.parents}
    foreign = sorted(name.as_posix() for path in out.rglob("*") if (name := path.relative_to(out)) not in ours)
    if foreign:
        names = ", ".join(foreign[:3]) + (", …" if len(foreign) > 3 else "")
        raise UsageError(f"{out} is replaced as a whole and holds other files: {names}. Move them, or change --out")


def _old(final: Path) -> Path:
    return final.parent / f".{final.name}.old"


def _runs(process: int) -> bool:
    if os.name == "nt":  # os.kill would interrupt the process there instead of testing for it
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it runs under another user
    return True
