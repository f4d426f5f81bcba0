"""A process that was started for another one ends with it: the end of stdin says that it is gone.

However the parent ended, even by SIGKILL, the kernel closes its end of the pipe. So end the
supervisor's workers with it, and a server with the program that started it.
"""

import sys
import threading


def stop_with_parent(stopping: threading.Event) -> None:
    """Set the event once stdin has ended; watched in a thread of its own."""
    threading.Thread(target=_watch_stdin, args=(stopping,), daemon=True).start()


def _watch_stdin(stopping: threading.Event) -> None:
    while sys.stdin.read(4096):
        pass
    stopping.set()
