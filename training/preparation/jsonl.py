"""JSONL of `{"text": …}` lines: a window's turns, rendered, with the end token after the last."""

import json
import re
from collections.abc import Iterable, Iterator, Sequence

from replicate_deployment.chat_format import END_TOKEN, SPECIAL_STRINGS, Labels, Turn, render
from training.preparation.windows import Window

_encode = json.JSONEncoder(ensure_ascii=False).encode
_special = re.compile("|".join(map(re.escape, SPECIAL_STRINGS)))


def lines(turns: Sequence[Turn], windows: Iterable[Window], labels: Labels) -> Iterator[str]:
    """One line per window, newline included.

    A turn is in about seven windows, so each is rendered and JSON-escaped once; joining the escaped turns by an
    escaped newline equals escaping the rendered window.
    """
    escaped = [_encode(render([turn], labels))[1:-1] for turn in turns]
    for start, target in windows:
        yield '{"text": "' + "\\n".join(escaped[start : target + 1]) + END_TOKEN + '"}\n'


def holds_special_string(turn: Turn) -> bool:
    """Whether somebody typed what a careless reader of the JSONL would tokenise as a special token."""
    return _special.search(turn.text) is not None
