"""llama.cpp's own server on exported files of SmolLM2, beside our engine."""

import operator
from pathlib import Path

from ghost.serving.export import export, export_adapter, export_base
from tests.engines.conftest import Ghosts, ask, running_llama_cpp


def same(ours: list[str], theirs: list[str]) -> int:
    return sum(map(operator.eq, ours, theirs))


def test_our_ids_give_the_engine_s_replies(engines: Path, ghosts: Ghosts, tmp_path: Path) -> None:
    file = export(ghosts.merged("noa"), tmp_path / "gguf", "f16")["file"]
    with running_llama_cpp(engines, tmp_path / "log", file) as url:
        theirs = ask(f"{url}/v1", ghosts.merged("noa"), at_once=1)
    # llama.cpp rounds activations to float16, which decides near ties.
    assert same(theirs, ghosts.replies("noa")) >= 34


def test_so_do_a_base_and_an_adapter(engines: Path, ghosts: Ghosts, tmp_path: Path) -> None:
    base, adapter = str(ghosts.folder / "base"), ghosts.folder / "friends" / "adapter"
    files = [
        export_base(base, tmp_path / "base", "f16")["file"],
        export_adapter(adapter, base, tmp_path / "lora")["file"],
    ]
    with running_llama_cpp(engines, tmp_path / "log", *files) as url:
        theirs = ask(f"{url}/v1", adapter, at_once=1)
    assert same(theirs, ghosts.replies("friends")) >= 34
