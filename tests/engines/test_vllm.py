"""vLLM on a CPU, started and asked as docs/serving.md and docs/scaling.md say, beside our engine."""

import asyncio
import json
import operator
import os
import re
import shutil
import subprocess
import textwrap
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import httpx2
import pytest

from ghost.serving.client import Completions
from ghost.serving.client.completions import KEY, read_format
from replicate_deployment.chat_format import render_prompt
from tests.engines.conftest import CHATS, GREEDY, Ghosts, ask, block, post, running_vllm, vllm_serve, words

SECRET = "SECRET"  # as the guide writes it


def same(ours: list[str], theirs: list[str]) -> int:
    return sum(map(operator.eq, ours, theirs))


def body(page: str, text: str) -> dict[str, Any]:
    """The JSON that a guide's curl sends."""
    found = words(page, text)
    return dict(json.loads(found[len(found) - found[::-1].index("-d")]))


# docs/serving.md: a merged model.


@pytest.fixture(scope="module")
def merged(engines: Path, ghosts: Ghosts, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("merged")
    (folder / "models").mkdir()
    (folder / "models" / "merged").symlink_to(ghosts.merged("noa"))
    serve = vllm_serve("serving.md", "models/merged", {"--port 8000": ""})
    # The engine computes in float32 on a CPU; the file is FP16.
    with running_vllm(engines, [*serve, "--dtype", "float32"], folder / "vllm.log", folder) as url:
        yield url


@pytest.mark.parametrize("at_once", [1, 8, 36])
def test_our_ids_give_the_engine_s_replies(merged: str, ghosts: Ghosts, at_once: int) -> None:
    theirs = ask(f"{merged}/v1#models/merged", ghosts.merged("noa"), at_once=at_once)
    assert same(theirs, ghosts.replies("noa")) == len(CHATS)


def test_a_stream_s_pieces_are_the_reply(merged: str, ghosts: Ghosts) -> None:
    async def outputs() -> list[str]:
        async with Completions(f"{merged}/v1#models/merged", ghosts.merged("noa")) as client:
            states = client.states({"prompt": render_prompt(CHATS[0])} | GREEDY, seconds=60)
            return [state.output async for state in states]

    *pieces, whole = asyncio.run(outputs())
    assert whole == ghosts.replies("noa")[0]
    assert len({*pieces}) > 2
    assert all(whole.startswith(piece) for piece in pieces)


def test_the_guide_s_request_is_answered_by_the_chat_template(merged: str, ghosts: Ghosts) -> None:
    asked = body("serving.md", "vllm serve models/merged")
    answer = post(f"{merged}/v1/chat/completions", asked | {"temperature": 0, "repetition_penalty": 1.0}).json()
    assert answer["choices"][0]["message"]["content"] == f" {ghosts.replies('noa')[0]}"
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["usage"]["prompt_tokens"] == len(read_format(ghosts.merged("noa")).ids(CHATS[0]))


def test_without_stops_it_goes_on_in_the_other_s_name(merged: str) -> None:
    asked = body("serving.md", "vllm serve models/merged") | {"temperature": 0, "repetition_penalty": 1.0}
    del asked["stop"]
    assert "\nB:" in post(f"{merged}/v1/chat/completions", asked).json()["choices"][0]["message"]["content"]


def test_a_reply_that_is_sent_back_costs_no_second_space(merged: str) -> None:
    def tokens(reply: str) -> int:
        turns = [("user", "hey"), ("assistant", reply), ("user", "and you?")]
        messages = [{"role": role, "content": text} for role, text in turns]
        answer = post(f"{merged}/v1/chat/completions", {"messages": messages, "max_tokens": 1}).json()
        return int(answer["usage"]["prompt_tokens"])

    assert tokens(" fine, thanks") == tokens("fine, thanks") < tokens("  fine, thanks")


def test_a_system_message_is_refused(merged: str) -> None:
    messages = [{"role": "system", "content": "be nice"}, {"role": "user", "content": "hey"}]
    response = post(f"{merged}/v1/chat/completions", {"messages": messages})
    assert response.status_code == 400
    assert "only the roles user and assistant exist, not system" in response.text


def metric(url: str, name: str) -> float:
    found = re.findall(
        rf"^vllm:{name}\{{.*\}} (\S+)$", httpx2.get(f"{url}/metrics", trust_env=False).text, re.MULTILINE
    )
    return sum(map(float, found))


@pytest.mark.parametrize("leaves", [True, False])
def test_whoever_leaves_or_has_the_turn_stops_the_work_there(merged: str, ghosts: Ghosts, leaves: bool) -> None:
    most = 900
    prompt = read_format(ghosts.merged("noa")).ids(CHATS[0])
    alone = {"model": "models/merged", "prompt": prompt, "max_tokens": 300, "temperature": 0, "repetition_penalty": 1.0}
    written = post(f"{merged}/v1/completions", alone).json()["usage"]["completion_tokens"]
    assert written == 300, "it ends by itself, so nothing would be shown here"

    async def begin() -> None:
        async with Completions(f"{merged}/v1#models/merged", ghosts.merged("noa")) as client:
            inputs = GREEDY | {"prompt": render_prompt(CHATS[0]), "max_new_tokens": most}
            async with aclosing(client.states(inputs, seconds=60)) as states:
                async for state in states:
                    if leaves and state.output:
                        return

    before = metric(merged, "generation_tokens_total")
    asyncio.run(begin())
    while metric(merged, "num_requests_running"):
        pass
    assert 0 < metric(merged, "generation_tokens_total") - before < most / 2


# docs/scaling.md: many adapters over one base.


@pytest.fixture(scope="module")
def many(engines: Path, ghosts: Ghosts, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("many")
    shelf = shutil.copytree(ghosts.folder / "kept", folder / "ghosts")
    path = shutil.copytree(shelf / "noa", shelf / "foreign") / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": "another/base"}))
    base = json.loads((shelf / "noa" / "adapter_config.json").read_text())["base_model_name_or_path"]
    (folder / base).symlink_to((ghosts.folder / "base").resolve())
    changed = {"mistralai/Mistral-7B-v0.3": base, "--revision REVISION": "", "float16": "float32"}
    serve = vllm_serve("scaling.md", "mistralai", changed | {"/srv/ghosts": str(shelf)})
    named = ["--lora-modules", f"fixed={shelf / 'noa'}"]
    exported = dict(
        word.split("=", 1) for word in words("scaling.md", "vllm serve mistralai") if re.match("VLLM_[A-Z_]+=", word)
    )
    env = {name: value.replace("/srv/ghosts", str(shelf)) for name, value in exported.items()}
    with running_vllm(engines, [*serve, *named], folder / "vllm.log", folder, **env) as url:
        yield url


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, SECRET)


@pytest.mark.usefixtures("key")
def test_two_ghosts_in_one_batch_reply_as_each_does_merged(many: str, ghosts: Ghosts) -> None:
    """But for near ties: a merge rounds W + s·B·A to FP16, and here only W is."""

    async def both() -> list[list[str]]:
        shelf = ghosts.folder
        async with (
            Completions(f"{many}/v1#noa", shelf / "noa" / "adapter") as noa,
            Completions(f"{many}/v1#friends", shelf / "friends" / "adapter") as friends,
        ):
            asked = [(who, {"prompt": render_prompt(turns)} | GREEDY) for turns in CHATS for who in (noa, friends)]
            found = await asyncio.gather(*(who.answer(inputs) for who, inputs in asked))
        replies = [reply.output for reply in found]
        return [replies[::2], replies[1::2]]

    noa, friends = asyncio.run(both())
    assert same(noa, ghosts.replies("noa")) >= 34
    assert same(friends, ghosts.replies("friends")) >= 34
    assert same(noa, friends) < len(CHATS) / 2
    assert same(ask(f"{many}/v1#fixed", ghosts.folder / "noa" / "adapter", at_once=1), noa) >= 34


def test_the_guide_s_request_names_a_ghost(many: str, ghosts: Ghosts) -> None:
    asked = body("scaling.md", "localhost:8000/v1/chat/completions")
    assert asked["stop"] == read_format(ghosts.merged("noa")).ghost.stop_sequences
    said = {}
    for name in ("noa", "friends"):
        answer = post(f"{many}/v1/chat/completions", asked | {"model": name, "temperature": 0}, SECRET).json()
        said[name] = answer["choices"][0]["message"]["content"]
    assert said == {name: f" {ghosts.replies(name)[0]}" for name in said}


@pytest.mark.parametrize("name", ["nobody", "foreign"])
def test_a_ghost_of_another_base_is_as_unknown_as_nobody(many: str, name: str) -> None:
    asked = body("scaling.md", "localhost:8000/v1/chat/completions") | {"model": name}
    assert post(f"{many}/v1/chat/completions", asked, SECRET).status_code == 404


def test_without_the_key_nobody_is_answered(many: str) -> None:
    asked = body("scaling.md", "localhost:8000/v1/chat/completions")
    assert post(f"{many}/v1/chat/completions", asked).status_code == 401


def test_kubernetes_is_told_the_same_flags() -> None:
    """By what was run above; the key and the address come by other ways there."""
    import yaml

    deployment = yaml.safe_load(block("scaling.md", "kind: Deployment"))
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    written = " ".join([*container["command"], *container["args"]]).replace("=", " ")
    shell = " ".join(vllm_serve("scaling.md", "mistralai", {"--api-key SECRET": ""}))
    assert sorted(written.split()) == sorted(shell.removesuffix(" --gpu-memory-utilization 0.9").split())


def test_ray_serve_accepts_its_configuration(engines: Path, ghosts: Ghosts, tmp_path: Path) -> None:
    """By the checks with which its application begins; and vLLM's classes take what they are handed."""
    (tmp_path / "ghosts").symlink_to(ghosts.folder / "kept")
    begin = "serve.run(build_openai_app("
    snippet = block("scaling.md", "from ray import serve").replace("BUCKET", "bucket")
    program, call = snippet.replace("mistralai/Mistral-7B-v0.3", str((ghosts.folder / "base").resolve())).split(begin)
    program += f"arguments = {call.rpartition('), blocking')[0]}\n"
    program += textwrap.dedent(
        """
        from ray.serve.llm import LLMServingArgs
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.entrypoints.launchers.cli_args import FrontendArgs
        engine = LLMServingArgs.model_validate(arguments).llm_configs[0].get_engine_config()
        AsyncEngineArgs(**engine.get_initialization_kwargs())
        FrontendArgs(**engine.frontend_kwargs)
        print(sorted(engine.frontend_kwargs))
        """
    )
    command = [engines / "bin" / "python", "-c", program]
    env = os.environ | {"HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1] == "['chat_template', 'chat_template_content_format']"
