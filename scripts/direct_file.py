"""A large new file, written past the system's cache of pages.

Through the cache, 14.5 GB of weights push out what other programs keep there, and the kernel's work on the pages takes
as much of a processor as the arithmetic does. Linux can write without (O_DIRECT in open(2)), from aligned memory,
whole blocks; where that is not to be had, the file is written as any other.
"""

import errno
import mmap
import os
from pathlib import Path
from types import TracebackType
from typing import Self

AT_ONCE = 2**22  # bytes: a multiple of any disk's block
DIRECT = getattr(os, "O_DIRECT", 0)  # Linux only
BINARY = getattr(os, "O_BINARY", 0)  # Windows only, which else would write two bytes for each newline


class DirectFile:
    """`with DirectFile(path) as file: file.write(view)`. After the block, all of it is on the disk.

    Raises OSError as any file does; a full disk is noticed at the end at the latest.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> Self:
        self._memory = mmap.mmap(-1, AT_ONCE)  # a mapping begins where a page does
        self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | BINARY, 0o666)
        self._filled = 0
        self._direct = False
        self._past_the_cache(True)
        return self

    def write(self, view: memoryview) -> None:
        """`view` is bytes, and free to change afterwards."""
        while view:
            part = view[: AT_ONCE - self._filled]
            self._memory[self._filled : self._filled + len(part)] = part
            self._filled += len(part)
            view = view[len(part) :]
            if self._filled == AT_ONCE:
                self._put()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._past_the_cache(False)  # the rest is no whole number of blocks
                self._put()
                os.fsync(self._file)
        finally:
            os.close(self._file)

    def _put(self) -> None:
        left = memoryview(self._memory)[: self._filled]
        while left:
            try:
                left = left[os.write(self._file, left) :]
            except OSError as error:  # file systems that take the flag and then not the write
                if not self._direct or error.errno != errno.EINVAL:
                    raise
            if left:  # and does not begin with a block any more
                self._past_the_cache(False)
        self._filled = 0

    def _past_the_cache(self, wanted: bool) -> None:
        if not DIRECT or wanted == self._direct:
            return
        import fcntl  # not on Windows

        flags = fcntl.fcntl(self._file, fcntl.F_GETFL)
        try:
            fcntl.fcntl(self._file, fcntl.F_SETFL, flags | DIRECT if wanted else flags & ~DIRECT)
        except OSError:
            if not wanted:
                raise
            return  # this file system has no such thing
        self._direct = wanted
