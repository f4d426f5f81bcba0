"""Locks between processes, which end with the process that holds them, however it ends."""

import fcntl
import os
from pathlib import Path


def lock_file(path: Path) -> int | None:
    """A descriptor that holds the lock of this name until it is closed; None where another process
    holds it. Child processes do not inherit it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor
