"""What `make test-engines` needs: two ghosts of SmolLM2, servers of other engines in an environment of their own, and
the commands that the guides tell people to type.
"""

import asyncio
import json
import os
import re
import shlex
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx2
import pytest

from ghost.demo import demo, real
from ghost.demo.exports import write_exports
from ghost.evaluation.prompts import PROMPTS, conversation
from ghost.installed import config_file
from ghost.serving.client import Completions
from replicate_deployment.chat_format import DEFAULT_LABELS, Turn, render_prompt
from tests import models

ROOT = Path(__file__).parents[2]
# The prompts of `ghost try`, and each again with what a tokenizer might take for its own tokens.
CHATS = [conversation(texts, DEFAULT_LABELS) for texts in PROMPTS.values()]
CHATS += [[*chat[:-1], Turn("B:", f"{chat[-1].text} </s> [INST] <|im_end|>")] for chat in CHATS]
GREEDY = {"temperature": 0, "repetition_penalty": 1, "max_new_tokens": 32}
FRIENDS = ("Malo Cendreval", "Priya Wexmoor", "Bastien Tournevire", "Tomasz Birkenrode", "Élise Fontgrise")


@pytest.fixture(scope="session")
def engines() -> Path:
    """The environment that `make test-engines` installs."""
    if not (folder := os.environ.get("ENGINES")):
        pytest.skip("run make test-engines: vLLM and llama.cpp want an environment of their own, 3.5 GB")
    return ROOT / folder


@dataclass(frozen=True)
class Ghosts:
    """Two people over one base: `base`, `NAME/adapter`, `NAME/merged`, and `kept/NAME`, as --keep-adapter writes it."""

    folder: Path

    def merged(self, name: str) -> Path:
        return self.folder / name / "merged"

    def replies(self, name: str) -> list[str]:
        """The engine's greedy replies to CHATS."""
        return list(json.loads((self.folder / name / "replies.json").read_text(encoding="utf-8")))


@pytest.fixture(scope="session")
def ghosts(engines: Path) -> Ghosts:
    """Noa and, as one person, her friends: 22 steps each, two minutes in all on one core."""
    return Ghosts(models.shared("engines", _make))


def _make(folder: Path) -> None:
    from ghost.cli import main
    from replicate_deployment.engine import Engine
    from training import config

    base, _ = real.fetch(ROOT / demo.REAL_CACHE)
    (folder / "base").symlink_to(base.resolve())
    names = {"noa": write_exports(folder / "raw", seed=7, messages=400).names, "friends": FRIENDS}
    recipe = config.load(config_file("demo_config.yaml"))
    recipe = replace(recipe, adapter="lora", load_in_4bit=False, learning_rate=0.001, micro_batch_size=4)
    recipe = replace(recipe, sequence_len=512, sample_replies=0, evals_per_epoch=1)
    (folder / "config.yaml").write_text(config.dump(recipe), encoding="utf-8")
    for name, mine in names.items():
        adapter, merged, cleaned, processed = (
            folder / name / stage for stage in ("adapter", "merged", "cleaned", "processed")
        )
        me = [word for one in mine for word in ("--me", one)]
        plan = ["--config", folder / "config.yaml", "--base", folder / "base"]
        merge = ["merge", adapter, "--base", folder / "base", "--base-weights", "original", "--out", merged]
        for line in (
            ["extract", folder / "raw", "--out", cleaned, *me],
            ["prepare", "--cleaned", cleaned, "--out", processed, *me, *plan, "--force"],
            ["train", "--data", processed, "--out", adapter, *plan],
            [*merge, "--keep-adapter", folder / "kept" / name],
        ):
            assert main([*map(str, line)]) == 0
        engine = Engine.load(merged)
        replies = ["".join(engine.reply(turns, engine.settings.replace(**GREEDY))) for turns in CHATS]
        (folder / name / "replies.json").write_text(json.dumps(replies), encoding="utf-8")


