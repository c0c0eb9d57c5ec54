"""Find, open and decode the files and zips of exports, and the files beside them.

Zips are read in place; nothing is unpacked to disk.
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
from replicate_deployment.chat_format import well_formed

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

HEAD = 64 * 1024  # bytes read for recognition
PIECE = 1024 * 1024  # bytes unpacked at a time
ENCRYPTED = 0x1  # bit 0 of a zip member's flags
# zlib can unpack piece by piece; bz2 and lzma return everything that a piece unpacks to, up to 1,000,000:1.
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
# Deflate reaches 1000:1 on zeros and about 5:1 on chats; this leaves room for walls of one emoji. Records take some ten
# times as much memory as their text.
BOMB_RATIO, BOMB_SIZE = 200, 16 * 1024 * 1024

DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError)

OWN = frozenset(("extraction_report.json", "ghost.json"))  # one of these is in every folder that ghost wrote
# Files sent in a chat. Counted as attachments, never opened.
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
# X writes JSON behind a JavaScript assignment.
CHAT_SCRIPT = re.compile(r"direct-messages?(?:-group)?(?:-part\d+)?\.js")


@dataclass(frozen=True, slots=True)
class Source:
    """A file, or a member of a zip. `str()`, `name` and `parts` are safe to print; use `path` to open the file."""

    path: Path
    member: str = ""

    def __str__(self) -> str:
        return printable(f"{self.path}/{self.member}" if self.member else str(self.path))

    @property
    def parts(self) -> tuple[str, ...]:
        """Folders and file name; a zip counts as a folder, named without its suffix.

        In NFC: macOS decomposes names, and a chat must have the same title on every system.
        """
        path = self.path.absolute()
        parts = (*path.with_suffix("").parts, *PurePosixPath(self.member).parts) if self.member else path.parts
        return tuple(normalize("NFC", printable(part)) for part in parts)

    @property
    def name(self) -> str:
        return normalize("NFC", printable((PurePosixPath(self.member) if self.member else self.path).name))

    @property
    def is_attachment(self) -> bool:
        return Path(self.name).suffix.lower() in ATTACHMENTS and not CHAT_SCRIPT.fullmatch(self.name)

    def sibling(self, name: str) -> "Source | None":
        """The file at `name` (such as `../users.json`), relative to this file's folder or in the same zip; or None."""
        if not self.member:
            path = self.path.parent / name
            folder = self.path.absolute().parents[name.count("../")]
            return Source(path) if path.is_file() and not _leads_out(path, folder) else None
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
            # Files in /proc have size 0, too: some never end, others wait for an event.
            return self.path.open("rb") if self.path.stat().st_size else io.BytesIO()
        try:
            return io.BufferedReader(_Member(archive(self.path).open(self.member)), PIECE)
        except (ValueError, KeyError, RuntimeError) as error:  # the zip's directory does not match its content
            if isinstance(error, NotImplementedError):
                raise
            raise zipfile.BadZipFile(str(error)) from None


class _Member(io.RawIOBase):
    """A member of a zip, unpacked piece by piece. zipfile's own read() of a whole member unpacks up to 2 GiB before it
    checks the size in the directory."""

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
    """The open zip at `path`. Do not close it. Raises DAMAGE, OSError or ValueError."""
    status = path.stat()
    return _archive(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=1)  # reading a directory of 100,000 members takes a second, and each member needs it
def _archive(path: Path, modified: int, size: int) -> zipfile.ZipFile:
    try:  # names without the UTF-8 flag should be cp437, but macOS and Android write UTF-8
        return zipfile.ZipFile(path, metadata_encoding="utf-8")
    except UnicodeDecodeError:
        return zipfile.ZipFile(path)


class OwnFolder(NamedTuple):
    """A folder under a given path that an earlier `ghost extract` or `ghost prepare` wrote."""

    path: Path


def discover(paths: Iterable[Path]) -> Iterator[Source | OwnFolder | ExportError]:
    """Every file under `paths` and every member of zips, in natural order; an ExportError for each refused file.

    Raises UsageError when a path does not exist.
    """
    seen: set[Path] = set()
    for path in paths:
        if not os.path.exists(path):  # Path.exists raises if the name is too long, for example from `$(cat chat.txt)`
            raise UsageError(f"{printable(str(path))}: no such file or folder")
        files, own, refused = _files(path)
        yield from own
        yield from refused
        for file in sorted(files, key=lambda found: natural(str(found))):
            if file.resolve() in seen:  # given twice, or given with its folder
                continue
            seen.add(file.resolve())
            if file.suffix.lower() == ".zip" or (not file.suffix and zipfile.is_zipfile(file)):
                yield from _members(file)
            else:
                yield Source(file)


def natural(name: str) -> list[tuple[int, str]]:
    """A sort key that puts message_10 after message_2."""
    return [(int(piece), "") if piece.isdecimal() else (-1, piece) for piece in re.split(r"(\d{1,18})", name)]


