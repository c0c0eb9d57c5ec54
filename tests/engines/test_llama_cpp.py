"""llama.cpp's own server, in its own process, on exported files of SmolLM2, beside our engine."""

import operator
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ghost.serving.export import export, export_adapter, export_base
from tests.engines.conftest import CHATS, Ghosts, ask, free_port, running

# As `llama-server -c 2048 --parallel 1`, whose options xllamacpp's server takes in Python.
SERVER = """
import sys, threading, xllamacpp
port, model, *loras = sys.argv[1:]
params = xllamacpp.CommonParams()
params.model.path, params.port, params.n_ctx, params.n_parallel = model, int(port), 2048, 1
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(lora, 1.0) for lora in loras]
server = xllamacpp.Server(params)
threading.Event().wait()
"""


@pytest.fixture(scope="module")
def serve(engines: Path, tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    @contextmanager
    def start(*files: str) -> Iterator[str]:
        port = free_port()
        log = tmp_path_factory.mktemp("llama") / "server.log"
        command = [engines / "bin" / "python", "-c", SERVER, port, *files]
        with running(command, f"http://127.0.0.1:{port}", log) as url:
            yield url

    return start


def test_our_ids_give_the_engine_s_replies(serve, ghosts: Ghosts, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    file = export(ghosts.merged("noa"), tmp_path / "gguf", "f16")["file"]
    with serve(file) as url:
        theirs = ask(f"{url}/v1", ghosts.merged("noa"), at_once=1)
    print(sum(map(operator.eq, theirs, ghosts.replies("noa"))), "of", len(CHATS))
    # llama.cpp rounds activations to float16, which decides near ties.
    assert sum(map(operator.eq, theirs, ghosts.replies("noa"))) >= 34


def test_so_do_a_base_and_an_adapter(serve, ghosts: Ghosts, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    base = str(ghosts.folder / "base")
    files = [export_base(base, tmp_path / "base", "f16")["file"]]
    files.append(export_adapter(ghosts.folder / "friends" / "adapter", base, tmp_path / "lora")["file"])
    with serve(*files) as url:
        theirs = ask(f"{url}/v1", ghosts.folder / "friends" / "adapter", at_once=1)
    print(sum(map(operator.eq, theirs, ghosts.replies("friends"))), "of", len(CHATS))
    assert sum(map(operator.eq, theirs, ghosts.replies("friends"))) >= 34
