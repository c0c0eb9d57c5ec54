"""Python's search for reference cycles, kept away from millions of records that form none."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def at_rest() -> Iterator[None]:
    """Without it: it walks through all of them again and again, a third to a half of the time.

    What was made meanwhile is frozen, out of its sight afterwards as well; reference counts free it as before.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.freeze()
            gc.enable()
