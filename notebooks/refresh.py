"""Run every notebook from top to bottom and keep its outputs: python notebooks/refresh.py

The same code and packages give the same file: no times of day, no version of Python, no path of this machine.
"""

import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted(Path(__file__).parent.glob("*.ipynb"))


def execute(notebook: Path) -> nbformat.NotebookNode:
    """The notebook with today's outputs, run in an empty folder that is then deleted.

    Raises nbclient's CellExecutionError where a cell fails.
    """
    document = read(notebook)
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    with TemporaryDirectory() as empty:
        client = NotebookClient(
            document,
            timeout=300,
            kernel_name="python3",
            record_timing=False,
            coalesce_streams=True,
            resources={"metadata": {"path": empty}},
        )
        client.execute(
            env={**os.environ, "PYTHONPATH": path, "MPLBACKEND": "module://matplotlib_inline.backend_inline"}
        )
    document.metadata.language_info = {"name": "python"}
    return document


def read(notebook: Path) -> nbformat.NotebookNode:
    document: nbformat.NotebookNode = nbformat.read(notebook, as_version=4)  # type: ignore[no-untyped-call]
    return document


def main() -> None:
    for notebook in NOTEBOOKS:
        document = execute(notebook)
        partial = notebook.with_suffix(".partial")
        nbformat.write(document, partial)  # type: ignore[no-untyped-call]
        partial.replace(notebook)
        print(f"{notebook.relative_to(ROOT)}: {notebook.stat().st_size:,} bytes", file=sys.stderr)


if __name__ == "__main__":
    main()
