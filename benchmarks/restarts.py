"""A hundred SIGTERM restarts of one of two replicas, under load: how many calls fail?

    python benchmarks/restarts.py --work DIR [--restarts 100]

Two `penchant serve` on one machine, one worker each, the same bundle (a small simulated world,
kept in DIR). Callers ask all the time through one `Client` of both addresses, and, to see what the
drain does by itself, through plain gRPC channels of grpcio, with round_robin over both addresses
and no retries of any kind. One server is stopped by SIGTERM and started again, as often as asked.
"""

import argparse
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import grpc
import numpy as np
import pyarrow.parquet as pq
from commands import ENVIRONMENT, PENCHANT, free_port, penchant
from results import write_result

from interest.v1 import retrieval_service_pb2 as pb
from interest.v1 import retrieval_service_pb2_grpc as rpc
from serving.client import Client
from serving.errors import ServerUnavailable
from serving.probe import probe_health

K = 20


def prepare(work: Path) -> None:
    """Simulate, train, export and load users, once."""
    if (work / "state" / "store.db").exists():
        return
    penchant("simulate", work / "world", "--users", 500, "--items", 2000, "--days", 30)
    penchant("train", work / "world", "--out", work / "run", "--recipe", "demo", "--max-minutes", 1)
    penchant("export", work / "run", "--bundle", work / "bundle", "--snapshot", work / "snapshot")
    penchant("load-users", work / "snapshot", "--state", work / "state")


class Replica:
    """A server on a port of its own, which can be stopped and started again."""

    def __init__(self, work: Path, options: list[str]) -> None:
        self.address = f"127.0.0.1:{free_port()}"
        self._command = [*PENCHANT, "serve", str(work / "bundle")]
        self._command += ["--state", str(work / "state"), "--port", self.address.split(":")[1]]
        self._command += ["--log-level", "error", *options]

    def start(self) -> float:
        """Start it; returns the seconds until it serves."""
        started = time.perf_counter()
        self.process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL, env=ENVIRONMENT)
        while True:
            try:
                probe_health(self.address, timeout=5)
            except ServerUnavailable:
                if self.process.poll() is not None:
                    raise SystemExit("a server did not start") from None
                time.sleep(0.02)
            else:
                return time.perf_counter() - started

    def stop(self) -> float:
        """SIGTERM; returns the seconds until it is gone."""
        started = time.perf_counter()
        self.process.send_signal(signal.SIGTERM)
        if self.process.wait(120):
            raise SystemExit(f"a server ended with {self.process.returncode}")
        return time.perf_counter() - started


class Callers:
    """Threads that ask and count: latencies of what was answered, kinds of what was not."""

    def __init__(self, ask: Callable[[str], Any], users: list[str], *, num: int, pause: float):
        self.milliseconds: list[float] = []
        self.failed: Counter[str] = Counter()
        self._ask, self._users, self._pause = ask, users, pause
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(i,)) for i in range(num)]
        for thread in self._threads:
            thread.start()

    def _run(self, number: int) -> None:
        rng = np.random.default_rng(number)
        while not self._over.wait(self._pause):
            user = self._users[rng.integers(len(self._users))]
            began = time.perf_counter()
            try:
                self._ask(user)
            except Exception as error:
                self.failed[f"{type(error).__name__}: {said(error)}"] += 1
            else:
                self.milliseconds.append((time.perf_counter() - began) * 1000)

    def end(self) -> None:
        """Let the calls under way finish."""
        self._over.set()
        for thread in self._threads:
            thread.join()


def said(error: Exception) -> str:
    """What an error says, in one line."""
    if isinstance(error, grpc.Call):
        return f"{error.code().name}, {error.details()}"
    return str(error)


def plain_stub(addresses: list[str]) -> rpc.RetrievalServiceStub:
    """What a caller without our client has: both addresses, round_robin, not one retry."""
    options = [
        ("grpc.enable_retries", 0),
        ("grpc.service_config", '{"loadBalancingConfig": [{"round_robin": {}}]}'),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 500),
    ]
    channel = grpc.insecure_channel(f"ipv4:{','.join(addresses)}", options=options)
    return rpc.RetrievalServiceStub(channel)


