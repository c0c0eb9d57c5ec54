"""Which step's weights to keep: those whose held-out loss of the replies was lowest."""

import math
from typing import Any


class Selection:
    """The best measurement so far, and how many have come since.

    best       its loss in nats a token; None before the first that is a number
    best_step  optimiser steps done when it was taken
    """

    def __init__(self) -> None:
        self.best: float | None = None
        self.best_step: int | None = None
        self._since = 0

    def consider(self, step: int, loss: float) -> bool:
        """Whether this loss is lower than all before it. Of equals the first is kept: it has memorised less."""
        if math.isfinite(loss) and (self.best is None or loss < self.best):
            self.best, self.best_step, self._since = loss, step, 0
            return True
        self._since += 1
        return False

    def exhausted(self, patience: int | None) -> bool:
        """Whether `patience` measurements in a row were no better; never with None."""
        return patience is not None and self._since >= patience

    def to_json(self) -> dict[str, Any]:
        return {"best": self.best, "best_step": self.best_step, "since": self._since}

    @classmethod
    def from_json(cls, recorded: dict[str, Any]) -> "Selection":
        """What `to_json` wrote: a resumed training judges as the one that was interrupted."""
        selection = cls()
        selection.best, selection.best_step = recorded["best"], recorded["best_step"]
        selection._since = recorded["since"]
        return selection
