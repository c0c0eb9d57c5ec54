"""Each check against a build context that breaks exactly it."""

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest import mock

import pytest

from ghost import artifact, cli
from ghost.serving import checks, preflight
from ghost.serving.checks import Result
from ghost.serving.preflight import PACKAGE, SERVER, bytes_sent

NAMES = [*preflight.CHECKS, *checks.CHECKS, SERVER]
LOADING = {"golden prompt", SERVER}
HUB_TOKEN = "hf_" + "Ab1" * 12  # put together, so that no scanner takes this file for a leak
KEY = "-----BEGIN OPENSSH " + "PRIVATE KEY-----\n"
Edit = Callable[[Path], object]


@contextmanager
def disk(free: float) -> Iterator[None]:
    """The disk of whoever runs the tests is not under test."""
    with ExitStack() as stack:
        stack.enter_context(mock.patch("shutil.which", lambda name, **_: f"/usr/bin/{name}"))
        stack.enter_context(mock.patch("shutil.disk_usage", return_value=SimpleNamespace(free=free)))
        yield


@pytest.fixture(autouse=True)
def room() -> Iterator[None]:
    with disk(1e12):
        yield


@pytest.fixture
def context(tmp_path: Path, tiny_merged: Path) -> Path:
    """A build context with weights, ready for `cog push`."""
    folder = tmp_path / "replicate_deployment"
    shutil.copytree(PACKAGE, folder, ignore=shutil.ignore_patterns("weights", "__pycache__", ".cog"))
    shutil.copytree(tiny_merged, folder / "weights")
    return folder


def results(folder: Path) -> dict[str, Result]:
    return {result.check: result for result in preflight.preflight(folder)}


def replaced(name: str, old: str, new: str) -> Edit:
    def edit(folder: Path) -> None:
        path = folder / name
        text = path.read_text(encoding="utf-8")
        assert old in text, f"{name} no longer holds {old!r}"
        path.write_text(text.replace(old, new), encoding="utf-8")

    return edit


def written(name: str, content: str = "x") -> Edit:
    return lambda folder: (folder / name).write_text(content, encoding="utf-8")


def relisted(*edits: Edit) -> Edit:
    """Break files of weights/ and list the broken ones: only the check of their content may see it."""

    def all_of_them(folder: Path) -> None:
        for edit in edits:
            edit(folder)
        path = folder / "weights" / "ghost.json"
        facts = json.loads(path.read_text(encoding="utf-8"))
        path.unlink()
        artifact.write(folder / "weights", facts)

    return all_of_them


def shard(folder: Path) -> Path:
    return next((folder / "weights").glob("*.safetensors"))


