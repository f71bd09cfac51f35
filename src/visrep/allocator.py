"""Keeping the memory of one update for the next.

glibc gives every freed block of more than a few megabytes back to the kernel, and an update frees gigabytes: the next
one pays for clearing and mapping the same pages again. Keeping them, in large pages where the kernel allows it, saves a
quarter to a half of an update's time on a CPU (benchmarks/update).
"""

from __future__ import annotations

import ctypes
import os
import sys

# Parameters of glibc's mallopt (malloc.h).
_M_TRIM_THRESHOLD = -1
_M_MMAP_MAX = -4
_LARGEST_INT = 2**31 - 1


def keep_freed_memory() -> bool:
    """Tell the C allocator and torch to keep and reuse memory; the process then stays at its peak size.

    Call it at the start of a process, before the first large tensor. Does nothing outside Linux with glibc.

    Returns:
        Whether the allocator took the settings.
    """
    if not sys.platform.startswith("linux"):
        return False
    os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")  # torch: ask for large pages under CPU tensors
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # a C library other than glibc
        return False
    # Large blocks from the heap instead of mappings of their own, and no trimming of the heap's end.
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, _LARGEST_INT))
