"""The model in the folder that `cog push` sends."""

import os
import shutil
from pathlib import Path

from replicate_deployment import ghost_json
from replicate_deployment.checks import Context
from training.aside import replace_folder


def put_weights(source: Path, context: Context) -> None:
    """The merged folder `source` as the context's weights/, by hard links where the disk allows them: Docker follows no
    other links.

    Raises WeightsError when a file is missing or has another size than ghost.json says; hashes are for preflight.
    """
    ghost = ghost_json.read(source)
    ghost_json.verify(ghost, hashes=False)
    target = context.weights
    names = [ghost_json.NAME, *ghost.block("files")]
    if source.resolve() == target.resolve() or all(_same(source / name, target / name) for name in names):
        return
    with replace_folder(target) as part:
        for name in names:
            (part / name).parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(source / name, part / name)
            except OSError:  # another disk, or a file system without them
                shutil.copy2(source / name, part / name)


def _same(one: Path, other: Path) -> bool:
    if not other.is_file():
        return False
    a, b = one.stat(), other.stat()
    return (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino) or (a.st_size, a.st_mtime_ns) == (b.st_size, b.st_mtime_ns)
