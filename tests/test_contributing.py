"""The base and the engine that CONTRIBUTING.md shows work as they stand there."""

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest

from training import config
from training.finetuning import base

PAGE = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")


def shown(pattern: str) -> str:
    match = re.search(pattern, PAGE, re.DOTALL)
    assert match is not None
    return match[1]


def test_a_known_base_is_an_entry_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("config").mkdir()
    Path("config/bases.yaml").write_text("bases:\n" + shown(r"```yaml\n(.*?)```"), encoding="utf-8")
    repo, revision = config.base_named("small-1b")
    assert (repo, revision) == ("someone/Small-1B", None)
    # What the Hub counts of TinyLlama, whose numbers they are.
    assert base.shapes_of(repo, revision).parameters == 1_100_048_384


def test_an_engine_is_three_methods() -> None:
    room: dict[str, Any] = {}
    exec(shown(r'```python\n("""A backend.*?)```'), room)

    async def ask() -> tuple[list[str], str]:
        async with room["Echo"]("http://127.0.0.1:1") as echo:
            pieces = [piece async for piece in echo.stream({"prompt": "B: hey you\nA:"})]
            return pieces, (await echo.answer({"prompt": "B: hey you\nA:"})).output

    assert asyncio.run(ask()) == (["he", "y you"], "hey you")
