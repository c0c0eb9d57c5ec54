"""JSONL of `{"text": …}` lines: a window's turns, rendered, with the end token after the last."""

import re
from collections.abc import Iterable, Sequence
from itertools import accumulate

import msgspec

from replicate_deployment.chat_format import END_TOKEN, SPECIAL_STRINGS, Labels, Turn, escape
from training.preparation.windows import Window

# Its bytes are those of json.dumps(ensure_ascii=False), at half of the time.
_encode_lines = msgspec.json.Encoder().encode_lines
_special = re.compile("|".join(map(re.escape, SPECIAL_STRINGS)))
_BORDER, _BREAK = b'"\n"', b"\\n"
_OPENING, _CLOSING = b'{"text": "', END_TOKEN.encode() + b'"}\n'


def lines(turns: Sequence[Turn], windows: Iterable[Window], labels: Labels) -> bytes:
    """One line per window, in UTF-8, newline included.

    A turn is in about seven windows, so each is rendered and JSON-escaped once; the escaped turns, joined by an
    escaped newline, hold every window as a slice, which equals escaping the rendered window.
    """
    places = list(windows)
    if not places:
        return b""
    # What has one line is rendered by hand: nothing in it is ever escaped, and most turns are such.
    rendered = [f"{label} {text}" if "\n" not in text else f"{label} {escape(text, labels)}" for label, text in turns]
    # A JSON string holds no newline, but it may end in `\",`: only at newlines can many be told apart.
    strings = _encode_lines(rendered)[1:-2]
    starts = list(accumulate((len(string) + len(_BREAK) for string in strings.split(_BORDER)), initial=0))
    escaped = memoryview(strings.replace(_BORDER, _BREAK))
    texts = [escaped[starts[start] : starts[target + 1] - len(_BREAK)] for start, target in places]
    return _OPENING + (_CLOSING + _OPENING).join(texts) + _CLOSING


def holds_special_string(turn: Turn) -> bool:
    """Whether somebody typed what a careless reader of the JSONL would tokenise as a special token."""
    return ("<" in turn.text or "[" in turn.text) and _special.search(turn.text) is not None
