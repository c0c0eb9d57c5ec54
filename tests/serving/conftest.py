"""One Cog server a module: starting one costs seconds of importing torch."""

from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from serving.serve import running_server

from .cog_server import wait_until
from .release_scene import scene  # noqa: F401  (a fixture)


@pytest.fixture(scope="module")
def url(tiny_merged: Path) -> Iterator[str]:
    """The base URL of a server on the tiny merged model."""
    with running_server(tiny_merged) as base:
        yield base


@pytest.fixture(scope="module")
def connection(url: str) -> Iterator[httpx2.Client]:
    # One for all tests: each new one reads the machine's certificates for a tenth of a second.
    with httpx2.Client(base_url=url, trust_env=False, timeout=120) as client:
        yield client


@pytest.fixture
def http(connection: httpx2.Client) -> httpx2.Client:
    """A client of a server that is free."""
    wait_until(connection, "READY")
    return connection
