"""What Cog reads from predict.py, by its inspector, by its builder and in its container."""

import ast
import dataclasses
import inspect
import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

import replicate_deployment
from ghost.serving import serve
from replicate_deployment.chat_format import Turn
from replicate_deployment.engine import Engine
from replicate_deployment.errors import WeightsError
from replicate_deployment.predict import Predictor
from replicate_deployment.settings import RANGES, Settings

SOURCE = Path(replicate_deployment.__file__).parent


def test_the_ranges_are_those_of_the_settings_and_the_defaults_the_models() -> None:
    inputs = {name: parameter.default for name, parameter in inspect.signature(Predictor.run).parameters.items()}
    assert {inputs[name].default for name in RANGES} == {None}
    assert {name: (inputs[name].ge, inputs[name].le) for name in RANGES} == RANGES
    assert all(inputs[name].description for name in inputs if name != "self")


def test_the_builder_can_read_the_inputs_without_running_them() -> None:
    """Cog's builder takes literals only; it drops other ranges in silence and does not join or unescape strings."""
    tree = ast.parse((SOURCE / "predict.py").read_text())
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "Input"]
    assert len(calls) == len(inspect.signature(Predictor.run).parameters) - 1
    for keyword in (keyword for call in calls for keyword in call.keywords):
        ast.literal_eval(keyword.value)
        if keyword.arg == "description":
            assert isinstance(keyword.value, ast.Constant)
            assert keyword.value.end_lineno == keyword.value.lineno
            assert "\\" not in ast.unparse(keyword.value)


@pytest.mark.parametrize("switch", ["", "1"])
def test_set_up_loads_what_is_named_and_ends_in_a_reply(
    engine: Engine, tiny_merged: Path, switch: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    loaded, asked = [], []

    def load(folder: Path, **options: Any) -> Engine:
        loaded.append((folder, options))
        return engine

    def reply(self: Engine, turns: list[Turn], settings: Settings) -> Iterator[str]:
        yield "hey"
        asked.append(turns)

    monkeypatch.setenv("GHOST_WEIGHTS", str(tiny_merged))
    monkeypatch.setenv("GHOST_LOAD_IN_4BIT", switch)
    monkeypatch.setattr(Engine, "load", load)
    monkeypatch.setattr(Engine, "reply", reply)
    with caplog.at_level(logging.INFO, logger="ghost"):  # set-up changes the level, this puts it back
        Predictor().setup()
    assert loaded == [(tiny_merged, {"load_in_4bit": switch == "1"})]
    assert [turns[-1].label for turns in asked] == [engine.labels.other]


@pytest.mark.parametrize(
    ("error", "user"), [(None, "noa"), (KeyError(), str(os.getuid())), (OSError(), str(os.getuid()))]
)
def test_a_user_without_a_name_gets_its_number(
    error: Exception | None, user: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch asks for the name when transformers imports its compiler, and an image may run as any user."""
    monkeypatch.setenv("USER", "noa")
    monkeypatch.setattr("getpass.getuser", mock.Mock(side_effect=error))
    monkeypatch.setattr(Engine, "load", mock.Mock(side_effect=WeightsError("not loaded")))
    monkeypatch.setenv("GHOST_WEIGHTS", ".")
    with pytest.raises(WeightsError):
        Predictor().setup()
    assert os.environ["USER"] == user


def test_what_a_caller_leaves_out_is_as_ghost_json_says(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Settings] = []

    def reply(self: Engine, turns: list[Turn], settings: Settings, **_: Any) -> Iterator[str]:
        asked.append(settings)
        yield "hey"

    monkeypatch.setattr(Engine, "reply", reply)
    predictor = Predictor()
    predictor.engine = dataclasses.replace(engine, settings=Settings(temperature=0.3, max_new_tokens=7))
    given = dict.fromkeys(RANGES) | {"prompt": "hey", "stop_sequences": [], "seed": None}
    for changes in ({}, {"temperature": 0.0, "top_k": 5}):
        next(iter(predictor.run(**given | changes)))
    assert asked == [Settings(temperature=0.3, max_new_tokens=7), Settings(temperature=0.0, max_new_tokens=7, top_k=5)]


def test_the_schema_is_what_cogs_server_reads() -> None:
    document = serve.openapi()
    inputs = document["components"]["schemas"]["Input"]
    assert inputs["required"] == ["prompt"]
    assert inputs["properties"]["temperature"]["minimum"] == 0
    assert inputs["properties"]["temperature"]["nullable"]
    assert inputs["properties"]["stop_sequences"] | {"description": ""} == {
        "x-order": 6,
        "title": "Stop Sequences",
        "type": "array",
        "items": {"type": "string"},
        "default": [],
        "description": "",
    }
    optional = {name for name, facts in inputs["properties"].items() if facts.get("nullable")}
    assert optional == {*RANGES, "seed"}
    assert {inputs["properties"][name]["default"] for name in optional} == {None}  # as Cog's builder writes them
    assert "default" not in inputs["properties"]["prompt"]
    output = document["components"]["schemas"]["Output"]
    assert (output["x-cog-array-type"], output["x-cog-array-display"]) == ("iterator", "concatenate")
    assert document["paths"]["/predictions"]["post"]["x-cog-streaming"] is True
    assert json.loads(json.dumps(document)) == document


def test_the_files_work_flat_as_in_the_container(tmp_path: Path) -> None:
    folder = tmp_path / "src"
    shutil.copytree(SOURCE, folder, ignore=shutil.ignore_patterns("weights", "__pycache__"))
    program = (
        "import sys, pathlib\n"
        # Forget this repository, as a container without it would.
        "sys.path = [p for p in sys.path if not (pathlib.Path(p) / 'replicate_deployment').is_dir()]\n"
        "sys.meta_path = [f for f in sys.meta_path if '__editable__' not in getattr(f, '__module__', '')]\n"
        "from cog.predictor import load_predictor_from_ref\n"
        "load_predictor_from_ref('predict.py:Predictor')\n"
        "import importlib.util, replicate_deployment.settings\n"
        "print(replicate_deployment.settings.__file__)\n"
        "print(importlib.util.find_spec('replicate_deployment.engine').origin)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, check=False)
    assert done.stdout.split() == [str(folder / "settings.py"), str(folder / "engine.py")], done.stderr
