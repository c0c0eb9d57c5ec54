"""Write aside, then rename: a killed stage leaves the old artifact or the new one, never half of one."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replace_file(final: Path) -> Iterator[Path]:
    """Yield a temporary path beside `final`; what was written there becomes `final` if the block succeeds."""
    final.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{final.name}.", suffix=".part", dir=final.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        os.replace(temporary, final)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def replace_folder(final: Path) -> Iterator[Path]:
    """Yield an empty folder beside `final`; it takes the place of `final` if the block succeeds.

    A folder cannot be renamed over another, so the old one steps aside first. A kill between the two renames
    leaves it under `.NAME.old`; the next call puts it back.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    old = final.parent / f".{final.name}.old"
    if old.exists():
        if final.exists():
            shutil.rmtree(old)
        else:
            os.replace(old, final)
    temporary = Path(tempfile.mkdtemp(prefix=f".{final.name}.", suffix=".part", dir=final.parent))
    try:
        yield temporary
        temporary.chmod(0o755)  # mkdtemp's 0700 would surprise those who share the artifact
        if final.exists():
            os.replace(final, old)
        os.replace(temporary, final)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