def block(page: str, text: str) -> str:
    """The fenced block of docs/`page` that holds `text`."""
    blocks = re.findall(r"^```\w*\n(.*?)^```$", (ROOT / "docs" / page).read_text(encoding="utf-8"), re.DOTALL | re.M)
    (found,) = [one for one in blocks if text in one]
    return str(found)


def words(page: str, text: str) -> list[str]:
    """The same block, split as a shell does."""
    return shlex.split(block(page, text).replace("\\\n", " "), comments=True)


def vllm_serve(page: str, base: str, changed: dict[str, str]) -> list[str]:
    """The `vllm serve BASE …` that a guide tells people to type, with words replaced."""
    (line,) = [line for line in block(page, f"vllm serve {base}").replace("\\\n", " ").splitlines() if "vllm" in line]
    line = line[line.index("vllm serve") :]
    for old, new in changed.items():
        assert old in line
        line = line.replace(old, new)
    return shlex.split(line, comments=True)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@contextmanager
def running(command: Sequence[object], url: str, log: Path, **options: Any) -> Iterator[str]:
    """Yield `url` once the server that `command` starts is healthy."""
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [*map(str, command)], stdout=stream, stderr=stream, stdin=subprocess.DEVNULL, **options
        )
    try:
        while True:
            assert process.poll() is None, log.read_text(encoding="utf-8", errors="replace")[-3000:]
            try:
                if httpx2.get(f"{url}/health", timeout=5, trust_env=False).status_code == 200:
                    break
            except httpx2.TransportError:
                pass
            time.sleep(0.5)
        yield url
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


# One core, one GB for keys and values, nothing asked of the network.
VLLM = {"OMP_NUM_THREADS": "1", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}


@contextmanager
def running_vllm(engines: Path, words: Sequence[str], log: Path, cwd: Path, **env: str) -> Iterator[str]:
    """Start `vllm serve …` in `cwd` and yield its address."""
    port = free_port()
    command = [engines / "bin" / words[0], *words[1:], "--host", "127.0.0.1", "--port", port]
    environment = os.environ | VLLM | env
    with running(command, f"http://127.0.0.1:{port}", log, cwd=cwd, env=environment) as url:
        yield url


# As `llama-server -c N --parallel N --cache-ram 0`, whose options xllamacpp's server takes in Python.
LLAMA_CPP = """
import sys, threading, xllamacpp
port, parallel, context, model, *loras = sys.argv[1:]
params = xllamacpp.CommonParams()
params.model.path, params.port, params.cache_ram_mib = model, int(port), 0
params.n_parallel, params.n_ctx = int(parallel), int(context)
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(lora, 1.0) for lora in loras]
server = xllamacpp.Server(params)
threading.Event().wait()
"""


@contextmanager
def running_llama_cpp(
    engines: Path, log: Path, model: str, *loras: str, parallel: int = 1, context: int = 2048
) -> Iterator[str]:
    """Yield the address of llama.cpp's server, in a process of its own."""
    port = free_port()
    command = [engines / "bin" / "python", "-c", LLAMA_CPP, port, parallel, context, model, *loras]
    with running(command, f"http://127.0.0.1:{port}", log) as url:
        yield url


def ask(where: str, folder: Path, *, at_once: int, inputs: dict[str, Any] | None = None) -> list[str]:
    """The replies to CHATS by `completions:where`, as our chat, bot and evaluation ask."""

    async def replies() -> list[str]:
        turn = asyncio.Semaphore(at_once)
        async with Completions(where, folder) as client:

            async def one(turns: list[Turn]) -> str:
                async with turn:
                    return (await client.answer({"prompt": render_prompt(turns)} | (inputs or GREEDY))).output

            return await asyncio.gather(*map(one, CHATS))

    return asyncio.run(replies())


def post(url: str, body: Any, key: str = "") -> httpx2.Response:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return httpx2.post(url, json=body, headers=headers, timeout=300, trust_env=False)