def in_bfloat16(folder: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    tensors = load_file(shard(folder))
    save_file({name: tensor.to(torch.bfloat16) for name, tensor in tensors.items()}, shard(folder), {"format": "pt"})


def cut_short(folder: Path) -> None:
    os.truncate(shard(folder), shard(folder).stat().st_size - 100)


def doubled(folder: Path) -> None:
    shutil.copy(shard(folder), folder / "weights" / "more.safetensors")


def other_weights(folder: Path) -> None:
    content = bytearray(shard(folder).read_bytes())
    content[-30_000:] = bytes(30_000)
    shard(folder).write_bytes(content)


def with_index(total_size: int) -> Edit:
    def write(folder: Path) -> None:
        from safetensors import safe_open

        with safe_open(shard(folder), "pt") as stream:
            names = list(stream.keys())
        index = {"metadata": {"total_size": total_size}, "weight_map": dict.fromkeys(names, shard(folder).name)}
        (folder / "weights" / "model.safetensors.index.json").write_text(json.dumps(index))

    return write


def edited(name: str, **changes: object) -> Edit:
    """Keys of a JSON file of weights/ set, or removed when None."""

    def edit(folder: Path) -> None:
        path = folder / "weights" / name
        document = json.loads(path.read_text(encoding="utf-8")) | changes
        kept = {key: value for key, value in document.items() if key not in changes or value is not None}
        path.write_text(json.dumps(kept), encoding="utf-8")

    return edit


def without_merges(folder: Path) -> None:
    path = folder / "weights" / "tokenizer.json"
    document = json.loads(path.read_text(encoding="utf-8"))
    document["model"]["merges"] = document["model"]["merges"][:-20]
    path.write_text(json.dumps(document), encoding="utf-8")


def linked_folder(folder: Path) -> None:
    (folder / "weights").rename(folder.parent / "elsewhere")
    (folder / "weights").symlink_to(folder.parent / "elsewhere")


def linked_file(folder: Path) -> None:
    """As a folder of the Hub's cache has them."""
    blob = folder.parent / "blob"
    shard(folder).rename(blob)
    (folder / "weights" / "model.safetensors").symlink_to(blob)


class Breakage(NamedTuple):
    check: str
    edit: Edit
    says: str
    """Words that the check must say."""


BREAKAGES = {
    "a file of secrets": Breakage("files", written(".env"), ".env does not belong here"),
    "the training's figures": Breakage("files", written("weights/training_report.json"), "is not a file of the model"),
    "a pickle": Breakage("files", written("old.bin"), "old.bin does not belong here"),
    "the training data": Breakage("files", written("train.jsonl"), "train.jsonl does not belong here"),
    "weights/ is a link": Breakage("files", linked_folder, "is a link"),
    "a Hub token": Breakage(
        "secrets", replaced("cog.yaml", "run:", f"environment: [T={HUB_TOKEN}]\nrun:"), "cog.yaml, line"
    ),
    "a private key": Breakage("secrets", replaced("settings.py", '"""', f'"""\n{KEY}'), "settings.py, line 2"),
    "a torch that Cog does not know": Breakage(
        "torch and CUDA",
        replaced("requirements.txt", "torch==2.11.0", "torch==2.13.0"),
        "torch==2.13.0, which is not in",
    ),
    "a torch that may be any": Breakage(
        "torch and CUDA", replaced("requirements.txt", "torch==2.11.0", "torch>=2.9"), "write torch== and one of"
    ),
    "the build of torch that Cog chooses, by hand": Breakage(
        "torch and CUDA", replaced("requirements.txt", "torch==2.11.0", "torch==2.11.0+cu126"), "write torch=="
    ),
    "no torch": Breakage("torch and CUDA", replaced("requirements.txt", "torch==2.11.0\n", ""), "no torch, which"),
    "a CUDA for which this torch was not built": Breakage(
        "torch and CUDA", replaced("cog.yaml", '"12.8"', '"12.4"'), "write cuda: 12.6, 12.8, 12.9 or 13.0, in quotes"
    ),
    "a CUDA that YAML reads as a number": Breakage(
        "torch and CUDA", replaced("cog.yaml", '"12.8"', "12.8"), 'cuda: "12.8"'
    ),
    "a Python that YAML reads as 3.1": Breakage(
        "torch and CUDA", replaced("cog.yaml", '"3.11"', "3.10"), "python_version is 3.1, not text"
    ),
    "a Python that Cog does not know": Breakage(
        "torch and CUDA", replaced("cog.yaml", '"3.11"', '"3.9"'), "Cog does not run on Python 3.9"
    ),
    "any SDK": Breakage("torch and CUDA", replaced("cog.yaml", "sdk_version", "# "), "sdk_version is missing"),
    "a full disk": Breakage("size and disk", lambda folder: None, "5.0 GB free"),
    "a blank in config.json": Breakage(
        "ghost.json and hashes", replaced("weights/config.json", "{", "{ "), "config.json"
    ),
    "in bfloat16": Breakage("shards", relisted(in_bfloat16), "are not F16"),
    "a shard cut short": Breakage("shards", relisted(cut_short), "its header promises"),
    "a shard twice": Breakage("shards", relisted(doubled), "are stored twice"),
    "a wrong total in the index": Breakage("shards", relisted(with_index(1)), "the index says 1 bytes"),
    "another end token": Breakage(
        "end token", relisted(edited("generation_config.json", eos_token_id=1)), "generation_config.json says 1"
    ),
    "no end token": Breakage("end token", relisted(edited("config.json", eos_token_id=None)), "says None"),
    "another BOS": Breakage("end token", relisted(edited("config.json", bos_token_id=2)), "bos_token_id differs"),
    "the pad token is the end token": Breakage(
        "end token", relisted(edited("config.json", pad_token_id=2)), "the pad token is"
    ),
    "the same, in the tokenizer": Breakage(
        "end token",
        relisted(edited("tokenizer_config.json", pad_token="</s>")),
        "the tokenizer: the pad token is",
    ),
    "two pad tokens": Breakage(
        "end token",
        relisted(edited("config.json", pad_token_id=0), edited("generation_config.json", pad_token_id=5)),
        "pad_token_id differs",
    ),
    "a temperature of 7": Breakage(
        "sampling", replaced("weights/ghost.json", '"temperature": 0.7', '"temperature": 7'), "temperature: 7"
    ),
    "the last 20 merges are gone": Breakage(
        "tokenizer", relisted(without_merges), "not the tokenizer used at the merge"
    ),
    "a newline is lost": Breakage(
        "chat template",
        relisted(replaced("weights/chat_template.jinja", '"\\n" ~ me', "me")),
        "not the one that ghost merge writes",
    ),
    "the recipe is another": Breakage(
        "chat template",
        replaced("weights/ghost.json", '"windows"', '"conversations"'),
        "not the one that ghost merge writes",
    ),
    "other weights, listed": Breakage("golden prompt", relisted(other_weights), "not the weights of the merge"),
    "a slip in run() that only a prediction meets": Breakage(
        SERVER, replaced("predict.py", "reply.prompt_tokens", "reply.prompt_token"), "prompt_token"
    ),
}


def test_a_whole_build_context_passes_every_check_and_replies(context: Path) -> None:
    found = results(context)
    assert list(found) == NAMES
    assert not [result for result in found.values() if result.status != "ok"]
    assert "replied" in found[SERVER].found


@pytest.mark.parametrize(
    "breakage",
    [
        pytest.param(one, id=name, marks=pytest.mark.exhaustive if one.check == SERVER else ())
        for name, one in BREAKAGES.items()
    ],
)
def test_a_breakage_fails_its_check_alone(context: Path, breakage: Breakage) -> None:
    breakage.edit(context)
    with disk(5e9 if breakage.check == "size and disk" else 1e12):
        found = results(context)
    failed = found.pop(breakage.check)
    assert failed.status == "failed", failed
    assert breakage.says in f"{failed.found} {failed.todo}"
    assert "\n" not in failed.found
    # What loads the model is not tried after a failure; everything else is well.
    later = {name for name, result in found.items() if result.status == "skipped"}
    assert later == LOADING - set(NAMES[: NAMES.index(breakage.check) + 1])
    assert {result.status for name, result in found.items() if name not in later} == {"ok"}, found


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda folder: None, "torch 2.11.0+cu128 on CUDA 12.8.1, which needs NVIDIA driver 525"),
        (replaced("cog.yaml", 'cuda: "12.8"', ""), "torch 2.11.0+cu130 on CUDA 13.0.3"),  # Cog takes the newest
        (replaced("cog.yaml", '"12.8"', '"13.0"'), "driver 580"),
        (replaced("cog.yaml", "gpu: true", "gpu: false"), "torch 2.11.0 for a CPU"),
    ],
)
def test_it_says_which_torch_and_cuda_the_image_will_have(context: Path, edit: Edit, said: str) -> None:
    edit(context)
    assert said in preflight.torch_and_cuda(context)


