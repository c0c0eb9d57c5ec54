"""Every folder of tests/hostile_folders.py, given to the programs that read such folders."""

import os
import re
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ghost import console
from ghost.cli import main
from ghost.serving import preflight
from ghost.serving.gguf_file import check_file
from replicate_deployment import ghost_json
from replicate_deployment.errors import GhostError
from replicate_deployment.model_folder import TOKENIZER_FILES
from replicate_deployment.tokenization import load_tokenizer
from scripts import sanity_check
from tests.ghost.hub.conftest import REPO, hub, logged_in  # noqa: F401
from tests.ghost.hub.fake_hub import FakeHub
from tests.ghost.hub.fake_repos import Repo
from tests.hostile_folders import CODE, FOLDERS, Hostile, change, make, page
from tests.training.merging.conftest import adapter, make_adapter, make_base, merged  # noqa: F401
from training.finetuning.base import load_base, resolve_base

ROOT = Path(__file__).parents[1]
SECONDS = 300  # a guard against a program that waits for ever; not a measure
# What no program may do with such a folder, by the name of Python's audit event.
FORBIDDEN = ("socket.connect", "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "pickle.find_class")

_watched: list[str] | None = None


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if _watched is None:
        return
    if event in FORBIDDEN or (event == "import" and arguments[0] == "evil"):
        _watched.append(f"{event} {arguments[0]}")
    if event == "open" and isinstance(arguments[0], (str, bytes, os.PathLike)):
        real = os.path.realpath(os.fsdecode(arguments[0]))
        if "/outside/" in real or real in ("/etc/passwd", "/dev/zero"):
            _watched.append(f"open {real}")


sys.addaudithook(_watch)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two prompts, and no lines about what takes long on a slow machine."""
    prompts = {name: sanity_check.PROMPTS[name] for name in ("short", "forged turn")}
    monkeypatch.setattr(sanity_check, "PROMPTS", prompts)
    monkeypatch.setattr(console, "LINE_EVERY", float("inf"))


@pytest.fixture
def watched() -> Iterator[list[str]]:
    """What the code within the test does that it must not."""
    global _watched

    def stop(number: int, frame: object) -> None:
        raise AssertionError("it does not end")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    _watched = []
    yield _watched
    _watched = None
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def bare_adapter(adapter: Path, tmp_path: Path) -> Path:  # noqa: F811
    """An adapter made elsewhere, so that nothing says which base it needs."""
    folder = shutil.copytree(adapter, tmp_path / "bare")
    for name in ("ghost.json", *TOKENIZER_FILES):
        (folder / name).unlink(missing_ok=True)
    return folder


def in_training(folder: Path) -> int:
    try:
        base = resolve_base(str(folder), None)
        load_tokenizer(base.folder)
        load_base(base, nf4=False, bf16=False)
    except GhostError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def in_serving(folder: Path) -> int:
    from replicate_deployment.engine import Engine

    try:
        Engine.load(folder, device="cpu")
    except GhostError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


def of_kind(kind: str) -> list[Hostile]:
    return [one for one in FOLDERS if one.kind == kind]


def named(one: Hostile) -> str:
    return one.what


def refused(run: Callable[[], int], hostile: Hostile, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    code = run()
    said = capsys.readouterr()
    assert code == 1, (said.out, said.err)
    assert re.search(hostile.says, said.err or said.out), (said.out, said.err)
    assert said.err.count("\n") == (1 if said.err else 0)
    assert max(map(len, [*said.out.splitlines(), said.err])) < 2_500
    assert "Traceback" not in said.out + said.err
    assert "\x1b" not in said.out + said.err


@pytest.mark.parametrize("hostile", of_kind("base"), ids=named)
def test_a_base(
    hostile: Hostile,
    tiny_base: Path,
    bare_adapter: Path,
    tmp_path: Path,
    watched: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, out = make(hostile, tiny_base, tmp_path / "base"), str(tmp_path / "out")
    watched.clear()
    refused(lambda: in_training(folder), hostile, capsys)
    refused(lambda: main(["export", "--base", str(folder), "--gguf", "f16", "--out", out]), hostile, capsys)
    refused(lambda: main(["merge", str(bare_adapter), "--base", str(folder), "--out", out]), hostile, capsys)
    assert watched == []
    assert not (folder / "ran").exists()
    assert not Path(out).exists()


@pytest.mark.parametrize("hostile", of_kind("adapter"), ids=named)
def test_an_adapter(
    hostile: Hostile,
    adapter: Path,  # noqa: F811
    tiny_base: Path,
    tmp_path: Path,
    watched: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, out, base = make(hostile, adapter, tmp_path / "adapter"), str(tmp_path / "out"), str(tiny_base)
    watched.clear()
    refused(lambda: main(["merge", str(folder), "--base", base, "--out", out]), hostile, capsys)
    refused(lambda: main(["export", str(folder), "--gguf-adapter", "--base", base, "--out", out]), hostile, capsys)
    assert watched == []
    assert not Path(out).exists()


@pytest.mark.parametrize("hostile", of_kind("merged"), ids=named)
def test_a_merged_model(
    hostile: Hostile,
    merged: Path,  # noqa: F811
    tmp_path: Path,
    watched: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, out = make(hostile, merged, tmp_path / "merged"), str(tmp_path / "out")
    watched.clear()
    refused(lambda: in_serving(folder), hostile, capsys)
    refused(lambda: main(["check", str(folder)]), hostile, capsys)
    refused(lambda: main(["export", str(folder), "--gguf", "f16", "--out", out]), hostile, capsys)
    assert watched == []
    assert not (folder / "ran").exists()
    assert not Path(out).exists()


@pytest.mark.parametrize("hostile", of_kind("merged"), ids=named)
def test_preflight(
    hostile: Hostile,
    merged: Path,  # noqa: F811
    tmp_path: Path,
    watched: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    context = shutil.copytree(preflight.PACKAGE, tmp_path / "context", ignore=shutil.ignore_patterns("weights"))
    folder = make(hostile, merged, context / "weights")
    monkeypatch.setattr(preflight, "locate", lambda: context)
    monkeypatch.setattr(preflight, "CHECKS", {})  # of the context itself, in which "outside" now lies
    watched.clear()
    refused(lambda: main(["preflight"]), hostile, capsys)
    assert watched == []
    assert not (folder / "ran").exists()


@pytest.mark.parametrize("hostile", of_kind("merged"), ids=named)
def test_pull(
    hostile: Hostile,
    merged: Path,  # noqa: F811
    hub: FakeHub,  # noqa: F811
    logged_in: None,  # noqa: F811
    tmp_path: Path,
    watched: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder, out = make(hostile, merged, tmp_path / "merged"), tmp_path / "out"
    files = [path for path in folder.rglob("*") if path.is_file() and path.stat().st_size < 1e8]
    hub.repos[REPO] = Repo(private=True)
    hub.repos[REPO].commit({path.relative_to(folder).as_posix(): path.read_bytes() for path in files})
    watched.clear()
    code = main(["pull", REPO, "--out", str(out)])
    said = "".join(capsys.readouterr())
    assert [one for one in watched if not one.startswith("socket.connect")] == []
    assert "Traceback" not in said
    if code:
        assert not out.exists()
        return
    listed = {ghost_json.NAME, *ghost_json.read(out).block("files")}
    assert {path.relative_to(out).as_posix() for path in out.rglob("*")} == listed
    if hostile.listed:  # what the hashes vouch for is refused by whoever loads it
        refused(lambda: in_serving(out), hostile, capsys)


@pytest.mark.parametrize(
    "hostile",
    [pytest.param(one, marks=pytest.mark.exhaustive if one.listed else ()) for one in of_kind("merged")],
    ids=named,
)
def test_serve(
    hostile: Hostile,
    merged: Path,  # noqa: F811
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = make(hostile, merged, tmp_path / "merged")
    refused(lambda: main(["serve", str(folder), "--port", "0"]), hostile, capsys)
    assert not (folder / "ran").exists()


@pytest.mark.parametrize("hostile", of_kind("template"), ids=named)
def test_a_chat_template(
    hostile: Hostile,
    merged: Path,  # noqa: F811
    tmp_path: Path,
    watched: list[str],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from transformers import PreTrainedTokenizerFast

    def render(*arguments: object, **options: object) -> None:
        raise AssertionError("rendered")

    monkeypatch.setattr(PreTrainedTokenizerFast, "apply_chat_template", render)
    folder = make(hostile, merged, tmp_path / "merged")
    watched.clear()
    refused(lambda: main(["check", str(folder)]), hostile, capsys)
    assert watched == []


@pytest.fixture(scope="session")
def exported(merged: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:  # noqa: F811
    out = tmp_path_factory.mktemp("exported") / "gguf"
    assert main(["export", str(merged), "--gguf", "f16", "--out", str(out)]) == 0
    return out / "ghost-f16.gguf"


@pytest.mark.parametrize("hostile", of_kind("gguf"), ids=named)
def test_a_gguf_file(
    hostile: Hostile, exported: Path, tmp_path: Path, watched: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    file = make(hostile, exported, tmp_path / "ghost.gguf")
    watched.clear()
    refused(lambda: main(["check", str(file)]), hostile, capsys)
    assert watched == []


def test_a_whole_gguf_file_is_not_refused(exported: Path) -> None:
    check_file(exported)


ORDINARY = {
    "README.md": b"---\nlicense: mit\n---\n# A model",
    ".gitattributes": b"*.safetensors filter=lfs\n",
    "LICENSE": b"text",
    "USE_POLICY.md": b"text",
    "params.json": b'{"dim": 64}',
    "tekken.json": b"not read",
    "consolidated.safetensors": b"not read",
    "pytorch_model.bin": b"not read",
    "pytorch_model.bin.index.json": b"{",
    "original/consolidated.00.pth": b"not read",
    "original/tokenizer.model": b"not read",
    "onnx/model.onnx": b"not read",
    "images/logo.png": b"not read",
    "modeling_old.py": CODE.encode(),
    "runs/events.out.tfevents.1": b"not read",
}
# Keys of configs on the Hub that transformers 5 does not declare, or that no one reads here.
UNREAD = {
    "_name_or_path": "/home/someone/model",
    "attn_implementation": "flash_attention_2",
    "_attn_implementation_autoset": True,
    "torch_dtype": "bfloat16",
    "pretraining_tp": 1,
    "transformers.js_config": {"kv_cache_dtype": {"fp16": "float16"}},
    "unsloth_version": "2026.1",
    "rope_interleaved": False,
    "use_sliding_window": False,
    "max_window_layers": 28,
}


def test_an_ordinary_folder_of_the_hub_is_read(tiny_base: Path, tmp_path: Path, watched: list[str]) -> None:
    folder = shutil.copytree(tiny_base, tmp_path / "ordinary")
    for name, content in ORDINARY.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
        (folder / name).chmod(0)
    change("config.json", **UNREAD)(folder)
    more = {"device_map": "auto", "chat_template": "{{ x }}", "use_fast": True, "processor_class": "x"}
    change("tokenizer_config.json", **more)(folder)
    base, plain = resolve_base(str(folder), None), resolve_base(str(tiny_base), None)
    assert base.weights_sha256 == plain.weights_sha256
    ids = [load_tokenizer(found.folder)("hey, l'été 123 👩‍🍳")["input_ids"] for found in (base, plain)]
    assert ids[0] == ids[1]
    models = [load_base(found, nf4=False, bf16=False) for found in (base, plain)]
    assert [model.config._attn_implementation for model in models] == ["sdpa", "sdpa"]
    assert all((one == other).all() for one, other in zip(*(model.parameters() for model in models), strict=True))
    assert watched == []
    assert not [*folder.rglob("ran")]


def test_the_page_lists_them_all() -> None:
    assert (ROOT / "docs" / "hostile_folders.md").read_text(encoding="utf-8") == page()
    assert len(FOLDERS) >= 60
    assert len({(one.kind, one.what) for one in FOLDERS}) == len(FOLDERS)
