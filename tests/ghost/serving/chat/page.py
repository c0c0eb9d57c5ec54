"""The page with a parrot behind it, in a process of its own: python -m tests.ghost.serving.chat.page LOG

LOG gets a line of JSON for each reply that is asked for, and one when its work has ended. A message that holds "slow"
is answered without an end.
"""

import json
import sys
import time
from collections.abc import Generator, Sequence
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Any

from ghost.serving.chat import web
from ghost.serving.chat.conversation import Changes
from ghost.signals import handled_by, stop_at_once
from replicate_deployment.chat_format import Turn
from replicate_deployment.errors import PromptError
from tests.ghost.serving.chat.speaker import Parrot


@dataclass
class Logged(Parrot):
    log: Path = Path()

    def reply(self, turns: Sequence[Turn], changes: Changes, seed: int | None) -> Generator[str, None, None]:
        self.write({"turns": turns, "settings": asdict(self.settings.replace(**changes)), "seed": seed})
        self.pieces = ("one", "\nA: two", " <b>three</b>")
        try:
            if "long" in turns[-1].text:
                raise PromptError("the last message is <b>too long</b>; shorten it")
            for piece in super().reply(turns, changes, seed):
                yield piece
                time.sleep(0.2)  # so that the page can be seen to grow
            for number in count() if "slow" in turns[-1].text else ():
                yield f" {number}"
                time.sleep(0.05)
        finally:
            self.write({"ended": True})

    def write(self, what: dict[str, Any]) -> None:
        with self.log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(what) + "\n")


if __name__ == "__main__":
    with handled_by(stop_at_once):
        sys.exit(web.serve(lambda: Logged(log=Path(sys.argv[1])), {"top_k": 7}, 3, "127.0.0.1", 0))
