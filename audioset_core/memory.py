"""Giving freed memory back to the system."""

from __future__ import annotations

import ctypes


def give_back() -> None:
    """Hand what is free in glibc's heaps to the system; elsewhere nothing.

    A shard's arrays come from one thread and are freed by another. glibc keeps the holes for
    reuse, which over days looks like a leak: resident memory rose by 4 MB in 1,000 clips of half
    a second while what was in use stayed between 86 and 147 MB.
    """
    # By the process's own symbols: where the C library is another there is no such function.
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
