"""Files and zips of exports: found, opened, decoded, and the files that lie beside them.

A zip is read in place; nothing is ever unpacked to disk.
"""

import fnmatch
import glob
import io
import json
import os
import posixpath
import re
import stat
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any, NamedTuple
from unicodedata import normalize

from ghost.errors import ExportError, UsageError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

HEAD = 64 * 1024  # bytes that recognition looks at
PIECE = 1024 * 1024  # bytes that are unpacked at a time
ENCRYPTED = 0x1  # bit 0 of a zip member's flags
# zlib is asked for a piece at a time; bz2 and lzma hand over whatever a piece unpacks to, which reaches 1,000,000:1.
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
# Deflate reaches 1000:1 on zeros and about 5:1 on chats; this leaves room for walls of one emoji.
BOMB_RATIO, BOMB_SIZE = 200, 64 * 1024 * 1024

DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError)

OWN = frozenset(("extraction_report.json", "ghost.json"))  # in every folder that a stage of ours wrote
# What travels with a chat and is not one. Counted as attachments, never opened.
ATTACHMENTS = frozenset(
    f".{ending}"
    for endings in (
        ("jpg", "jpeg", "png", "gif", "webp", "heic", "heif", "bmp", "svg", "ico", "tgs"),
        ("mp4", "mov", "3gp", "webm", "mkv", "avi"),
        ("opus", "ogg", "oga", "mp3", "m4a", "aac", "wav", "amr"),
        ("vcf", "pdf", "doc", "docx", "xls", "xlsx", "ppt", "pptx", "apk", "ics"),
        ("css", "js", "ttf", "woff", "woff2"),
    )
    for ending in endings
)


@dataclass(frozen=True, slots=True)
class Source:
    """A file, or a member of a zip. `path` opens it; its names in words are printable."""

    path: Path
    member: str = ""

    def __str__(self) -> str:
        return printable(f"{self.path}/{self.member}" if self.member else str(self.path))

    @property
    def parts(self) -> tuple[str, ...]:
        """Folders and file name, a zip counting as a folder under its name without the ending.

        Composed (NFC): Macs write names decomposed, and one chat's title is one whatever the phone.
        """
        path = self.path.absolute()
        parts = (*path.with_suffix("").parts, *PurePosixPath(self.member).parts) if self.member else path.parts
        return tuple(normalize("NFC", printable(part)) for part in parts)

    @property
    def name(self) -> str:
        return normalize("NFC", printable((PurePosixPath(self.member) if self.member else self.path).name))

    @property
    def is_attachment(self) -> bool:
        return Path(self.name).suffix.lower() in ATTACHMENTS

    def sibling(self, name: str) -> "Source | None":
        """The file at `name` relative to this one's folder (`../users.json` too), in the same zip; None without one."""
        if not self.member:
            path = self.path.parent / name
            return Source(path) if path.is_file() else None
        member = posixpath.normpath(posixpath.join(posixpath.dirname(self.member), name))
        try:
            archive(self.path).getinfo(member)
        except (*DAMAGE, OSError, ValueError, KeyError):
            return None
        return Source(self.path, member)

    @contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        """Open for reading. Raises ExportError when the file or the zip member cannot be read."""
        try:
            with self._stream() as stream:
                yield stream
        except DAMAGE as error:
            raise ExportError(f"{self}: damaged or unknown compression ({error}); export the chat again") from None
        except OSError as error:
            raise ExportError(f"{self}: cannot be read ({error.strerror or error})") from None

    def head(self) -> bytes:
        with self.open() as stream:
            return stream.read(HEAD)

    def _stream(self) -> IO[bytes]:
        if not self.member:
            return self.path.open("rb")
        try:
            return io.BufferedReader(_Member(archive(self.path).open(self.member)), PIECE)
        except (ValueError, KeyError, RuntimeError) as error:  # a directory that contradicts the file, each in its way
            if isinstance(error, NotImplementedError):
                raise
            raise zipfile.BadZipFile(str(error)) from None


