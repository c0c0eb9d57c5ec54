"""The packages, for pyproject.toml can either find them or list them: these are found, and config/ is one more.

The files of config/ stay where people and other programs look for them, and a wheel holds them as `ghost_config`:
ghost/installed.py takes from there what the current folder's config/ does not have.
"""

from setuptools import find_namespace_packages, setup

ROOMS = ["ghost", "replicate_deployment", "scripts", "telegram_bot", "training"]
setup(packages=[*find_namespace_packages(include=[*ROOMS, *(f"{room}.*" for room in ROOMS)]), "ghost_config"])
