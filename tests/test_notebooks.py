"""Every notebook runs from top to bottom, offline, and its committed outputs are what it says today."""

from pathlib import Path

import nbformat
import pytest

from notebooks.refresh import NOTEBOOKS, execute, read

LARGEST = 300_000  # bytes with the outputs: larger ones are slow to open on a forge
STALE = "the committed outputs are not today's; type: python notebooks/refresh.py"


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem, scope="module")
def notebook(request: pytest.FixtureRequest) -> Path:
    return Path(request.param)


@pytest.fixture(scope="module")
def executed(notebook: Path, tmp_path_factory: pytest.TempPathFactory) -> nbformat.NotebookNode:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))  # IPython keeps a history there
        patch.setenv("IPYTHONDIR", str(tmp_path_factory.mktemp("ipython")))
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
