"""The model in the folder that `cog push` sends."""

import os
import shlex
import shutil
from pathlib import Path

from replicate_deployment import ghost_json
from replicate_deployment.checks import Context
from training.aside import KEEP, replace_folder
from training.errors import UsageError


def put_weights(source: Path, context: Context) -> None:
    """The merged folder `source` as the context's weights/, by hard links where the disk allows them: Docker follows no
    other links.

    Raises WeightsError when a file is missing or has another size than ghost.json says (hashes are for preflight), and
    UsageError when weights/ holds the only copy of something else.
    """
    ghost = ghost_json.read(source)
    ghost_json.verify(ghost, hashes=False)
    target = context.weights
    names = [ghost_json.NAME, *ghost.block("files")]
    if source.resolve() == target.resolve() or all(_same(source / name, target / name) for name in names):
        return
    refuse_last_copies(source, target, names)
    with replace_folder(target) as part:
        for name in names:
            (part / name).parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(source / name, part / name)
            except OSError:  # another disk, or a file system without them
                shutil.copy2(source / name, part / name)


def refuse_last_copies(source: Path, target: Path, names: list[str]) -> None:
    """Raises UsageError where `target` holds a file that has no other name on its disk and is none of this model's."""
    mark = target / ghost_json.NAME
    same_model = mark.is_file() and mark.read_bytes() == (source / ghost_json.NAME).read_bytes()
    kept = {KEEP, *(names if same_model else ())}
    last = sorted(
        name
        for path in target.rglob("*")
        if path.is_file() and not path.is_symlink() and path.stat().st_nlink == 1
        if (name := path.relative_to(target).as_posix()) not in kept
    )
    if last:
        raise UsageError(
            f"{target} would be replaced, and holds the only copy here of {', '.join(last[:3])}"
            f"{', …' if len(last) > 3 else ''}: move it out of there, or remove it: rm -r {shlex.quote(str(target))}/*"
        )


def _same(one: Path, other: Path) -> bool:
    if not other.is_file():
        return False
    a, b = one.stat(), other.stat()
    return (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino) or (a.st_size, a.st_mtime_ns) == (b.st_size, b.st_mtime_ns)
