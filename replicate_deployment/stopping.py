"""Detect the end of a reply while it is generated. Standard library only.

The stop sequences are defined in chat_format.py (`Labels.stop_sequences`); this module only looks for them.

The model writes the format's text (` hey\\n A: is not a tag\\nB:`); callers get the reply (`hey\\nA: is not a tag`).
Three steps convert it, each holding back text that it cannot decide yet:

1. cut at the stop sequence whose match is *completed first* (of two completed at once, the longer), which does not
   depend on how the text is chunked. Held back: a tail that may become a stop sequence;
2. remove the space that escapes a continuation line. Held back: the start of a line that may be escaped;
3. strip white space at both ends. Held back: white space that may be the last.
"""

from collections.abc import Iterable

from .chat_format import DEFAULT_LABELS, Labels
from .errors import SettingsError


class ReplyScanner:
    """Call `feed` with each piece the model writes; it returns the reply text decided so far. Then call `finish` once.

    After a stop sequence, `stopped` holds it and further pieces are ignored. The text returned over all calls is the
    same for every chunking. Raises SettingsError on an empty stop sequence.
    """

    def __init__(self, stop_sequences: Iterable[str], labels: Labels = DEFAULT_LABELS) -> None:
        self._stops = sorted(stop_sequences, key=len, reverse=True)
        if "" in self._stops:
            raise SettingsError('stop_sequences: "" would end every reply at once; remove it')
        self._labels = labels
        self._longest_label = max(len(labels.me), len(labels.other))
        self.stopped: str | None = None
        self._tail = ""  # raw text that may become a stop sequence
        self._line = ""  # the start of a continuation line, not yet known to be escaped or not
        self._in_line_start = False  # the first line follows the tag and is never escaped
        self._blank = ""  # white space after what was returned
        self._begun = False

    def feed(self, piece: str) -> str:
        if self.stopped is not None:
            return ""
        return self._trim(self._unescape(self._cut(piece)))

    def finish(self, *, cut: bool = False) -> str:
        """Return the rest of the held-back text that belongs to the reply.

        `cut`: the reply reached its length limit, so the beginning of a stop sequence at its end is left out.
        """
        tail, self._tail = self._tail, ""
        text = self._unescape("" if cut or self.stopped is not None else tail)
        if self._in_line_start:
            text += self._labels.unescape_line(self._line)
        return self._trim(text)

    def _cut(self, piece: str) -> str:
        text = self._tail + piece
        # `_stops` is sorted by length and min() takes the first of equals, so the longest wins a tie.
        found = [(start + len(stop), start, stop) for stop in self._stops if (start := text.find(stop)) >= 0]
        if found:
            _, start, self.stopped = min(found, key=lambda match: match[0])
            self._tail = ""
            return text[:start]
        self._tail = text[len(text) - self._open_length(text) :]
        return text[: len(text) - len(self._tail)]

    def _open_length(self, text: str) -> int:
        """Return the length of the longest tail of the text that could begin a stop sequence."""
        if not self._stops:
            return 0
        lengths = range(min(len(text), len(self._stops[0]) - 1), 0, -1)
        return next((n for n in lengths if any(stop.startswith(text[-n:]) for stop in self._stops)), 0)

    def _unescape(self, text: str) -> str:
        *whole_lines, rest = text.split("\n")
        ready = ""
        for line in whole_lines:
            ready += self._line_piece(line, ended=True) + "\n"
        return ready + self._line_piece(rest, ended=False)

    def _line_piece(self, text: str, *, ended: bool) -> str:
        """Return the decided part of a line; `ended` means its newline has been seen."""
        if self._in_line_start:
            self._line += text
            # To decide, see the leading spaces and as many characters after them as the longest label has.
            undecided = self._line.startswith(" ") and len(self._line.lstrip(" ")) < self._longest_label
            if ended or (self._line and not undecided):
                text, self._line, self._in_line_start = self._labels.unescape_line(self._line), "", False
            else:
                text = ""
        if ended:
            self._in_line_start = True
        return text

    def _trim(self, text: str) -> str:
        text = self._blank + text
        if not self._begun:
            text = text.lstrip()
            self._begun = text != ""
        ready = text.rstrip()
        self._blank = text[len(ready) :]
        return ready
