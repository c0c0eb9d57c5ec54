"""Read JSON exports of any size, one entry at a time.

The standard library decodes the values. To continue after a value that does not decode, which neither it nor ijson nor
msgspec can do, count brackets to find where that value ends.
"""

import codecs
import json
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import IO, Any, NamedTuple

from ghost.errors import ExportError
from replicate_deployment.chat_format import well_formed
from training.extraction.source import Source

CHUNK = 128 * 1024  # bytes read at a time
LONGEST = 64 * 1024 * 1024  # characters of one value decoded whole; Telegram's messages have 4,096 at most

SPACE = re.compile(r"[ \t\r\n]*")
# JSON strings hold no line breaks, so an extra quote does no harm beyond its line.
STRUCTURE = re.compile(r'"[^"\\\n]*(?:\\[^\n][^"\\\n]*)*"|"[^\n]*\n|["\[\]{}]')
BARE = re.compile(r"[^\s,:\"\[\]{}]+")
HALF = re.compile(r"\\u[dD][89a-fA-F]")  # of a surrogate pair, escaped


class Broken(Exception):
    """The file is not valid JSON from here on. The message says where; it quotes no content."""


class CutOff(Broken):
    def __init__(self) -> None:
        super().__init__("it ends too early")


def _no_json(constant: str) -> None:
    raise ValueError(f"{constant} is Python's")


DECODER = json.JSONDecoder(parse_constant=_no_json)


class Cursor:
    """A position in a JSON stream. Reading a value moves the cursor past it. Every method can raise Broken.

    repair  fixes known defects; called only with text that did not decode
    """

    def __init__(self, stream: IO[bytes], repair: Callable[[str], str] = str) -> None:
        self._stream = stream
        self._repair = repair
        self._text = codecs.getincrementaldecoder("utf-8-sig")()
        self._is_utf8 = True  # so far; False behind the last character of a file saved in another encoding
        self._buffer = ""
        self._at = 0  # index in the buffer
        self._behind = 0  # number of characters before the buffer
        self._ended = False

    @property
    def place(self) -> int:
        """Number of characters from the start of the stream."""
        return self._behind + self._at

    def peek(self) -> str:
        """The next character that is not white space; "" at the end of the file."""
        while True:
            space = SPACE.match(self._buffer, self._at)
            self._at = space.end() if space else self._at
            if self._at < len(self._buffer) or not self._fill():
                return self._buffer[self._at : self._at + 1]

    def names(self) -> Iterator[str]:
        """Iterate over the names of the object here, with the cursor at each value. Skips values that are not read.

        Yields nothing if this is not an object.
        """
        if self.peek() != "{":
            return
        self._at += 1
        while (character := self.peek()) != "}":
            if character == ",":
                self._at += 1
                continue
            name = self.value() if character == '"' else None
            if self.peek() == "":
                raise CutOff
            if not isinstance(name, str) or self.peek() != ":":
                raise Broken(f"character {self.place:,}: no name")
            self._at += 1
            yield from self._at_value(name)
        self._at += 1

    def elements(self) -> Iterator[None]:
        """Stop at each element of the array here. Skips elements that are not read. Yields nothing if not an array."""
        if self.peek() != "[":
            return
        self._at += 1
        while (character := self.peek()) != "]":
            if character == ",":
                self._at += 1
            else:
                yield from self._at_value(None)
        self._at += 1

    def values(self) -> Iterator[Any]:
        """The elements of the array here; None for one that cannot be decoded."""
        for _ in self.elements():
            yield self.value()

    def value(self) -> Any:
        """Read the value here; None if it cannot be decoded. Also raises Broken if it exceeds LONGEST."""
        while True:
            first, value = self.peek(), None
            end: int | None = None
            if first in ("{", "[", '"'):
                with suppress(ValueError, RecursionError):
                    value, end = DECODER.raw_decode(self._buffer, self._at)
            if end is None:  # a bare word, a damaged value, or one cut by the end of the buffer
                end = self._end(first)
                value = None if end is None else self._repaired(self._buffer[self._at : end])
            if end is not None and (end < len(self._buffer) or self._ended):
                break
            self._fill()
        if HALF.search(self._buffer, self._at, end):
            value = json.loads(well_formed(json.dumps(value, ensure_ascii=False)))
        self._at = end
        return value

    def skip(self) -> None:
        """Skip the value here, of any size."""
        first = self.peek()
        if first not in ("{", "["):
            self.value()
            return
        depth = 0
        while True:
            self._at, depth = self._walk(self._at, depth)
            if not depth:
                return
            if not self._fill():
                raise CutOff

    def finish(self) -> None:
        """Raises Broken if the file goes on behind the values that were read. A `;` may end JavaScript."""
        if self.peek() not in ("", ";"):
            raise Broken(f"character {self.place:,}: more after its end")

    def _at_value(self, name: Any) -> Iterator[Any]:
        self.peek()
        before = self.place
        yield name
        if self.place == before:
            self.skip()

    def _end(self, first: str) -> int | None:
        """The index where the value here ends; None if it is beyond the buffer."""
        if first in ("{", "["):
            end, depth = self._walk(self._at, 0)
            is_whole = not depth
        else:
            token = (STRUCTURE if first == '"' else BARE).match(self._buffer, self._at)
            if token is None and first:
                raise Broken(f"character {self.place:,}: no value")
            end = token.end() if token else 0
            is_whole = token is not None and token[0] != '"'
        if is_whole:
            return end
        if len(self._buffer) - self._at > LONGEST:
            raise Broken(f"character {self.place:,}: a value of more than {LONGEST // 2**20} MiB")
        if self._ended:
            raise CutOff
        return None

    def _walk(self, start: int, depth: int) -> tuple[int, int]:
        """Scan until `depth` open brackets are closed or the buffer ends. Returns (index, brackets still open)."""
        for token in STRUCTURE.finditer(self._buffer, start):
            if token[0] in ("{", "["):
                depth += 1
            elif token[0] in ("}", "]"):
                depth -= 1
                if not depth:
                    return token.end(), 0
            elif token[0] == '"':  # a string cut by the end of the buffer
                return token.start(), depth
        return len(self._buffer), depth

    def _repaired(self, whole: str) -> Any:
        for text in (whole, self._repair(whole)):
            with suppress(ValueError, RecursionError):
                return DECODER.decode(text)
        return None

    def _fill(self) -> bool:
        """Read more, at least as much as is left in the buffer. False at the end of the stream."""
        if not self._is_utf8:
            raise Broken(f"character {self._behind + len(self._buffer):,}: not UTF-8; save the file as UTF-8")
        rest = self._buffer[self._at :]
        more = self._stream.read(max(CHUNK, len(rest)))
        self._ended = not more
        self._behind += self._at
        try:
            text = self._text.decode(more)
        except UnicodeDecodeError as error:  # what precedes it is still read
            text, self._is_utf8 = error.object[: error.start].decode(), False
        self._buffer, self._at = rest + text, 0
        return len(self._buffer) > len(rest) or not self._ended


