"""Keeps freed memory in the process, since on a CPU each refinement step allocates the same sizes again."""

from __future__ import annotations

import ctypes

__all__ = ["keep_freed_memory"]

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # from glibc's malloc.h


def keep_freed_memory() -> bool:
    """Tells glibc's allocator to return no memory to the system before the process ends.

    By default an array of some megabytes is mapped again at each allocation, and each of its pages is cleared at first
    access (see docs/engine.md). The price is that the process stays at its peak size. This affects the whole process,
    so the command does it, not the library.

    Returns:
        Whether the allocator is glibc's (Linux); on other systems nothing changes.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library; no handle to the process itself
        return False
    done = [mallopt(_MMAP_MAX, 0), mallopt(_TRIM_THRESHOLD, 2**31 - 1), mallopt(_TOP_PAD, 64 * 2**20)]
    return all(done)
