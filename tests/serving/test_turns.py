"""Turns, with threads that meet at known points."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

from serving.turns import Turns


def test_those_who_wait_have_their_turn_in_order() -> None:
    turns, order = Turns(), []

    def work(number: int) -> None:
        assert turns.take(10)
        order.append(number)
        turns.give()

    assert turns.take(0) and not turns.is_wanted
    with ThreadPoolExecutor(4) as pool:
        for number in range(4):
            pool.submit(work, number)
            while len(turns._waiting) <= number:
                time.sleep(0.001)
        # Whoever gives and takes at once waits behind them all.
        turns.give()
        assert turns.take(10)
        order.append(4)
        turns.give()
    assert order == [0, 1, 2, 3, 4]
    assert turns.take(0)


def test_who_gives_up_leaves_the_queue() -> None:
    turns = Turns()
    assert turns.take(0)
    assert not turns.take(0.01) and not turns.is_wanted
    turns.give()
    assert turns.take(0)


def test_one_at_a_time_whoever_gives_up() -> None:
    turns, inside, num_turns = Turns(), threading.Semaphore(1), 0

    def work(number: int) -> None:
        nonlocal num_turns
        for _ in range(200):
            if turns.take(0.0001 * (number % 3)):
                assert inside.acquire(blocking=False)
                num_turns += 1
                inside.release()
                turns.give()

    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(work, number) for number in range(8)]:
            done.result(30)
    assert num_turns and turns.take(0)
