"""Memory that is freed stays with the process: on a CPU, a refinement step asks for the same again at once."""

from __future__ import annotations

import ctypes

__all__ = ["keep_freed_memory"]

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # from glibc's malloc.h


def keep_freed_memory() -> bool:
    """Tells glibc's allocator to give no memory back to the system before the process ends.

    By default an array of some megabytes, freed and asked for again, is mapped anew each time, and every page of it is
    cleared when it is touched (see docs/engine.md). The price is that the process stays at its peak
    size. It concerns the whole process, so the command does it, not the library.

    Returns:
        Whether there is such an allocator (Linux with glibc); elsewhere nothing is changed.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library; no handle to the process itself
        return False
    done = [mallopt(_MMAP_MAX, 0), mallopt(_TRIM_THRESHOLD, 2**31 - 1), mallopt(_TOP_PAD, 64 * 2**20)]
    return all(done)
