"""Keeping the memory of one update for the next, in large pages.

glibc gives every freed block of more than a few megabytes back to the kernel, and an update frees gigabytes: the next
one pays for mapping and clearing the same pages again. On a virtual machine that is up to half of an update's time
(benchmarks/update measures it).
"""

from __future__ import annotations

import ctypes
import mmap
import os
import sys

# Parameters of glibc's mallopt (malloc.h).
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
# Larger blocks (a frame store) still get mappings of their own, which go back to the kernel when they are freed.
_LARGEST_KEPT_BYTES = 1 << 30
_ADVISED_BYTES = 8 << 30


def keep_freed_memory() -> bool:
    """Tell the C allocator and torch to keep and reuse blocks below 1 GiB; the process then stays at its peak size.

    Call it at the start of a process, before the first large tensor. Does nothing outside Linux with glibc. Changes
    no result. The environments' processes do not want it.

    Returns:
        Whether the allocator took the settings.
    """
    if not sys.platform.startswith("linux"):
        return False
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "mallopt"):  # a C library other than glibc
        return False
    kept = bool(libc.mallopt(_M_MMAP_THRESHOLD, _LARGEST_KEPT_BYTES)) and bool(libc.mallopt(_M_TRIM_THRESHOLD, -1))
    if kept:
        _advise_large_pages(libc)
    return kept


def _advise_large_pages(libc: ctypes.CDLL) -> None:
    """Reserve address space for the heap and mark it, so that all of it is mapped in large pages when first touched.

    torch marks its tensors too, but only those that nobody touched before. Reserving takes no memory.
    """
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    libc.free.argtypes = [ctypes.c_void_p]
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    size = _LARGEST_KEPT_BYTES // 2
    blocks = []
    for _ in range(min(_ADVISED_BYTES, physical // 2) // size):
        address = libc.malloc(size)
        if not address:
            break
        first = -(-address // mmap.PAGESIZE) * mmap.PAGESIZE
        libc.madvise(first, size - mmap.PAGESIZE, mmap.MADV_HUGEPAGE)  # refused where the kernel has none: no matter
        blocks.append(address)
    for address in blocks:
        libc.free(address)
