"""What the serving benchmarks share: a server pinned to a core, h2load on another, a stored user.

Needs h2load (Debian package nghttp2-client). Knows no RPC.
"""

import os
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
from commands import ENVIRONMENT, PENCHANT

SERVICE = "/interest.v1.RetrievalService"
SERVER_CORE, LOAD_CORE = 0, 1


def serve_command(work: Path, *options: object) -> list[str]:
    """`penchant serve` of WORK/bundle and WORK/state on a free port."""
    command = [*PENCHANT, "serve", str(work / "bundle")]
    command += ["--state", str(work / "state"), "--port", "0", "--log-level", "error"]
    command += ["--max-connection-age", "3600"]  # h2load does not connect again
    return command + [str(option) for option in options]


@contextmanager
def pinned(command: list[str], cores: Sequence[int] = (SERVER_CORE,)) -> Iterator[str]:
    """Start a server on these cores; yields the address that its first line ends with."""
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=ENVIRONMENT,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise SystemExit(f"the server did not start: {' '.join(command)}")
        yield line.split()[-1]
    finally:
        process.terminate()
        process.wait(30)


@dataclass(frozen=True)
class Load:
    """What h2load saw."""

    requests_per_second: float
    spent_ms: npt.NDArray[np.float64]
    """[n] what each call took."""
    began: npt.NDArray[np.float64]
    """[n] when each call began, in seconds since 1970 UTC."""

    def figures(self) -> dict[str, float]:
        """Calls a second and latencies."""
        return {
            "requests_per_second": self.requests_per_second,
            "p50_ms": float(np.percentile(self.spent_ms, 50)),
            "p99_ms": float(np.percentile(self.spent_ms, 99)),
            "mean_ms": float(self.spent_ms.mean()),
        }


def load(
    address: str,
    rpc: str,
    payload: Path,
    *,
    concurrency: int,
    requests: int,
    headers: Sequence[str] = (),
    rate: float | None = None,
    connections: int = 4,
) -> Load:
    """Calls by h2load on the other core.

    payload: a file with one message, as `framed` makes it. headers: `NAME: VALUE`, beside gRPC's.
    rate: calls a second that are begun, answered or not, while `concurrency` allows, rounded to a
    whole number a connection; None: a call is begun when another has ended. connections: that the
    calls are spread over, where there are several at a time; the kernel gives each to a worker by
    lot.
    """
    clients = min(connections, concurrency)
    with tempfile.NamedTemporaryFile("r") as log:
        command = ["taskset", "-c", str(LOAD_CORE), "h2load", "-n", str(requests)]
        command += ["-c", str(clients), "-m", str(concurrency // clients), "-t", "1"]
        for header in ("content-type: application/grpc", "te: trailers", *headers):
            command += ["-H", header]
        command += ["-d", str(payload), "--log-file", log.name]
        if rate is not None:
            # Begun 0.1 s apart, four at a time: their clocks would tick together otherwise.
            command += ["--rps", str(max(round(rate / clients), 1))]
            command += ["--rate", "4", "--rate-period", "100ms"] if clients > 4 else []
        command += [f"http://{address}{SERVICE}/{rpc}"]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        rows = [line.split("\t") for line in log.read().splitlines()]
    if any(row[1] != "200" for row in rows) or len(rows) != requests:
        raise SystemExit(f"h2load saw failures:\n{done.stdout}")
    finished = [line for line in done.stdout.splitlines() if line.startswith("finished in")]
    return Load(
        float(finished[0].split(",")[1].split()[0]),
        spent_ms=np.array([int(row[2]) for row in rows]) / 1000,
        began=np.array([int(row[0]) for row in rows]) / 1e6,
    )


def framed(body: bytes) -> bytes:
    """A message as gRPC sends it."""
    return b"\0" + len(body).to_bytes(4, "big") + body


def long_history(work: Path, num_events: int) -> dict[str, Any]:
    """A stored user with so many events at least; the latest of them."""
    for row in pq.read_table(work / "snapshot" / "histories.parquet").to_pylist():
        if len(row["item_ids"]) >= num_events:
            lists = ("item_ids", "events", "timestamps")
            return {"user_id": row["user_id"], **{name: row[name][-num_events:] for name in lists}}
    raise SystemExit(f"no user has {num_events} events")
