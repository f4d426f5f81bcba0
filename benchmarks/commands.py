"""Penchant's own commands, run in this Python from this checkout."""

import contextlib
import os
import random
import socket
import subprocess
import sys

from results import ROOT

ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'protos'}"}
PENCHANT = (sys.executable, str(ROOT / "penchant.py"))

PORTS = range(20_000, 30_000)
"""None that the system gives to outgoing connections: one that tries to reach a server which is
down would take its port."""


def free_port() -> int:
    """A port for a server that is started in a moment, or again and again."""
    for port in random.sample(PORTS, len(PORTS)):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise SystemExit(f"no port of {PORTS} is free")


def penchant(*arguments: object) -> None:
    """Run one `penchant` command; stop if it fails."""
    subprocess.run([*PENCHANT, *map(str, arguments)], check=True, env=ENVIRONMENT)
