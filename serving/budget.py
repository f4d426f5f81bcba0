"""How long a call may take, by what gRPC says of it."""

import time
from typing import Protocol

from serving.domain import Budget

DEFAULT_DEADLINE = 5.0
"""Seconds that a call without a deadline of its own may take."""
_NO_DEADLINE = 1e12
"""gRPC says of such a call that it has 300 thousand million years left."""


class Context(Protocol):
    """What a servicer needs of a gRPC context."""

    def time_remaining(self) -> float | None:
        """Seconds until the caller's deadline."""

    def is_active(self) -> bool:
        """Whether the caller still waits."""


def budget(context: Context) -> Budget:
    """The budget of a call."""
    remaining = context.time_remaining()
    if remaining is None or remaining > _NO_DEADLINE:
        remaining = DEFAULT_DEADLINE
    return Budget(time.monotonic() + remaining, context.is_active)