class _Member(io.RawIOBase):
    """A zip's member, unpacked a piece at a time: read as a whole, zipfile first unpacks 2 GiB and then looks whether
    the directory promised as much."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        view = memoryview(buffer)
        piece = self._stream.read(min(len(view), PIECE))
        view[: len(piece)] = piece
        return len(piece)

    def readall(self) -> bytes:
        return b"".join(iter(lambda: self._stream.read(PIECE), b""))

    def close(self) -> None:
        self._stream.close()
        super().close()


def archive(path: Path) -> zipfile.ZipFile:
    """The zip at `path`, open; not to be closed. Raises DAMAGE, OSError or ValueError."""
    status = path.stat()
    return _archive(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=1)  # reading the directory of 100,000 members takes a second, and each member needs it
def _archive(path: Path, modified: int, size: int) -> zipfile.ZipFile:
    try:  # without a flag that says so names are cp437, but Macs and Android write UTF-8
        return zipfile.ZipFile(path, metadata_encoding="utf-8")
    except UnicodeDecodeError:
        return zipfile.ZipFile(path)


class OwnFolder(NamedTuple):
    """A folder that an earlier `ghost extract` or `prepare` wrote below the one that was named."""

    path: Path


def discover(paths: Iterable[Path]) -> Iterator[Source | OwnFolder | ExportError]:
    """Every file under `paths`, folders in natural order, zips opened; what must not be read comes as an ExportError.

    Raises UsageError when a path does not exist.
    """
    seen: set[Path] = set()
    for path in paths:
        if not _exists(path):
            raise UsageError(f"{printable(str(path))}: no such file or folder")
        files, own, refused = _files(path)
        yield from own
        yield from refused
        for file in sorted(files, key=lambda found: natural(str(found))):
            if file.resolve() in seen:  # the same file named twice, or a folder and a file in it
                continue
            seen.add(file.resolve())
            if file.suffix.lower() == ".zip" or (not file.suffix and zipfile.is_zipfile(file)):
                yield from _members(file)
            else:
                yield Source(file)


def natural(name: str) -> list[tuple[int, str]]:
    """A sort key under which message_10 follows message_2."""
    return [(int(piece), "") if piece.isdecimal() else (-1, piece) for piece in re.split(r"(\d{1,18})", name)]


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # a name that is too long: somebody's `$(cat chat.txt)`
        return False


def _files(path: Path) -> tuple[list[Path], list[OwnFolder], list[ExportError]]:
    """The files at or under a path, hidden ones and our own output left out, and a line for each thing that cannot be
    looked into.

    Links are followed, each folder is entered once: a link to a folder above ends nothing.
    """
    files: list[Path] = []
    own: list[OwnFolder] = []
    refused: list[ExportError] = []
    entered: set[tuple[int, int]] = set()
    waiting = [path]
    while waiting:
        found = waiting.pop()
        try:
            status = found.stat()
            if stat.S_ISREG(status.st_mode):
                files.append(found)
            elif not stat.S_ISDIR(status.st_mode):
                refused.append(ExportError(f"{Source(found)}: no file but a pipe, socket or device; save it as a file"))
            elif (status.st_dev, status.st_ino) not in entered:
                entered.add((status.st_dev, status.st_ino))
                names = os.listdir(found)
                if found != path and not OWN.isdisjoint(names):
                    own.append(OwnFolder(found))
                else:
                    waiting += (found / name for name in names if not name.startswith("."))
        except OSError as error:
            refused.append(ExportError(f"{Source(found)}: cannot be read ({error.strerror or error})"))
    return files, own, refused


def _members(path: Path) -> Iterator[Source | ExportError]:
    try:
        members = archive(path).infolist()
        size = path.stat().st_size
    except (*DAMAGE, OSError, ValueError) as error:
        yield ExportError(f"{Source(path)}: not a readable zip ({error}); export the chat again")
        return
    readable = []
    last = {member.filename: index for index, member in enumerate(members)}
    for index, member in enumerate(members):
        if member.filename.endswith("/") or any(part.startswith(".") and part.strip(".") for part in _parts(member)):
            continue
        if member.filename.startswith("__MACOSX/"):
            continue
        refusal = (
            "another member of this name follows; refused" if last[member.filename] > index else _refusal(member, size)
        )
        if refusal:
            yield ExportError(f"{Source(path, member.filename)}: {refusal}")
        else:
            readable.append(member)
    if _is_bomb(sum(member.file_size for member in readable), size):
        yield ExportError(
            f"{Source(path)}: together its files are over {BOMB_RATIO} times its size; refused as a zip bomb"
        )
        return
    for member in sorted(readable, key=lambda entry: natural(entry.filename)):
        yield Source(path, member.filename)


def _refusal(member: zipfile.ZipInfo, size: int) -> str | None:
    """Why a member of a zip of `size` bytes must not be read, or None."""
    if not member.filename:
        return "a member without a name; refused"
    if member.filename.startswith(("/", "\\")) or ".." in _parts(member):
        return "a path that leaves the zip; refused"
    if member.flag_bits & ENCRYPTED:
        return "encrypted; unzip it with its password and pass the folder"
    if member.filename.lower().endswith(".zip"):
        return "a zip inside a zip; take it out and pass it by itself"
    if member.compress_type not in METHODS:
        return "compressed in a way that exports never are; unzip it and pass the folder"
    packed = min(member.compress_size, size)  # what the directory claims may be false
    if _is_bomb(member.file_size, packed):
        return f"{member.file_size // max(packed, 1):,} times larger than its compressed size; refused as a zip bomb"
    return None


def _parts(member: zipfile.ZipInfo) -> list[str]:
    return re.split(r"[/\\]", member.filename)


def _is_bomb(size: int, packed: int) -> bool:
    return size > BOMB_SIZE and size > BOMB_RATIO * packed


def decode(source: Source, advice: str, may_hold_nul: bool = False) -> str:
    """The whole file as text: UTF-8, or UTF-16 by its mark; line ends as they are.

    advice  what to do about a file that is neither: "save it as UTF-8"
    Raises ExportError.
    """
    with source.open() as stream:
        content = stream.read()
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        name = "UTF-16" if encoding == "utf-16" else "UTF-8"
        raise ExportError(f"{source}: not {name} at byte {error.start:,}; {advice}") from None
    if "\0" in text and not may_hold_nul:
        raise ExportError(f"{source}: holds NUL bytes, so it is damaged or no text; {advice}")
    return text


def beside(source: Source, pattern: str) -> list[Source]:
    """The files that match `pattern` from the source's folder (`../../Users/*/user_info.json`), in the same zip."""
    if not source.member:
        folder = source.path.absolute().parent
        while pattern.startswith("../"):
            folder, pattern = folder.parent, pattern.removeprefix("../")
        return [Source(path) for path in sorted(folder.glob(pattern)) if path.is_file()]
    wanted = posixpath.normpath(posixpath.join(glob.escape(posixpath.dirname(source.member)), pattern))
    depth, matches = wanted.count("/"), re.compile(fnmatch.translate(wanted)).match
    try:
        members = archive(source.path).namelist()
    except (*DAMAGE, OSError, ValueError):
        return []
    return [Source(source.path, name) for name in sorted(members) if name.count("/") == depth and matches(name)]


def companion(source: Source | None) -> Any:
    """The JSON of a file that lies beside a chat; None where there is none or it cannot be read."""
    if source is None:
        return None
    try:
        with source.open() as stream:
            return json.loads(stream.read())
    except (ExportError, ValueError, RecursionError):
        return None


def objects(value: Any) -> list[dict[str, Any]]:
    """The objects of a list that should hold nothing else."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


# Text as it goes into the CSV: what the person wrote, with only the transport's damage undone.
LONE_SURROGATE = re.compile("[\ud800-\udfff]")
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def line_breaks(text: str) -> str:
    """CRLF and CR become LF: how a line break is stored is the phone's choice, that there is one is the writer's."""
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def well_formed(text: str) -> str:
    """JSON can hold half of a surrogate pair, UTF-8 cannot: join what belongs together, mark what is cut."""
    if LONE_SURROGATE.search(text):
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def printable(name: str) -> str:
    """A file's name as one line of text.

    On disk it is bytes, and bytes that are not UTF-8 reach Python as lone surrogates; it may also hold line breaks and
    the escapes that move a terminal's cursor. Each of these becomes U+FFFD.
    """
    return CONTROL.sub("\ufffd", name.encode("utf-8", "surrogateescape").decode("utf-8", "replace"))
