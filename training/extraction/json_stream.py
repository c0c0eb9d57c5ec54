"""A JSON file larger than memory, walked: names and elements one after the other, arrays of objects in batches.

A streaming parser hands over every brace of messages of which a few fields are wanted: 7.6 µs a message in ijson. So
the file is cut into runs of whole elements, and msgspec builds those fields and nothing else, in 1.3 µs. Where to cut
is guessed from an indented file's `}, {` lines. A wrong guess is harmless: only whole elements are valid JSON between
brackets, so the run does not decode and is taken apart one by one.
"""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import IO, Any, TypeVar

import msgspec

from training.extraction.text import well_formed

CHUNK = 128 * 1024  # bytes read at a time: 64 KiB are as fast, 1 MiB a fifth slower
LONGEST = 64 * 1024 * 1024  # bytes of one value decoded whole; Telegram's messages have 4,096 characters at most
SINGLES = 500  # elements handed over at a time where runs do not decode
BOM = b"\xef\xbb\xbf"

SPACE = re.compile(rb"[ \t\r\n]*")
# JSON's strings hold no line break, so a quote too many does no harm beyond its line.
STRUCTURE = re.compile(rb'"[^"\\\n]*(?:\\[^\n][^"\\\n]*)*"|"[^\n]*\n|["\[\]{}]')
BARE = re.compile(rb"[^\s,:\"\[\]{}]+")
NEXT_OBJECT = re.compile(rb",\r?\n[ \t]*\{")

UNDECODABLE = (msgspec.MsgspecError, ValueError, RecursionError)

Shape = TypeVar("Shape")


class Broken(Exception):
    """The file is no JSON from here on; the message says where, without its content."""


class CutOff(Broken):
    def __init__(self) -> None:
        super().__init__("it ends in the middle")


