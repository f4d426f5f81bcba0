"""A call's way over a client's channels: which is tried next, after what pause, and when to stop.

What no server answered is asked again, elsewhere first: a replica that stops or restarts costs its
callers an attempt, not an answer. What a server decided is not asked again, nor what might then
happen twice. Knows deadlines and channel numbers, not gRPC.
"""

import random
import time

from model.errors import PenchantError
from serving.errors import ServerUnavailable

AT_ONCE = 4
"""Attempts without a pause, as long as there are channels that have not been tried."""
AFTER_PAUSES = 3
"""Attempts after those: all that there is may be restarting."""
FIRST_PAUSE = 0.05
"""Seconds; the next is twice as long, and each is drawn from half to one and a half of that, so
that callers who lost one server do not come to the next all at once."""


class Attempts:
    """One call's attempts.

    start: the number of the channel to begin with. num_channels: how many there are; neighbours
    should lead to different servers. timeout: seconds for all attempts together. is_repeatable:
    whether asking twice does no harm.
    """

    __slots__ = ("_deadline", "_is_repeatable", "_num_channels", "_num_failed", "channel")

    def __init__(
        self, start: int, *, num_channels: int, timeout: float, is_repeatable: bool
    ) -> None:
        self.channel = start % num_channels
        self._num_channels, self._is_repeatable = num_channels, is_repeatable
        self._deadline, self._num_failed = time.monotonic() + timeout, 0

    @property
    def remaining(self) -> float:
        """Seconds that are left for the attempt; never quite 0, which gRPC takes for none."""
        return max(self._deadline - time.monotonic(), 0.001)

    def pause(self, error: PenchantError) -> float:
        """Seconds to wait before the next attempt, whose channel is then `channel`.

        Raises `error` where there is to be none.
        """
        at_once = min(self._num_channels, AT_ONCE)
        self._num_failed += 1
        if (
            not isinstance(error, ServerUnavailable)
            or not self._is_repeatable
            or self._num_failed == at_once + AFTER_PAUSES
        ):
            raise error
        self.channel = (self.channel + 1) % self._num_channels
        if self._num_failed < at_once:
            return 0.0
        pause: float = FIRST_PAUSE * 2.0 ** (self._num_failed - at_once) * random.uniform(0.5, 1.5)
        if time.monotonic() + pause >= self._deadline:
            raise error
        return pause
