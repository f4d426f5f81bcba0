"""Signals that a process is stopped and hurried by, heard whatever its threads are doing.

Python runs a signal's handler in the main thread, when that next runs Python code. Where the main
thread waits for a lock and the kernel hands the signal to another thread, that is never; and an
Event that a handler sets may be the one whose lock the main thread holds just then. So the handlers
here do nothing: the interpreter writes each signal's number to a pipe at once, from whichever
thread has it (signal.set_wakeup_fd), and a thread of its own reads it there.
"""

import os
import signal
import threading
from collections.abc import Callable, Mapping


def on_signals(actions: Mapping[signal.Signals, Callable[[], object]]) -> None:
    """Call these when the signals come, one after the other, in a thread of their own.

    To be called once in a process, in its main thread.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in actions:
        signal.signal(number, lambda *_: None)
    threading.Thread(target=_hear, args=(reader, actions), name="signals", daemon=True).start()


def _hear(reader: int, actions: Mapping[signal.Signals, Callable[[], object]]) -> None:
    while numbers := os.read(reader, 64):
        for number in numbers:
            act = actions.get(signal.Signals(number))
            if act is not None:
                act()
