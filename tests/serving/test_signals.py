"""Signals are heard whichever thread the kernel hands them to, and while the main thread waits."""

import subprocess
import sys

import pytest

from tests.serving.processes import environment

WAITING = """
import signal, sys, threading
from serving.signals import on_signals

stopping, heard = threading.Event(), []

def hear():
    heard.append("stop")
    stopping.set()

on_signals({signal.SIGTERM: hear, signal.SIGUSR1: lambda: heard.append("hurry")})

def send():
    # To this very thread, as the kernel may: the main thread's wait is not interrupted.
    signal.pthread_kill(threading.get_ident(), signal.SIGUSR1)
    signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

threading.Timer(0.2, send).start()
stopping.wait()
print(*sorted(heard))
"""
LOCKED = """
import os, signal, threading
from serving.signals import on_signals

stopping = threading.Event()
on_signals({signal.SIGTERM: stopping.set})
with stopping._cond:  # as in the midst of wait(): a handler that sets it would wait for itself
    os.kill(os.getpid(), signal.SIGTERM)
    for _ in range(10_000):
        pass
stopping.wait()
print("set")
"""


def run(program: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env=environment()
    )


def finish(process: "subprocess.Popen[str]") -> str:
    try:
        return process.communicate(timeout=20)[0]
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        pytest.fail("the signal was not heard")


def test_a_signal_to_another_thread_wakes_a_main_thread_that_waits_for_a_lock() -> None:
    assert finish(run(WAITING)) == "hurry stop\n"


def test_an_event_that_is_being_waited_for_can_be_set() -> None:
    assert finish(run(LOCKED)) == "set\n"
