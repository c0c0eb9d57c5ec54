"""Each check against a build context that breaks exactly it."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import replicate_deployment
from replicate_deployment import checks, weights_checks
from replicate_deployment.preflight import preflight
from training import artifact, cli

CHECKS = [*checks.CHECKS, *weights_checks.CHECKS]
SOURCE = Path(replicate_deployment.__file__).parent


@pytest.fixture
def context(tmp_path: Path, tiny_merged: Path) -> Path:
    folder = tmp_path / "replicate_deployment"
    shutil.copytree(SOURCE, folder, ignore=shutil.ignore_patterns("weights", "__pycache__", ".cog"))
    shutil.copytree(tiny_merged, folder / "weights")
    return folder


def replaced(name: str, old: str, new: str) -> Callable[[Path], object]:
    def edit(folder: Path) -> None:
        path = folder / name
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    return edit


def written(name: str, content: bytes = b"x") -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(content)


def relisted(edit: Callable[[Path], object]) -> Callable[[Path], object]:
    """Break a file of weights/ and list the broken one: only the check of its content may see it."""

    def both(folder: Path) -> None:
        edit(folder)
        path = folder / "weights" / "ghost.json"
        facts = json.loads(path.read_text())
        path.unlink()
        artifact.write(folder / "weights", facts)

    return both


def in_bfloat16(folder: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    path = folder / "weights" / "model.safetensors"
    tensors = load_file(path)
    save_file({name: tensor.to(torch.bfloat16) for name, tensor in tensors.items()}, path, {"format": "pt"})


def other_weights(folder: Path) -> None:
    path = folder / "weights" / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-30_000:] = bytes(30_000)
    path.write_bytes(content)


def doubled(folder: Path) -> None:
    shutil.copy(folder / "weights" / "model.safetensors", folder / "weights" / "more.safetensors")


def linked(folder: Path) -> None:
    (folder / "weights").rename(folder.parent / "elsewhere")
    (folder / "weights").symlink_to(folder.parent / "elsewhere")


def edited(name: str, **changes: object) -> Callable[[Path], object]:
    """Keys of a JSON file of weights/ set, or removed when None."""

    def edit(folder: Path) -> None:
        path = folder / "weights" / name
        document = json.loads(path.read_text(encoding="utf-8")) | changes
        kept = {key: value for key, value in document.items() if key not in changes or value is not None}
        path.write_text(json.dumps(kept), encoding="utf-8")

    return edit


def with_index(total_size: int) -> Callable[[Path], object]:
    def write(folder: Path) -> None:
        from safetensors import safe_open

        with safe_open(folder / "weights" / "model.safetensors", "pt") as stream:
            names = list(stream.keys())
        index = {"metadata": {"total_size": total_size}, "weight_map": dict.fromkeys(names, "model.safetensors")}
        (folder / "weights" / "model.safetensors.index.json").write_text(json.dumps(index))

    return write


BREAKAGES = [
    ("files", lambda folder: (folder / "chat_format.py").unlink(), "chat_format.py"),
    (".dockerignore", lambda folder: (folder / ".dockerignore").unlink(), "missing"),
    (".dockerignore", replaced(".dockerignore", "**/*.pyc", "weights/"), "keeps the weights out"),
    ("cog.yaml keys", replaced("cog.yaml", "  gpu:", "  gpus:"), "build.gpus"),
    ("cog.yaml keys", replaced("cog.yaml", "run:", "predict: x\nrun:"), "predict"),
    ("entry point", replaced("cog.yaml", "predict.py:Predictor", "predict.py:Runner"), "no class Runner"),
    ("entry point", replaced("cog.yaml", "predict.py:Predictor", "serve.py:Predictor"), "names no file"),
    ("python version", replaced("cog.yaml", '"3.11"', "3.10"), "3.1;"),
    ("environment", replaced("cog.yaml", "run:", "environment: [CUDA_HOME=/usr]\nrun:"), "CUDA_HOME"),
    ("requirements", replaced("requirements.txt", "accelerate==1.15.0", "accelerate>=1.15"), "accelerate>=1.15"),
    ("torch and CUDA", replaced("requirements.txt", "torch==2.11.0", "torch==2.13.0"), "torch 2.13.0"),
    ("torch and CUDA", replaced("cog.yaml", '"12.8"', '"12.4"'), "12.4"),
    ("nothing else in the image", written(".env"), ".env may hold secrets"),
    ("nothing else in the image", written("weights/adapter_config.json"), "an adapter"),
    ("nothing else in the image", written("old.bin"), "old.bin: a pickle"),
    ("nothing else in the image", written("notes.txt", b"version https://git-lfs.github.com/spec/v1\n"), "LFS"),
    ("ghost.json and hashes", replaced("weights/config.json", "{", "{ "), "config.json"),
    ("weights in the image", linked, "is a link"),
    ("shards", relisted(in_bfloat16), "21 of 21 tensors are not F16, first lm_head.weight (BF16)"),
    ("shards", relisted(doubled), "21 tensors are there twice"),
    ("shards", relisted(with_index(1)), "the index says 1 bytes"),
    ("end token", relisted(edited("generation_config.json", eos_token_id=1)), "generation_config.json says 1"),
    ("end token", relisted(edited("config.json", eos_token_id=None)), "config.json says None"),
    ("end token", relisted(edited("config.json", bos_token_id=2)), "bos_token_id differs"),
    ("end token", relisted(edited("config.json", pad_token_id=2)), "config.json: the pad token is the end token"),
    ("end token", relisted(edited("tokenizer_config.json", pad_token="</s>")), "the pad token is the end token"),
    ("sampling", replaced("weights/ghost.json", '"temperature": 0.7', '"temperature": 7'), "temperature: 7"),
    ("chat template", relisted(replaced("weights/chat_template.jinja", '"\\n" ~ me', 'me')), "does not give the ids"),
    ("chat template", replaced("weights/ghost.json", '"windows"', '"conversations"'), "does not give the ids"),
    ("golden prompt", relisted(other_weights), "not the weights of the merge"),
]  # fmt: skip


def results(folder: Path) -> dict[str, tuple[str, str]]:
    return {result.check: (result.status, f"{result.found} {result.todo}") for result in preflight(folder)}


def test_a_whole_build_context_passes_every_check(context: Path) -> None:
    found = results(context)
    assert list(found) == CHECKS
    assert {status for status, _ in found.values()} == {"ok"}, found


@pytest.mark.parametrize(("check", "spoil", "words"), BREAKAGES, ids=[f"{n}-{b[0]}" for n, b in enumerate(BREAKAGES)])
def test_a_breakage_fails_its_check_and_says_why(
    context: Path, check: str, spoil: Callable[[Path], object], words: str
) -> None:
    spoil(context)
    found = {name: result for name, result in results(context).items() if result[0] != "ok"}
    assert found[check][0] == "failed"
    assert words in found[check][1]
    # Settings and weights that do not load fail the golden prompt as well, which loads the engine.
    assert set(found) - {"golden prompt"} <= {check}, found


def test_every_check_is_broken_once() -> None:
    assert {check for check, _, _ in BREAKAGES} == set(CHECKS)


def test_a_model_cut_short_is_told_by_its_header(context: Path) -> None:
    path = context / "weights" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    assert "its header promises" in results(context)["shards"][1]


def test_without_weights_one_line_says_what_to_copy(context: Path) -> None:
    shutil.rmtree(context / "weights")
    found = results(context)
    assert found["weights"][0] == "failed"
    assert "cp -r models/merged/." in found["weights"][1]
    assert found["golden prompt"] == ("skipped", "no weights ")


def test_weights_without_their_ghost_json_are_told_apart_from_none(context: Path) -> None:
    (context / "weights" / "ghost.json").unlink()
    assert "has weights but no ghost.json" in results(context)["weights"][1]


def test_a_laptop_without_torch_skips_what_needs_it(context: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("transformers", "accelerate"):
        monkeypatch.setitem(sys.modules, package, None)
    found = {check: found for check, (status, found) in results(context).items() if status != "ok"}
    assert set(found) == {"chat template", "golden prompt"}
    assert "transformers is not installed: pip install" in found["chat template"]


def test_the_verb_reports_in_json_and_passes_this_repository(capsys: pytest.CaptureFixture[str]) -> None:
    code = cli.main(["preflight", "--no-weights", "--json"])
    report = json.loads(capsys.readouterr().out)
    assert (code, report["ok"]) == (0, True), report
    assert {check["status"] for check in report["checks"]} == {"ok", "skipped"}


def test_the_table_names_every_check(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["preflight", "--no-weights"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(CHECKS) + 1
    assert lines[-1].startswith("ready: cd ")
