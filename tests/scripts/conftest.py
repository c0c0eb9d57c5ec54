"""The merge's fixtures: its adapters and merged models are what the programs are tried on."""

from tests.training.merging.conftest import adapter, make_adapter, make_base, merged  # noqa: F401
