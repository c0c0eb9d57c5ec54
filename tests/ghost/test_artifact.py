"""ghost.json: written by stages, read and verified by whoever takes the folder."""

import json
from pathlib import Path

import pytest

from ghost import artifact
from ghost.errors import ArtifactError
from replicate_deployment import ghost_json
from replicate_deployment.errors import WeightsError

TEXT = {"labels": {"me": "A:", "other": "B:"}, "recipe": "windows", "stop_sequences": ["\nB:"]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "config.json").write_text("{}")
    artifact.write(tmp_path, None, text=TEXT)
    return tmp_path


def test_facts_travel_and_blocks_are_added(folder: Path, tmp_path: Path) -> None:
    first = ghost_json.read(folder)
    later = tmp_path / "later"
    later.mkdir()
    artifact.write(later, first.facts, base={"repo": "owner/name"})
    ghost = ghost_json.read(later)
    assert ghost.facts["text"] == TEXT
    assert ghost.block("base") == {"repo": "owner/name"}
    assert ghost.block("files") == {}  # its own files, not its predecessor's
    assert ghost.stop_sequences == ["\nB:"]


def test_a_fact_has_one_author(folder: Path) -> None:
    with pytest.raises(ArtifactError, match="'text' block was written by an earlier stage"):
        artifact.write(folder, ghost_json.read(folder).facts, text=TEXT)


def test_an_untouched_folder_verifies(folder: Path) -> None:
    (folder / "notes.txt").write_text("mine")  # unlisted, but neither weights nor code
    ghost_json.verify(ghost_json.read(folder))


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda folder: (folder / "model.safetensors").unlink(), "missing"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"weight"), "truncated or replaced"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"WEIGHTS"), "altered"),
        (lambda folder: (folder / "extra.bin").touch(), "not listed in"),
        (lambda folder: (folder / "sub").mkdir() or (folder / "sub" / "x.pkl").touch(), "not listed in"),
    ],
)
def test_a_harmed_folder_is_refused(folder: Path, harm: object, message: str) -> None:
    harm(folder)  # type: ignore[operator]
    with pytest.raises(WeightsError, match=message):
        ghost_json.verify(ghost_json.read(folder))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no ghost.json here"),
        ("{", "not readable"),
        ("[]", "not readable"),
        (json.dumps({"format": 1}), "not a readable"),
        (json.dumps({"format": 1, "text": {"labels": TEXT["labels"]}, "files": {}}), "not a readable"),
        (json.dumps({"format": 1, "text": TEXT, "files": {"x": {"size": 1}}}), "not a readable"),
        (json.dumps({"format": 99, "text": TEXT, "files": {}}), "format 99, this version reads 1"),
    ],
)
def test_an_unreadable_document_is_refused(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "ghost.json").write_text(content)
    with pytest.raises(WeightsError, match=message):
        ghost_json.read(tmp_path)


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        (["data"], "not a merged model .* that ghost merge or pull wrote$"),
        (["data", "base", "training"], "not a merged model"),
        (["data", "base", "training", "merge", "export"], r"an export; name its file: .*ghost-q8_0\.gguf$"),
    ],
)
def test_a_folder_of_another_stage_is_no_merged_model(tmp_path: Path, blocks: list[str], message: str) -> None:
    (tmp_path / "ghost-q8_0.gguf").touch()
    artifact.write(tmp_path, None, text=TEXT, **{name: {} for name in blocks})
    with pytest.raises(WeightsError, match=message):
        ghost_json.read_merged(tmp_path)


@pytest.mark.parametrize("made_by", ["ghost", "somebody else"])
def test_an_adapter_is_no_merged_model(tmp_path: Path, made_by: str) -> None:
    adapter = tmp_path / "my adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    if made_by == "ghost":
        artifact.write(adapter, None, text=TEXT, training={})
    with pytest.raises(WeightsError, match=f"merge it first: ghost merge '{adapter}'$"):
        ghost_json.read_merged(adapter)


def test_a_missing_block_is_named(folder: Path) -> None:
    with pytest.raises(WeightsError, match="no 'golden' block"):
        ghost_json.read(folder).block("golden")


def test_a_stage_owns_only_what_it_wrote(folder: Path) -> None:
    assert artifact.own_files(folder, "data") == set()  # no block of any stage yet
    adapter = folder / "adapter"
    adapter.mkdir()
    (adapter / "adapter_model.safetensors").touch()
    artifact.write(adapter, ghost_json.read(folder).facts, data={}, training={})
    assert artifact.own_files(adapter, "training") == {"ghost.json", "adapter_model.safetensors"}
    assert artifact.own_files(adapter, "merge") == artifact.own_files(adapter, "data") == set()
    assert artifact.own_files(folder / "nowhere", "data") == set()
