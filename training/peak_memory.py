"""How much memory a piece of work takes at its most, by the kernel's own account (Linux alone)."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_RESET, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


@dataclass(slots=True)
class PeakMemory:
    """What was found out, once the work is done."""

    num_bytes: int | None = None
    """The most that was resident beyond what was at the start; None where nobody can tell."""


@contextmanager
def peak_memory() -> Iterator[PeakMemory]:
    """Measure the work of the block. One at a time in a process: the kernel keeps one peak.

    getrusage's peak is that of the whole life of the process, which a training or an export before
    the block has often raised beyond it; here it is reset first (proc_pid_clear_refs(5), value 5).
    """
    peak = PeakMemory()
    try:
        # What was freed and is still held would serve the block unseen.
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
        _RESET.write_text("5")
    except OSError:  # no Linux, or no right
        yield peak
        return
    before = _resident("VmRSS")
    yield peak
    peak.num_bytes = max(_resident("VmHWM") - before, 0)


def _resident(field: str) -> int:
    """A size in /proc/self/status, in bytes."""
    lines = _STATUS.read_text().splitlines()
    kibibytes = next(line.split()[1] for line in lines if line.startswith(f"{field}:"))
    return int(kibibytes) * 1024
