"""One Cog server for all tests that only ask it something."""

from collections.abc import Iterator

import httpx2
import pytest

from tests.ghost.serving.cog_server import url, wait_until  # noqa: F401  (url is a fixture)
from tests.ghost.serving.release_scene import scene  # noqa: F401  (a fixture)


@pytest.fixture(scope="session")
def connection(url: str) -> Iterator[httpx2.Client]:  # noqa: F811
    # One for all tests: each new one reads the machine's certificates for a tenth of a second.
    with httpx2.Client(base_url=url, trust_env=False, timeout=120) as client:
        yield client


@pytest.fixture
def http(connection: httpx2.Client) -> httpx2.Client:
    """A client of a server that is free."""
    wait_until(connection, "READY")
    return connection
