"""requirements/: the lock says what pyproject.toml allows, and what runs in the container is what the tests run."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PYTHONS = ["3.11", "3.12", "3.13"]
SYSTEMS = [("linux", "x86_64"), ("darwin", "arm64")]


def pins(path: Path, python: str, system: str = "linux", machine: str = "x86_64") -> dict[str, Version]:
    """Name → version, of the lines that hold for that machine."""
    here = {**default_environment(), "python_version": python, "python_full_version": f"{python}.0"}
    here |= {"sys_platform": system, "platform_system": system.capitalize(), "platform_machine": machine}
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if re.match(r"[a-z0-9]", line):
            wanted = Requirement(line.removesuffix("\\").split("--hash")[0].split("#")[0].strip())
            if wanted.marker is None or wanted.marker.evaluate({name: str(value) for name, value in here.items()}):
                (pin,) = wanted.specifier
                assert pin.operator == "==", line
                assert canonicalize_name(wanted.name) not in found, line
                found[canonicalize_name(wanted.name)] = Version(pin.version)
    return found


def wanted(*extras: str) -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = [*project["dependencies"], *(line for extra in extras for line in project["optional-dependencies"][extra])]
    return [found for line in lines if (found := Requirement(line)).name != project["name"]]


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize(("system", "machine"), SYSTEMS)
def test_the_lock_holds_one_allowed_version_of_every_dependency(python: str, system: str, machine: str) -> None:
    """If this fails, pyproject.toml has changed: run `make lock`."""
    locked = pins(ROOT / "requirements" / "environment.lock", python, system, machine)
    for dependency in wanted("train", "serve", "home", "chat", "bot", "dev"):
        assert locked[canonicalize_name(dependency.name)] in dependency.specifier, str(dependency)


def test_every_line_of_a_lock_has_a_hash() -> None:
    for path in (ROOT / "requirements").glob("*.lock"):
        entries = re.split(r"^(?=[a-z0-9])", path.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
        assert entries
        assert not [entry for entry in entries if "--hash=sha256:" not in entry], path.name


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("extra", ["bot", "home"])
def test_the_images_follow_the_lock(extra: str, python: str) -> None:
    locked, image = (pins(ROOT / "requirements" / name, python) for name in ("environment.lock", f"{extra}.lock"))
    if python != "3.11":  # the images have 3.12
        assert image.items() <= locked.items()
    assert {canonicalize_name(dependency.name) for dependency in wanted(extra)} <= set(image)


@pytest.mark.parametrize("python", PYTHONS)
def test_the_tests_import_what_the_container_imports_in_all_but_torch(python: str) -> None:
    locked = pins(ROOT / "requirements" / "environment.lock", python)
    container = pins(ROOT / "requirements" / "container.in", python)
    assert container.pop("torch") <= locked["torch"]  # Cog's table knows no newer one
    assert container.items() <= locked.items()


def test_the_container_has_its_own_versions_and_for_the_rest_those_of_the_lock() -> None:
    """If this fails, requirements/container.in has changed: run `make lock`."""
    locked, named = (pins(ROOT / "requirements" / name, "3.11") for name in ("environment.lock", "container.in"))
    del named["cog"]  # Cog removes its own packages from requirements.txt, with a warning
    container = pins(ROOT / "replicate_deployment" / "requirements.txt", "3.11")
    assert named.items() <= container.items()
    assert len(container) > len(named)
    assert container.items() - named.items() <= locked.items()


def test_the_cpu_build_is_of_the_torch_that_is_locked() -> None:
    (cpu,) = pins(ROOT / "requirements" / "torch-cpu.lock", "3.11").values()
    assert cpu.local == "cpu"
    assert cpu.base_version == str(pins(ROOT / "requirements" / "environment.lock", "3.11")["torch"])
