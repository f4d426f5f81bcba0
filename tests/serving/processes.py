"""The `penchant` command and its servers, as processes of their own on real sockets."""

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

ROOT = Path(__file__).parents[2]


def environment() -> dict[str, str]:
    paths = os.pathsep.join([str(ROOT), str(ROOT / "protos")])
    return {**os.environ, "PYTHONPATH": paths, "COLUMNS": "200", "NO_COLOR": "1"}


def penchant(
    *arguments: str, timeout: float = 60, columns: int = 200
) -> "subprocess.CompletedProcess[str]":
    """Run the `penchant` command to its end, in a terminal of so many columns."""
    return subprocess.run(
        [sys.executable, str(ROOT / "penchant.py"), *arguments],
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**environment(), "COLUMNS": str(columns)},
        check=False,
    )


@dataclass
class Served:
    """A running `penchant serve`."""

    process: "subprocess.Popen[str]"
    address: str
    metrics: str
    log: Path

    def stop(self) -> int:
        """SIGTERM, then the exit code."""
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(30)
        return code

    def worker_pids(self) -> list[int]:
        """The processes of the workers that live now; Linux only."""
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [
            int(child)
            for child in children
            if b"serving.server" in Path(f"/proc/{child}/cmdline").read_bytes()
        ]

    def log_lines(self) -> list[dict[str, Any]]:
        lines = self.log.read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]


@contextlib.contextmanager
def serve(
    bundle: Path,
    state: Path,
    log: Path,
    *arguments: str,
    variables: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[Served]:
    """`penchant serve` on a free port, in processes of its own, with more environment variables."""
    command = [sys.executable, str(ROOT / "penchant.py"), "serve", str(bundle)]
    command += ["--state", str(state), "--port", "0", "--metrics-port", "0", *arguments]
    with log.open("w", encoding="utf-8") as stderr:
        process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env={**environment(), **variables},
        )
    try:
        assert process.stdout is not None
        # One line for each address, in this order; then nothing until the end.
        lines = [process.stdout.readline() for _ in range(2)]
        assert all(lines), log.read_text(encoding="utf-8")
        address, metrics = (line.split()[-1] for line in lines)
        yield Served(process, address, metrics, log)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(60)  # a worker that hangs is killed before that, and it is logged
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise AssertionError(f"did not stop:\n{log.read_text()}") from None
            assert "worker did not stop" not in log.read_text(encoding="utf-8")
        if process.stdout is not None:
            process.stdout.close()