def _files(path: Path) -> tuple[list[Path], list[OwnFolder], list[ExportError]]:
    """The files at or under a path, without hidden files; the folders that ghost wrote; an error for each unreadable
    entry.

    Follows the path itself if it is a link, and below it links that stay below it. Enters each folder once, so a link
    to a parent folder cannot loop.
    """
    files: list[Path] = []
    own: list[OwnFolder] = []
    refused: list[ExportError] = []
    entered: set[tuple[int, int]] = set()
    waiting = [path]
    while waiting:
        found = waiting.pop()
        try:
            if found != path and found.is_symlink() and _leads_out(found, path):
                refused.append(
                    ExportError(f"{Source(found)}: a link that leads out of the folder; pass what it leads to")
                )
                continue
            status = found.stat()
            if stat.S_ISREG(status.st_mode):
                files.append(found)
            elif not stat.S_ISDIR(status.st_mode):
                refused.append(ExportError(f"{Source(found)}: a pipe, socket or device; save it as a file"))
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


def _leads_out(path: Path, folder: Path) -> bool:
    """Whether links make a path lead to what is not below the folder."""
    return not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


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
    """Why a member of a zip of `size` bytes is refused, or None."""
    if not member.filename:
        return "a member without a name; refused"
    if member.filename.startswith(("/", "\\")) or ".." in _parts(member):
        return "a path that leaves the zip; refused"
    if member.flag_bits & ENCRYPTED:
        return "encrypted; unzip it with its password and pass the folder"
    if member.filename.lower().endswith(".zip"):
        return "a zip inside a zip; unpack it and pass it by itself"
    if member.compress_type not in METHODS:
        return "compressed with an unsupported method; unzip it and pass the folder"
    packed = min(member.compress_size, size)  # the directory may state a false size
    if _is_bomb(member.file_size, packed):
        return f"{member.file_size // max(packed, 1):,} times larger than its compressed size; refused as a zip bomb"
    return None


def _parts(member: zipfile.ZipInfo) -> list[str]:
    return re.split(r"[/\\]", member.filename)


def _is_bomb(size: int, packed: int) -> bool:
    return size > BOMB_SIZE and size > BOMB_RATIO * packed


STRAY = 0.01  # share of NUL characters beyond which a file is not text


def decode(source: Source, advice: str) -> str:
    """Read the whole file as UTF-8, or as UTF-16 if it has a byte order mark; line breaks are kept.

    advice  what to do if it is neither, for the error: "save it as UTF-8"
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
    return text


def decode_text(source: Source, advice: str) -> tuple[str, dict[str, str]]:
    """`decode` without the few NUL characters that a damaged disk leaves, and a note for the report if there were any.

    Raises ExportError, too, when there are many.
    """
    text = decode(source, advice)
    nuls = text.count("\0")
    if nuls > max(1, STRAY * len(text)):
        raise ExportError(f"{source}: {nuls:,} NUL bytes, so it is damaged or not text; {advice}")
    return text.replace("\0", ""), {"note": f"dropped {nuls:,} NUL byte{'s' * (nuls > 1)}"} if nuls else {}


def beside(source: Source, pattern: str) -> list[Source]:
    """The files that match `pattern` (`../../Users/*/user_info.json`), relative to this file's folder or zip."""
    if not source.member:
        folder = source.path.absolute().parent
        while pattern.startswith("../"):
            folder, pattern = folder.parent, pattern.removeprefix("../")
        found = sorted(folder.glob(pattern))
        return [Source(path) for path in found if path.is_file() and not _leads_out(path, folder)]
    wanted = posixpath.normpath(posixpath.join(glob.escape(posixpath.dirname(source.member)), pattern))
    depth, matches = wanted.count("/"), re.compile(fnmatch.translate(wanted)).match
    try:
        members = archive(source.path).namelist()
    except (*DAMAGE, OSError, ValueError):
        return []
    return [Source(source.path, name) for name in sorted(members) if name.count("/") == depth and matches(name)]


def companion(source: Source | None) -> Any:
    """The JSON of a file beside a chat; None if it is missing or unreadable."""
    if source is None:
        return None
    try:
        with source.open() as stream:
            return json.loads(stream.read())
    except (ExportError, ValueError, RecursionError):
        return None


def objects(value: Any) -> list[dict[str, Any]]:
    """The dicts in a list; other elements are dropped. Empty if `value` is not a list."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def mapping(value: Any) -> dict[str, Any]:
    """The value if it is a JSON object, else an empty one."""
    return value if isinstance(value, dict) else {}


def string(value: Any) -> str:
    """The value in well-formed Unicode if it is a string, else an empty one."""
    return well_formed(value) if isinstance(value, str) else ""


def reactions(value: Any) -> int:
    """How many reactions a list of them stands for: each is one, or as many as its `count` says."""
    counts = (each.get("count", 1) for each in objects(value)) if value else ()
    return sum(count for count in counts if isinstance(count, int) and count > 0)


# Clean text for the CSV: undo encoding damage, change nothing else.
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def line_breaks(text: str) -> str:
    """Convert CRLF and CR to LF."""
    return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text


def printable(name: str) -> str:
    """A file name that is safe to print on one line.

    Bytes that are not UTF-8, line breaks and control characters (terminal escapes) become U+FFFD.
    """
    return CONTROL.sub("\ufffd", name.encode("utf-8", "surrogateescape").decode("utf-8", "replace"))
