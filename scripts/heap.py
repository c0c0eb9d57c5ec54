"""That freed memory goes back to the system at once."""

import ctypes
import sys

LARGE = 2**20  # bytes
M_MMAP_THRESHOLD = -3  # glibc's malloc.h


def give_back_large_blocks() -> None:
    """For the whole process. glibc only; elsewhere nothing happens.

    glibc keeps blocks of up to 32 MB in its heap once one of them was freed, and between them grow gaps that fit
    nothing: the proof of a 7B model was half a gigabyte larger at its peak. Asked for singly, they leave none.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
        if mallopt is not None:
            mallopt(M_MMAP_THRESHOLD, LARGE)