def damaged(source: Source, entries: int, error: Broken) -> ExportError:
    """The error for a file that is not JSON after so many whole entries."""
    return ExportError(
        f"{source}: not valid JSON after entry {entries:,} ({error}); the file is damaged or was cut off:"
        " export it again"
    )


def array(source: Source, name: str = "") -> Iterator[tuple[int, Any]]:
    """Number (from 1) and value of each element of the file's array, or of the array `name` in the file's object.

    The value is None if it cannot be decoded. Raises ExportError after the last whole element of a damaged file.
    """
    position = 0
    with source.open() as stream:
        try:
            cursor = Cursor(stream)
            if cursor.peek() != ("{" if name else "["):
                raise Broken("character 0: not a list")
            for found in cursor.names() if name else ("",):
                if found == name:
                    for value in cursor.values():
                        position += 1
                        yield position, value
            cursor.finish()
        except Broken as error:
            raise damaged(source, position, error) from None


class Thread(NamedTuple):
    """A conversation of a file that holds many.

    about     the other values of its object
    messages  the elements of its array, None for each that cannot be decoded
    position  number of the first of them in the file, from 1
    """

    about: dict[str, Any]
    messages: list[Any]
    position: int

    def backwards(self) -> Iterator[tuple[int, Any]]:
        """Number in the file and value of each message, the last one first."""
        for index in range(len(self.messages) - 1, -1, -1):
            yield self.position + index, self.messages[index]


def threads(source: Source, messages: str, name: str = "", wrapper: str | None = None) -> Iterator[Thread]:
    """Each object of the file's array, or of the array `name` in the file's object, with its array `messages`.

    Skips a JavaScript assignment before the file's array, as in `window.YTD.account.part0 = [`.

    wrapper  the name of an object in each element, if that has the array: `[{"wrapper": {"messages": []}}]`
    Raises ExportError after the last whole message of a damaged file.
    """
    about: dict[str, Any] = {}
    rows: list[Any] = []
    position = 1
    with source.open() as stream:
        cursor = Cursor(stream)
        try:
            while not name and cursor.peek() not in ("[", ""):
                cursor.value()
            if cursor.peek() != ("{" if name else "["):
                raise Broken(f"character {cursor.place:,}: not a list of conversations")
            for found in cursor.names() if name else ("",):
                for _ in cursor.elements() if found == name else ():
                    about, rows = {}, [] if cursor.peek() == "{" else [None]
                    for outer in cursor.names():
                        for key in cursor.names() if outer == wrapper else (outer,):
                            if key == messages and cursor.peek() == "[":
                                rows.extend(cursor.values())
                            else:
                                about[key] = cursor.value()
                    yield Thread(about, rows, position)
                    position += len(rows)
                    rows = []
            cursor.finish()
        except Broken as error:
            if rows:
                yield Thread(about, rows, position)
            raise damaged(source, position + len(rows) - 1, error) from None


def lines(source: Source, skip: bytes = b"\0") -> Iterator[tuple[int, Any]]:
    """Number and value of each line that is not blank; None for a line that is not JSON. Lines that start with `skip`
    are skipped unread."""
    with source.open() as stream:
        for number, line in enumerate(stream, start=1):
            if line.strip() and not line.startswith(skip):
                try:
                    yield number, json.loads(line)
                except (ValueError, RecursionError):
                    yield number, None
