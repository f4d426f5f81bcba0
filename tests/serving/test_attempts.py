"""A call's way over the channels: where it goes next, how long it waits, and when it gives up."""

import time

import pytest

from model.errors import PenchantError
from serving.attempts import AFTER_PAUSES, AT_ONCE, FIRST_PAUSE, Attempts
from serving.errors import (
    BadRequest,
    DeadlineExceeded,
    InternalError,
    Overloaded,
    ServerUnavailable,
    StoreUnavailable,
)

GONE = ServerUnavailable("gone")


def pauses(attempts: Attempts) -> tuple[list[int], list[float]]:
    """The channels that are tried until it gives up, and the pauses between."""
    channels, waited = [attempts.channel], []
    while True:
        try:
            waited.append(attempts.pause(GONE))
        except ServerUnavailable:
            return channels, waited
        channels.append(attempts.channel)


def test_every_channel_is_tried_at_once_and_then_after_pauses() -> None:
    channels, waited = pauses(Attempts(8, num_channels=3, timeout=60, is_repeatable=True))
    assert channels == [2, 0, 1, 2, 0, 1]
    assert waited[:2] == [0.0, 0.0]
    for i, pause in enumerate(waited[2:]):
        assert 0.5 * FIRST_PAUSE * 2**i <= pause <= 1.5 * FIRST_PAUSE * 2**i
    assert len(waited) == 2 + AFTER_PAUSES


def test_many_channels_are_not_all_tried() -> None:
    channels, waited = pauses(Attempts(0, num_channels=100, timeout=60, is_repeatable=True))
    assert channels == list(range(AT_ONCE + AFTER_PAUSES))
    assert waited.count(0.0) == AT_ONCE - 1


def test_one_channel_is_never_asked_again_without_a_pause() -> None:
    channels, waited = pauses(Attempts(5, num_channels=1, timeout=60, is_repeatable=True))
    assert channels == [0] * (1 + AFTER_PAUSES) and min(waited) > 0


def test_no_pause_goes_past_the_deadline() -> None:
    attempts = Attempts(0, num_channels=2, timeout=0.02, is_repeatable=True)
    assert attempts.pause(GONE) == 0.0
    with pytest.raises(ServerUnavailable):
        attempts.pause(GONE)
    time.sleep(0.03)
    assert 0 < attempts.remaining < 0.01


@pytest.mark.parametrize(
    "error",
    [
        BadRequest("k"),
        Overloaded("full", retry_after=0.1),
        StoreUnavailable("disk"),
        DeadlineExceeded("late"),
        InternalError("defect"),
    ],
)
def test_what_a_server_decided_is_not_asked_again(error: PenchantError) -> None:
    with pytest.raises(type(error)):
        Attempts(0, num_channels=4, timeout=60, is_repeatable=True).pause(error)


def test_what_may_not_happen_twice_is_not_asked_again() -> None:
    with pytest.raises(ServerUnavailable):
        Attempts(0, num_channels=4, timeout=60, is_repeatable=False).pause(GONE)
