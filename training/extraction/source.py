"""Where exports lie: files, folders and zips. A zip is read in place; nothing is ever unpacked to disk."""

import lzma
import posixpath
import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from training.errors import ExportError, UsageError
from training.extraction.text import printable

HEAD = 64 * 1024  # bytes that recognition looks at
ENCRYPTED = 0x1  # bit 0 of a zip member's flags
# Deflate reaches 1000:1 on zeros and about 5:1 on chats; this leaves room for walls of one emoji.
BOMB_RATIO, BOMB_SIZE = 200, 64 * 1024 * 1024

DAMAGE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError)

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
        """Folders and file name, a zip counting as a folder under its name without the ending."""
        path = self.path.absolute()
        parts = (*path.with_suffix("").parts, *PurePosixPath(self.member).parts) if self.member else path.parts
        return tuple(map(printable, parts))

    @property
    def name(self) -> str:
        return self.parts[-1]

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
            with zipfile.ZipFile(self.path) as archive:
                return Source(self.path, member) if member in archive.namelist() else None
        except (*DAMAGE, OSError, ValueError):
            return None

    @contextmanager
    def open(self) -> Iterator[IO[bytes]]:
        """Open for reading. Raises ExportError when the file or the zip member cannot be read."""
        try:
            if not self.member:
                with self.path.open("rb") as stream:
                    yield stream
            else:
                with zipfile.ZipFile(self.path) as archive, archive.open(self.member) as stream:
                    yield stream
        except DAMAGE as error:
            raise ExportError(f"{self}: damaged or unknown compression ({error}); export the chat again") from None
        except OSError as error:
            raise ExportError(f"{self}: cannot be read ({error.strerror or error})") from None

    def head(self) -> bytes:
        with self.open() as stream:
            return stream.read(HEAD)


def discover(paths: Iterable[Path]) -> Iterator[Source | ExportError]:
    """Every file under `paths`, folders in natural order, zips opened; what must not be read comes as an ExportError.

    Raises UsageError when a path does not exist.
    """
    seen: set[Path] = set()
    for path in paths:
        if not path.exists():
            raise UsageError(f"{path}: no such file or folder")
        for file in sorted(_files(path), key=lambda found: natural(str(found))):
            if file.resolve() in seen:  # the same file named twice, or a folder and a file in it
                continue
            seen.add(file.resolve())
            if file.suffix.lower() == ".zip" or (zipfile.is_zipfile(file) and not file.suffix):
                yield from _members(file)
            else:
                yield Source(file)


def natural(name: str) -> list[tuple[int, str]]:
    """A sort key under which message_10 follows message_2."""
    return [(int(piece), "") if piece.isdecimal() else (-1, piece) for piece in re.split(r"(\d{1,18})", name)]


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
        return
    for found in path.rglob("*"):
        if found.is_file() and not any(part.startswith(".") for part in found.relative_to(path).parts):
            yield found


def _members(path: Path) -> Iterator[Source | ExportError]:
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (*DAMAGE, OSError, ValueError) as error:
        yield ExportError(f"{Source(path)}: not a readable zip ({error}); export the chat again")
        return
    for member in sorted(members, key=lambda entry: natural(entry.filename)):
        source = Source(path, member.filename)
        if member.is_dir() or member.filename.startswith("__MACOSX/"):
            continue
        if member.filename.startswith(("/", "\\")) or ".." in re.split(r"[/\\]", member.filename):
            yield ExportError(f"{source}: a path that leaves the zip; refused")
        elif member.flag_bits & ENCRYPTED:
            yield ExportError(f"{source}: encrypted; unzip it with its password and pass the folder")
        elif member.filename.lower().endswith(".zip"):
            yield ExportError(f"{source}: a zip inside a zip; take it out and pass it by itself")
        elif member.file_size > BOMB_SIZE and member.file_size > BOMB_RATIO * member.compress_size:
            ratio = member.file_size // max(member.compress_size, 1)
            yield ExportError(f"{source}: {ratio:,} times larger than its compressed size; refused as a zip bomb")
        else:
            yield source