def main() -> None:
    """Prepare, restart, write the result."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--work", type=Path, required=True, help="where the bundle is kept")
    parser.add_argument("--restarts", type=int, default=100)
    parser.add_argument("--callers", type=int, default=4, help="threads of the client")
    parser.add_argument("--max-connection-age", default="1", help="of both servers, seconds")
    args = parser.parse_args()
    prepare(args.work)
    histories = pq.read_table(args.work / "snapshot" / "histories.parquet", columns=["user_id"])
    users: list[str] = histories["user_id"].to_pylist()
    age = ["--max-connection-age", args.max_connection_age]
    lasting, restarted = Replica(args.work, age), Replica(args.work, age)
    addresses = [lasting.address, restarted.address]
    lasting.start()
    starts, stops = [restarted.start()], []
    began = time.perf_counter()
    with Client(addresses, timeout=5) as client:
        stub = plain_stub(addresses)
        ours = Callers(
            lambda user: client.retrieve(user, k=K), users, num=args.callers, pause=0.005
        )
        plain = Callers(
            lambda user: stub.Retrieve(
                pb.RetrieveRequest(queries=[pb.UserQuery(user_id=user)], k=K), timeout=5
            ),
            users,
            num=2,
            pause=0.01,
        )
        for number in range(args.restarts):
            stops.append(restarted.stop())
            starts.append(restarted.start())
            time.sleep(0.3)  # both serve
            print(
                f"restart {number + 1} of {args.restarts}: {len(ours.milliseconds):,} calls, "
                f"{sum(ours.failed.values())} failed; plain: {len(plain.milliseconds):,}, "
                f"{sum(plain.failed.values())} failed",
                flush=True,
            )
        ours.end()
        plain.end()
    minutes = (time.perf_counter() - began) / 60
    for replica in (lasting, restarted):
        replica.stop()
    report(args.restarts, minutes, ours, plain, starts, stops, args.max_connection_age)


def report(
    restarts: int,
    minutes: float,
    ours: Callers,
    plain: Callers,
    starts: list[float],
    stops: list[float],
    age: str,
) -> None:
    """Write the result."""
    rows, figures = [], {"restarts": restarts, "minutes": round(minutes, 2)}
    for name, prefix, callers in (
        ("`Client` of both addresses", "", ours),
        ("plain gRPC, round_robin, no retries, no health", "plain_", plain),
    ):
        p50, p99, most = np.percentile(callers.milliseconds, [50, 99, 100])
        num_failed = sum(callers.failed.values())
        figures |= {
            f"{prefix}calls": len(callers.milliseconds) + num_failed,
            f"{prefix}failed": num_failed,
            f"{prefix}p50_ms": round(float(p50), 2),
            f"{prefix}p99_ms": round(float(p99), 2),
            f"{prefix}max_ms": round(float(most), 1),
        }
        calls = f"{figures[f'{prefix}calls']:,}"
        rows.append([name, calls, str(num_failed), f"{p50:.1f}", f"{p99:.1f}", f"{most:.0f}"])
    figures |= {
        "stop_seconds": round(median(stops), 2),
        "start_seconds": round(median(starts), 2),
    }
    kinds = "; ".join(f"{num} x {kind}" for kind, num in plain.failed.items()) or "none"
    write_result(
        "restarts",
        title=f"{restarts} SIGTERM restarts of one of two replicas under load",
        figures=figures,
        table=[["callers", "calls", "failed", "p50 ms", "p99 ms", "most ms"], *rows],
        notes=(
            f"In {minutes:.1f} minutes on one machine that also ran the callers: 4 threads through "
            "one `Client`, 2 through one plain channel of grpcio. Median stop "
            f"{median(stops):.2f} s (SIGTERM to the end of the process), median start "
            f"{median(starts):.2f} s (to SERVING). A connection lives {age} s here; callers "
            "who watch no health leave a stopping server when theirs is over. Failures of the "
            f"plain callers: {kinds}."
        ),
        command="python benchmarks/restarts.py --work DIR",
    )


if __name__ == "__main__":
    main()
