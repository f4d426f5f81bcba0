"""Memory that was freed goes back to the system; glibc keeps it, for the process to use again."""

import ctypes
import sys


def give_back() -> None:
    """Give freed memory back. Costs some milliseconds; without glibc it does nothing."""
    if not sys.platform.startswith("linux"):
        return
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
