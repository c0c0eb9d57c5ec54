"""Python imports this at start-up when its folder is on PYTHONPATH."""

import loopback_only  # noqa: F401