@pytest.mark.parametrize("text", ["build: [\n# " + HUB_TOKEN, "- build", "build:", "run: x"])
def test_a_cog_yaml_that_says_nothing_of_the_image_is_refused_in_one_line(context: Path, text: str) -> None:
    (context / "cog.yaml").write_text(text, encoding="utf-8")
    shutil.rmtree(context / "weights")
    found = results(context)["torch and CUDA"]
    assert found.status == "failed"
    assert str(context / "cog.yaml") in found.found
    assert "\n" not in found.found
    assert "https://cog.run/yaml" in found.todo
    assert HUB_TOKEN not in str(found)


def test_what_only_root_could_read_in_the_image_is_counted(context: Path) -> None:
    for path in preflight.contents(context):
        path.chmod(0o644)
    assert "root" not in preflight.foreign_files(context)
    (context / "weights" / "ghost.json").chmod(0o600)
    assert "1 of them only root could read" in preflight.foreign_files(context)


def test_a_shard_that_is_a_link_is_refused(context: Path) -> None:
    linked_file(context)
    found = results(context)
    assert {found[name].status for name in ("files", "ghost.json and hashes")} == {"failed"}
    assert "is a link" in found["files"].found


def test_every_check_is_broken_at_least_once() -> None:
    assert {breakage.check for breakage in BREAKAGES.values()} == set(NAMES)


