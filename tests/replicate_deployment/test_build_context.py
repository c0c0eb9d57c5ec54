"""cog.yaml, requirements.txt and .dockerignore, which nobody but us edits: what Cog and Docker make of them."""

import ast
import fnmatch
import importlib.metadata
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import replicate_deployment
from ghost.serving.preflight import CACHES, FILES, TEXTS, TRACES, push_line

FOLDER = Path(replicate_deployment.__file__).parent
# The keys of Cog's own schema (config_schema_v1.0 of SDK 0.23), without those that are deprecated.
KEYS = {"build", "image", "model", "run", "environment", "weights"}
BUILD_KEYS = {"cuda", "cudnn", "gpu", "python_version", "python_requirements", "system_packages", "pre_install"} | {
    "sdk_version",
    "run",
}


@pytest.fixture(scope="module")
def cog() -> dict[str, Any]:
    document = yaml.safe_load((FOLDER / "cog.yaml").read_text(encoding="utf-8"))
    assert isinstance(document, dict)
    return document


def test_cog_knows_every_key_and_none_is_deprecated(cog: dict[str, Any]) -> None:
    assert set(cog) <= KEYS
    assert set(cog["build"]) <= BUILD_KEYS
    # YAML reads an unquoted 3.10 as the number 3.1.
    assert cog["build"]["python_version"] in ("3.10", "3.11", "3.12", "3.13")
    assert all(isinstance(cog["build"][key], str) for key in ("cuda", "sdk_version", "python_requirements"))
    assert cog["build"].items() >= TEXTS.items()  # what preflight shows as an example
    assert "environment" not in cog  # Cog reserves names, and a token here would be in the image


def test_the_class_that_is_named_is_there(cog: dict[str, Any]) -> None:
    name, _, class_name = cog["run"].partition(":")
    body = ast.parse((FOLDER / name).read_text(encoding="utf-8")).body
    (found,) = [node for node in body if isinstance(node, ast.ClassDef) and node.name == class_name]
    assert any(isinstance(node, ast.FunctionDef) and node.name == "run" for node in found.body)


def test_the_image_has_the_server_that_the_tests_drive(cog: dict[str, Any]) -> None:
    assert cog["build"]["sdk_version"] == importlib.metadata.version("cog")
    assert "COGLET_WHEEL=pypi:" + importlib.metadata.version("coglet") in push_line(FOLDER, "ana/ghost")


def leaves_out(name: str) -> bool:
    """By Docker's rules, as far as our lines use them: `**/PART` at any depth, `weights/**/*.SUFFIX` below weights/."""
    lines = (FOLDER / ".dockerignore").read_text(encoding="utf-8").splitlines()
    patterns = [line for line in lines if line and not line.startswith("#")]
    for pattern in patterns:
        assert re.fullmatch(r"\*\*/[^/]+|weights/\*\*/\*\.\w+", pattern), f"{pattern}: this test cannot read it"
    return any(
        any(fnmatch.fnmatchcase(part, pattern.removeprefix("**/")) for part in name.split("/"))
        if pattern.startswith("**/")
        else fnmatch.fnmatchcase(name, pattern.replace("**/", ""))
        for pattern in patterns
    )


def test_docker_is_sent_what_the_container_needs() -> None:
    ours = [path.name for path in FOLDER.iterdir() if path.suffix in (".py", ".jinja")]
    weights = ["ghost.json", "config.json", "tokenizer.json", "chat_template.jinja", "model-00001-of-00002.safetensors"]
    needed = [*ours, *FILES - {".dockerignore"}, *(f"weights/{name}" for name in weights)]
    assert [name for name in needed if leaves_out(name)] == []


def test_docker_is_not_sent_caches_secrets_and_pickles() -> None:
    """Also what preflight passes over: it counts neither as foreign nor as sent."""
    unwanted = [".env", ".env.local", ".git/config", "weights/pytorch_model.bin", "weights/a/b.pt", *TRACES]
    unwanted += [f"{cache}/a/b.pyc" for cache in CACHES - {".cog"}]  # Cog's own, which its build reads
    assert [name for name in unwanted if not leaves_out(name)] == []
