"""docs/cli.md says what the parsers say."""

from pathlib import Path

from benchmarks.pictures import command_line
from ghost import cli


def test_it_is_not_stale() -> None:
    page = (Path(__file__).parents[1] / "docs" / "cli.md").read_text(encoding="utf-8")
    assert page == command_line.page(), "run: make docs"
    assert all(f"\n## ghost {verb}\n" in page for verb in cli.VERBS)