class Cursor:
    """A place in a stream of JSON. What reads a value leaves the cursor behind it, and all of it raises Broken.

    repair  undoes known defects of invalid JSON; asked only about bytes that did not decode as they are
    """

    def __init__(self, stream: IO[bytes], repair: Callable[[bytes], bytes] = bytes) -> None:
        self._stream = stream
        self._repair = repair
        self._buffer = b""
        self._at = 0  # within the buffer
        self._behind = 0  # bytes of the stream before the buffer
        self._ended = False
        self._fill()
        if self._buffer.startswith(BOM):
            self._at = len(BOM)

    @property
    def place(self) -> int:
        """Bytes from the stream's start."""
        return self._behind + self._at

    def peek(self) -> bytes:
        """The next byte that is no white space; b"" at the end of the file."""
        while True:
            space = SPACE.match(self._buffer, self._at)
            self._at = space.end() if space else self._at
            if self._at < len(self._buffer) or not self._fill():
                return self._buffer[self._at : self._at + 1]

    def names(self) -> Iterator[str]:
        """The names in the object here, or in the rest of one, the cursor at each one's value; a value left is skipped.

        Of anything but an object, none.
        """
        if self.peek() == b"{":
            self._at += 1
        elif self.peek() not in (b",", b"}"):
            return
        while (byte := self.peek()) != b"}":
            if byte == b",":
                self._at += 1
                continue
            name = self.value() if byte == b'"' else None
            if self.peek() == b"":
                raise CutOff
            if not isinstance(name, str) or self.peek() != b":":
                raise Broken(f"byte {self.place:,}: no name")
            self._at += 1
            yield from self._at_value(name)
        self._at += 1

    def elements(self) -> Iterator[None]:
        """Stop at every element of the array here; one left is skipped. Of anything but an array, none."""
        if self.peek() != b"[":
            return
        self._at += 1
        while (byte := self.peek()) != b"]":
            if byte == b",":
                self._at += 1
            else:
                yield from self._at_value(None)
        self._at += 1

    def batches(self, shape: type[Shape]) -> Iterator[list[Shape | None]]:
        """The elements of the array here, some hundred at a time; None for one that is not of the shape.

        Of anything but an array, none.
        """
        if self.peek() != b"[":
            return
        self._at += 1
        many, one = msgspec.json.Decoder(list[shape]).decode, msgspec.json.Decoder(shape).decode  # type: ignore[valid-type]
        border, end_of_element = b"", 0
        one_by_one_until = 0
        singles: list[Shape | None] = []
        try:
            while (byte := self.peek()) != b"]":
                if byte == b",":
                    self._at += 1
                    continue
                if border and self.place >= one_by_one_until and (found := self._buffer.rfind(border, self._at)) >= 0:
                    end = found + end_of_element
                    run = self._run(b"[" + self._buffer[self._at : end] + b"]", many)
                    if run is not None:
                        self._at = end
                        yield [*singles, *run]
                        singles = []
                        continue
                    one_by_one_until = self._behind + end
                element = self._whole()
                singles.append(self._one(element, one))
                if not border and (following := NEXT_OBJECT.match(self._buffer, self._at)):
                    last_line = element[max(element.rfind(b"\n"), 0) :]
                    if last_line.strip() == b"}" and last_line[:1] == b"\n":
                        border, end_of_element = last_line + following[0], len(last_line)
                if len(singles) >= SINGLES:
                    yield singles
                    singles = []
        except Broken:
            yield singles
            raise
        self._at += 1
        yield singles

    def value(self) -> Any:
        """The whole value here; None for one that cannot be decoded. Raises Broken beyond 64 MiB too."""
        return self._one(self._whole(), msgspec.json.decode)

    def skip(self) -> None:
        """Pass over the value here, however large."""
        if self.peek() not in (b"{", b"["):
            self._whole()
            return
        depth = 0
        while True:
            self._at, depth = self._walk(depth)
            if not depth:
                return
            if not self._fill():
                raise CutOff

    def look_ahead(self, look: Callable[[], None]) -> None:
        """Do `look` and come back here; where the file breaks off on the way, what was seen until there is enough."""
        place = self.place
        with suppress(Broken):
            look()
        self._stream.seek(place)
        self._buffer, self._at, self._behind, self._ended = b"", 0, place, False

    def _at_value(self, name: Any) -> Iterator[Any]:
        self.peek()
        before = self.place
        yield name
        if self.place == before:
            self.skip()

    def _whole(self) -> bytes:
        """The bytes of the value here."""
        first = self.peek()
        while (end := self._end(first)) is None:
            if len(self._buffer) - self._at > LONGEST:
                raise Broken(f"byte {self.place:,}: a value of more than {LONGEST // 2**20} MiB")
            if self._ended:
                raise CutOff
            self._fill()
        whole = self._buffer[self._at : end]
        self._at = end
        return whole

    def _end(self, first: bytes) -> int | None:
        """Where the value here ends; None when that lies beyond the buffer."""
        if first in (b"{", b"["):
            end, depth = self._walk(0)
            return None if depth else end
        token = (STRUCTURE if first == b'"' else BARE).match(self._buffer, self._at)
        if token is None and first:
            raise Broken(f"byte {self.place:,}: no value")
        if (
            token is None
            or token[0] == b'"'
            or (first != b'"' and token.end() == len(self._buffer) and not self._ended)
        ):
            return None
        return token.end()

    def _walk(self, depth: int) -> tuple[int, int]:
        """Go on until `depth` open brackets are closed or the buffer ends: where that is, and what is still open."""
        for token in STRUCTURE.finditer(self._buffer, self._at):
            byte = token[0]
            if byte in (b"{", b"["):
                depth += 1
            elif byte in (b"}", b"]"):
                depth -= 1
                if not depth:
                    return token.end(), 0
            elif byte == b'"':  # a string that the buffer's end cuts
                return token.start(), depth
        return len(self._buffer), depth

    def _one(self, element: bytes, decode: Callable[[bytes], Shape]) -> Shape | None:
        try:
            return decode(element)
        except msgspec.ValidationError:
            return None  # valid JSON of another shape
        except UNDECODABLE:
            repaired = self._repair(element)
        try:
            return decode(repaired)
        except UNDECODABLE:
            if b"\\u" not in repaired and repaired.isascii():
                return None
        try:  # half a surrogate pair, or bytes that are not UTF-8: the standard library is less strict
            lenient = json.loads(repaired.decode("utf-8", "replace"))
            return decode(well_formed(json.dumps(lenient, ensure_ascii=False)).encode())
        except UNDECODABLE:
            return None

    def _run(self, elements: bytes, decode: Callable[[bytes], list[Shape]]) -> list[Shape] | None:
        try:
            return decode(elements)
        except UNDECODABLE:
            repaired = self._repair(elements)
        try:
            return None if repaired == elements else decode(repaired)
        except UNDECODABLE:
            return None

    def _fill(self) -> bool:
        """Read on, twice as much each time that a value goes beyond the buffer. False at the stream's end."""
        rest = self._buffer[self._at :]
        more = self._stream.read(max(CHUNK, len(rest)))
        self._behind += self._at
        self._buffer, self._at, self._ended = rest + more, 0, not more
        return bool(more)