def test_what_the_compiler_left_is_no_part_of_the_image(context: Path) -> None:
    """On a machine with a GPU the golden prompt leaves it there: pickles, of another torch than the image's."""
    size = bytes_sent(context)
    (context / ".weights.inductor" / "fxgraph").mkdir(parents=True)
    (context / ".weights.inductor" / "fxgraph" / "compiled.pkl").write_bytes(b"x" * 9)
    assert bytes_sent(context) == size
    assert results(context)["files"].status == "ok"


@pytest.mark.parametrize(
    "secret",
    [
        HUB_TOKEN,
        "r8_" + "Ab1" * 12,
        "sk-" + "proj-" + "a1" * 12,
        "ghp_" + "Ab1" * 12,
        "AKIA" + "ABCD" * 4,
        "AIza" + "b" * 35,
        "xoxb-" + "1" * 12,
        "123456789:" + "A" * 35,
    ],
)
def test_a_secret_is_placed_and_not_shown(context: Path, secret: str) -> None:
    with (context / "requirements.txt").open("a") as stream:
        stream.write(f"git+https://{secret}@example.org/noa/ghost\n")
    found = results(context)
    assert found["secrets"].status == "failed"
    assert secret not in str(found)


def test_without_weights_one_line_says_what_to_copy(context: Path) -> None:
    shutil.rmtree(context / "weights")
    found = results(context)
    assert found["weights"].status == "failed"
    assert "cp -r models/merged/." in found["weights"].todo
    assert found["golden prompt"].found == "no weights"
    assert found[SERVER].status == "skipped"


def test_weights_without_their_ghost_json_are_told_apart_from_none(context: Path) -> None:
    (context / "weights" / "ghost.json").unlink()
    assert "has weights but no ghost.json" in results(context)["weights"].found


def test_a_laptop_without_torch_skips_what_needs_it(context: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("transformers", "accelerate", "cog"):
        monkeypatch.setitem(sys.modules, package, None)
    found = {name: result.found for name, result in results(context).items() if result.status != "ok"}
    assert set(found) == {"tokenizer", "chat template", "golden prompt", SERVER}
    assert "transformers is not installed: pip install" in found["chat template"]
    assert "cog is not installed: pip install" in found[SERVER]


def test_the_verb_reports_in_json_and_passes_this_repository(capsys: pytest.CaptureFixture[Any]) -> None:
    code = cli.main(["preflight", "--no-weights", "--json"])
    report = json.loads(capsys.readouterr().out)
    assert (code, report["ok"]) == (0, True), report
    assert {check["status"] for check in report["checks"]} == {"ok", "skipped"}


def test_the_table_names_every_check(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["preflight", "--no-weights"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(NAMES) + 1
    assert lines[-1] == "ready, but the weights were not checked"
