"""The processes that a supervisor starts: workers, and the one that seals and activates.

Each is a fresh interpreter (never a fork: gRPC, FAISS and ONNX Runtime hold threads), told what to
do on its stdin, whose end says that the supervisor is gone. When to start one anew is the
supervisor's to say.
"""

import contextlib
import json
import subprocess
import sys
import threading
import time

from model.errors import BundleRejected, ConfigError, PenchantError
from serving.config import ServerConfig
from serving.errors import StoreUnavailable
from serving.logs import logger
from serving.metrics import WORKER

FIRST_PAUSE, LONGEST_PAUSE = 0.2, 10.0
"""Seconds before a process that died is started again; doubled while it keeps dying."""
WELL_SECONDS = 60
"""A process that has lived so long does not keep dying."""
_KINDS: dict[str, type[PenchantError]] = {
    "BundleRejected": BundleRejected,
    "StoreUnavailable": StoreUnavailable,
}


class Worker:
    """One worker process and what it said on its stdout."""

    def __init__(self, name: str, config: ServerConfig, environment: dict[str, str]) -> None:
        self.name = name
        self.process = subprocess.Popen(
            [sys.executable, "-m", "serving.server", name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**environment, WORKER: name},
            text=True,
        )
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it died at once; `poll` will tell
            self.process.stdin.write(config.to_json() + "\n")
            self.process.stdin.flush()
        self.said: dict[str, str | int] = {}
        self.started = time.monotonic()
        self.ready: float | None = None
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if line:
            self.ready = time.monotonic()
            self.said = json.loads(line)

    @property
    def is_ready(self) -> bool:
        """Whether the worker serves, or has served."""
        return "ready" in self.said

    @property
    def start_seconds(self) -> float:
        """How long it took to become ready; 0 before."""
        return self.ready - self.started if self.is_ready and self.ready is not None else 0.0

    def failure(self) -> PenchantError | None:
        """Why the worker could not become ready, once it has ended without being so."""
        if self.process.poll() is None:
            return None
        self._reader.join()
        if self.is_ready:
            return None
        kind = _KINDS.get(str(self.said.get("kind")), ConfigError)
        code = self.process.returncode
        return kind(str(self.said.get("error", f"worker {self.name} ended with code {code}")))


class Background:
    """The process that seals live items and activates bundles; started again when it dies."""

    def __init__(self, config: ServerConfig, environment: dict[str, str]) -> None:
        # It counts nothing, and needs no files to count in.
        kept = {k: v for k, v in environment.items() if k != "PROMETHEUS_MULTIPROC_DIR"}
        self._config, self._environment = config, kept
        self._pause, self._due = FIRST_PAUSE, 0.0
        self._process, self._begun = self._started(), time.monotonic()

    def keep_running(self, now: float) -> None:
        """Start it again where it has died, after a pause that doubles while it keeps dying."""
        if self._process.poll() is None:
            if now - self._begun > WELL_SECONDS:
                self._pause = FIRST_PAUSE
            return
        if not self._due:
            logger().error("background died, restarting", exit_code=self._process.returncode)
            self._due, self._pause = now + self._pause, min(2 * self._pause, LONGEST_PAUSE)
        elif self._due <= now:
            self._process, self._due, self._begun = self._started(), 0.0, now

    def stop(self) -> None:
        """End it. What it was writing never appears."""
        self._process.terminate()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()

    def _started(self) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-m", "serving.live.background"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            env=self._environment,
            text=True,
        )
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it died at once; `keep_running` will tell
            process.stdin.write(self._config.to_json() + "\n")
            process.stdin.flush()
        return process
