"""JSONL of `{"text": …}` lines: a window's turns, rendered, with the end token after the last."""

import re
from collections.abc import Iterable, Sequence

import msgspec

from replicate_deployment.chat_format import END_TOKEN, SPECIAL_STRINGS, Labels, Turn, escape
from training.preparation.windows import Window

# Its bytes are those of json.dumps(ensure_ascii=False), at half of the time.
_encode_lines = msgspec.json.Encoder().encode_lines
_special = re.compile("|".join(map(re.escape, SPECIAL_STRINGS)))
_OPENING, _CLOSING = b'{"text": "', END_TOKEN.encode() + b'"}\n'


def lines(turns: Sequence[Turn], windows: Iterable[Window], labels: Labels) -> bytes:
    """One line per window, in UTF-8, newline included.

    A turn is in about seven windows, so each is rendered and JSON-escaped once; joining the escaped turns by an
    escaped newline equals escaping the rendered window.
    """
    # What has one line is rendered by hand: nothing in it is ever escaped, and most turns are such.
    rendered = [f"{label} {text}" if "\n" not in text else f"{label} {escape(text, labels)}" for label, text in turns]
    # A JSON string holds no newline, but it may end in `\",`: only at newlines can many be told apart.
    escaped = [string[1:-1] for string in _encode_lines(rendered).split(b"\n")]
    return b"".join([_OPENING + b"\\n".join(escaped[start : target + 1]) + _CLOSING for start, target in windows])


def holds_special_string(turn: Turn) -> bool:
    """Whether somebody typed what a careless reader of the JSONL would tokenise as a special token."""
    return _special.search(turn.text) is not None
