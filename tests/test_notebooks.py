"""Every notebook runs from top to bottom, offline, and its committed outputs are what it says today."""

from pathlib import Path

import nbformat
import pytest

from notebooks.refresh import NOTEBOOKS, execute, read

LARGEST = 300_000  # bytes with the outputs: larger ones are slow to open on a forge
STALE = "the committed outputs are not today's; type: python notebooks/refresh.py"


EACH = [NOTEBOOKS[0], *(pytest.param(path, marks=pytest.mark.exhaustive) for path in NOTEBOOKS[1:])]


@pytest.fixture(params=EACH, ids=[path.stem for path in NOTEBOOKS], scope="module")
def notebook(request: pytest.FixtureRequest) -> Path:
    return Path(request.param)


@pytest.fixture(scope="module")
def executed(notebook: Path) -> nbformat.NotebookNode:
    return execute(notebook)


def test_it_runs_without_complaint_and_draws(executed: nbformat.NotebookNode) -> None:
    assert [output for output in outputs(executed) if output.get("name") == "stderr"] == []
    assert len(figures(executed)) >= 3


def test_its_committed_outputs_are_todays(notebook: Path, executed: nbformat.NotebookNode) -> None:
    committed = read(notebook)
    assert said(committed) == said(executed), STALE
    assert len(figures(committed)) == len(figures(executed)), STALE
    assert committed.metadata == executed.metadata, STALE
    assert [cell.metadata for cell in committed.cells] == [cell.metadata for cell in executed.cells], STALE
    assert notebook.stat().st_size < LARGEST


def outputs(document: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [output for cell in document.cells if cell.cell_type == "code" for output in cell.outputs]


def figures(document: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [output for output in outputs(document) if "image/png" in output.get("data", {})]


def said(document: nbformat.NotebookNode) -> list[str]:
    """All text. Of figures only the number is compared: their pixels differ between versions of matplotlib."""
    return [
        output.text if output.output_type == "stream" else output.data["text/plain"]
        for output in outputs(document)
        if "image/png" not in output.get("data", {})
    ]
