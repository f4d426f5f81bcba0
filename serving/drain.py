"""How a worker leaves: its callers go elsewhere first, then it stops.

`grpc.Server.stop` ends the calls that arrive before a client has heard of it as CANCELLED, which
clients do not retry (github.com/grpc/grpc/issues/41785). So it is called when nobody asks any more:

1. Health says NOT_SERVING. Load balancers, and clients that watch health (ours do), look away.
2. The listening socket is shut: new connections go to other workers and other replicas. The old
   ones are served on; each is closed by GOAWAY when it reaches the server's
   maximum age.
3. When no call has come for a while and none is in flight, or every connection has had its age,
   the server is stopped.

Knows nothing of health, of calls, or of what a server serves.
"""

import os
import signal
import socket
import threading
import time
from collections.abc import Callable

HURRY = signal.SIGUSR1
"""Tells a worker that drains not to wait for its callers to go. Not a second SIGTERM: service
managers send that to the supervisor and to the workers alike."""
QUIET_SECONDS = 0.3
"""Without a call for so long, a worker's callers have gone."""
_POLL = 0.02


def longest_wait(max_connection_age: float) -> float:
    """Seconds after which every connection has been closed by its age: gRPC draws each age up to a
    tenth above what it is told, and a GOAWAY takes a round trip, on a busy machine a while more."""
    return 1.1 * max_connection_age + 1.0


def wait_until_quiet(
    num_in_flight: Callable[[], int],
    num_begun: Callable[[], int],
    *,
    patience: float,
    hurry: threading.Event,
) -> bool:
    """Wait until no call is in flight and none has begun for QUIET_SECONDS.

    patience: seconds after which it is given up. hurry: ends it at once. Returns whether it became
    quiet.
    """
    give_up = time.monotonic() + patience
    begun, since = num_begun(), time.monotonic()
    while time.monotonic() - since < QUIET_SECONDS:
        if time.monotonic() > give_up or hurry.wait(_POLL):
            return False
        if num_in_flight() or num_begun() != begun:
            begun, since = num_begun(), time.monotonic()
    return True


def stop_listening(port: int) -> bool:
    """Shut this process's listening sockets on a port; connections that are there stay.

    gRPC has no call for it, so they are looked for among the open files: on Linux, where shutting
    a listening socket takes it out of its SO_REUSEPORT group at once. Returns whether there was
    one; False elsewhere, where new connections go on coming until the server is stopped.
    """
    try:
        numbers = [int(name) for name in os.listdir("/proc/self/fd")]
    except FileNotFoundError:
        return False
    return sum(_shut_if_listening(number, port) for number in numbers) > 0


def _shut_if_listening(number: int, port: int) -> bool:
    """Shut an open file if it is such a socket. It stays its owner's to close."""
    try:
        opened = socket.socket(fileno=number)
    except OSError:  # no socket, or closed meanwhile
        return False
    try:
        if opened.family not in (socket.AF_INET, socket.AF_INET6):
            return False
        if not opened.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            return False
        if opened.getsockname()[1] != port:
            return False
        opened.shutdown(socket.SHUT_RDWR)
        return True
    except OSError:
        return False
    finally:
        opened.detach()
