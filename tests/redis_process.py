"""A real redis-server on a free port of the loopback, with a folder of its own."""

import contextlib
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import RedisError

HOW_TO = "no redis-server on PATH: apt install redis-server, brew install redis, or your own way"
KEEPS_ALL = ("--appendonly", "yes", "--appendfsync", "always")


class RedisProcess:
    """A redis-server that may be killed and started again over what it has on disk."""

    def __init__(self, folder: Path, *options: str) -> None:
        """options: of its command line, beside where it listens and lies."""
        self.folder, self._options = folder, options
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.client = Redis(port=self.port, protocol=2)
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Start it, and wait until it answers."""
        where = ("--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(self.folder))
        with (self.folder / "redis.log").open("ab") as log:
            self._process = subprocess.Popen(
                ["redis-server", *where, "--save", "", *self._options], stdout=log, stderr=log
            )
        patience = time.monotonic() + 20
        while True:
            with contextlib.suppress(RedisError):
                self.client.ping()
                return
            assert time.monotonic() < patience, (self.folder / "redis.log").read_text()
            time.sleep(0.02)

    def kill(self) -> None:
        """kill -9."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """End it, and let go of its connections."""
        self.kill()
        self.client.close()


@contextlib.contextmanager
def running_redis(folder: Path, *options: str) -> Iterator[RedisProcess]:
    """A redis-server in a folder until the end of the block; skips the test where there is none."""
    if shutil.which("redis-server") is None:
        pytest.skip(HOW_TO)
    folder.mkdir(parents=True, exist_ok=True)
    process = RedisProcess(folder, *options)
    try:
        yield process
    finally:
        process.stop()
