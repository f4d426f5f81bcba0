"""Spawns the workers on one port, restarts those that die, stops them all together.

Each worker binds the same port with SO_REUSEPORT. Knows no bundle: the first worker that cannot
open one says why. Serves the workers' metrics, summed. The processes are in serving/children.py.
"""

import contextlib
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from model.errors import ConfigError
from serving.adoption import adopted
from serving.children import FIRST_PAUSE, LONGEST_PAUSE, WELL_SECONDS, Background, Worker
from serving.config import ServerConfig
from serving.drain import HURRY, longest_wait
from serving.logs import configure_logs, logger
from serving.metrics import SupervisorMetrics, reserve_files
from serving.metrics_folder import metrics_folder
from serving.parent import stop_with_parent
from serving.signals import on_signals

_POLL = 0.1


@dataclass(frozen=True, slots=True)
class Listening:
    """Where a server that has become ready can be reached."""

    host: str
    port: int
    metrics_port: int | None


class Supervisor:
    """Runs `config.workers` workers until told to stop."""

    def __init__(self, config: ServerConfig) -> None:
        self._config = config
        self._stopping = threading.Event()
        self._workers: list[Worker] = []
        self._background: Background | None = None
        self._registry = CollectorRegistry()
        self._counted = SupervisorMetrics(self._registry)
        configure_logs(config.log_level, worker="supervisor")

    def stop(self) -> None:
        """Ask for the end; `run` then drains the workers and returns."""
        self._stopping.set()

    def stop_with_parent(self) -> None:
        """`stop` once stdin has ended."""
        stop_with_parent(self._stopping)

    def hurry(self) -> None:
        """As `stop`; asked again, do not wait for callers to go elsewhere."""
        if self._stopping.is_set():
            for worker in self._workers:
                worker.process.send_signal(HURRY)
        self._stopping.set()

    def run(self, on_ready: Callable[[Listening], None]) -> None:
        """Serve until `stop`. on_ready: called once, when every worker serves.

        Raises BundleRejected, StoreUnavailable or ConfigError when the workers cannot become
        ready; none is left running then.
        """
        with (
            self._reserved_port() as port,
            self._metrics() as (metrics_port, environment),
            adopted(self._config),
        ):
            config = replace(self._config, port=port)
            try:
                self._start(config, environment)
                if not self._stopping.is_set():
                    on_ready(Listening(config.host, port, metrics_port))
                self._watch(config, environment)
            finally:
                self._end()

    def _start(self, config: ServerConfig, environment: dict[str, str]) -> None:
        """Spawn the workers and wait until all are ready. Raises what the first failure says."""
        self._workers = [Worker(_name(i), config, environment) for i in range(config.workers)]
        while not self._stopping.wait(0.02):
            for worker in self._workers:
                failure = worker.failure()
                if failure is not None:
                    raise failure
            if all(worker.is_ready for worker in self._workers):
                break
        if self._stopping.is_set():
            return

    def _watch(self, config: ServerConfig, environment: dict[str, str]) -> None:
        """Restart the workers that die, after a pause that doubles while they keep dying."""
        pauses = dict.fromkeys(range(len(self._workers)), FIRST_PAUSE)
        due: dict[int, float] = {}
        self._background = Background(config, environment)
        while not self._stopping.wait(_POLL):
            now = time.monotonic()
            self._background.keep_running(now)
            for i, worker in enumerate(self._workers):
                if worker.process.poll() is None:
                    if now - worker.started > WELL_SECONDS:
                        pauses[i] = FIRST_PAUSE
                elif i not in due:
                    self._bury(worker)
                    due[i] = now + pauses[i]
                    pauses[i] = min(pauses[i] * 2, LONGEST_PAUSE)
                elif due[i] <= now:
                    del due[i]
                    self._workers[i] = Worker(worker.name, config, environment)
                    self._counted.restarts.inc()
            self._count()

    def _count(self) -> None:
        """Bring the supervisor's own metrics up to date."""
        alive = [w for w in self._workers if w.is_ready and w.process.poll() is None]
        self._counted.workers.set(len(alive))
        if alive:
            self._counted.start_seconds.set(max(alive, key=lambda w: w.started).start_seconds)

    def _bury(self, worker: Worker) -> None:
        failure = worker.failure()
        logger().error(
            "worker died, restarting",
            name=worker.name,
            pid=worker.process.pid,
            exit_code=worker.process.returncode,
            reason=str(failure) if failure else "",
        )
        if self._config.metrics_port is not None:
            mark_process_dead(  # type: ignore[no-untyped-call]
                worker.name, str(self._metrics_folder)
            )
            with contextlib.suppress(OSError):  # a full disk; it may have room again
                reserve_files(self._metrics_folder, [worker.name])

    def _end(self) -> None:
        """Drain every worker; kill those that outlast their grace."""
        for worker in self._workers:
            worker.process.send_signal(signal.SIGTERM)
        if self._background is not None:
            self._background.stop()
        config = self._config
        leaving = config.drain_pause + longest_wait(config.max_connection_age)
        patience = time.monotonic() + leaving + config.drain_grace + 5
        for worker in self._workers:
            try:
                worker.process.wait(max(patience - time.monotonic(), 0.1))
            except subprocess.TimeoutExpired:
                logger().error("worker did not stop, killing it", name=worker.name)
                worker.process.kill()
                worker.process.wait()
            for pipe in (worker.process.stdin, worker.process.stdout):
                if pipe is not None:
                    with contextlib.suppress(BrokenPipeError):
                        pipe.close()

    @contextlib.contextmanager
    def _reserved_port(self) -> Iterator[int]:
        """The port to serve on, held for the workers to share.

        The port is bound without SO_REUSEPORT first: with it, a second server on the same port
        would start and take half of the first one's connections. Raises ConfigError if taken.
        """
        host, port = self._config.host, self._config.port
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        address = host.strip("[]")
        try:
            with socket.socket(family) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((address, port))
            with socket.socket(family) as held:
                held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                held.bind((address, port))
                yield held.getsockname()[1]
        except OSError as error:
            raise ConfigError(
                f"cannot listen on {host}:{port}: {error.strerror}; choose another --port"
            ) from error

    @contextlib.contextmanager
    def _metrics(self) -> Iterator[tuple[int | None, dict[str, str]]]:
        """The metrics server's port, and the environment that workers need for it."""
        environment = {
            **os.environ,
            # One thread each: the threads of BLAS spin, and there is a worker for every core.
            "OMP_NUM_THREADS": str(self._config.faiss_threads),
            "OPENBLAS_NUM_THREADS": "1",
            # Arenas of malloc: with one for each thread, a worker soon takes 25 MB more.
            "MALLOC_ARENA_MAX": os.environ.get("MALLOC_ARENA_MAX", "2"),
            # Arrow's own pool keeps 14 MB of what opening a bundle of a million items takes.
            "ARROW_DEFAULT_MEMORY_POOL": os.environ.get("ARROW_DEFAULT_MEMORY_POOL", "system"),
            # Lines of gRPC's core are no JSON. GRPC_VERBOSITY=ERROR in the environment shows them.
            "GRPC_VERBOSITY": os.environ.get("GRPC_VERBOSITY", "NONE"),
        }
        if self._config.metrics_port is None:
            yield None, environment
            return
        with metrics_folder() as folder:
            self._metrics_folder = folder
            try:
                reserve_files(folder, map(_name, range(self._config.workers)))
            except OSError as error:
                raise ConfigError(
                    f"no room for metrics in {folder}: {error.strerror}; make room there, set "
                    "TMPDIR to another folder, or leave --metrics-port out"
                ) from error
            MultiProcessCollector(self._registry, path=str(folder))  # type: ignore[no-untyped-call]
            try:
                http, thread = start_http_server(
                    self._config.metrics_port, addr=self._config.host, registry=self._registry
                )
            except OSError as error:
                raise ConfigError(
                    f"cannot serve metrics on port {self._config.metrics_port}: {error.strerror}; "
                    "choose another --metrics-port"
                ) from error
            try:
                yield (
                    http.server_address[1],
                    {**environment, "PROMETHEUS_MULTIPROC_DIR": str(folder)},
                )
            finally:
                http.shutdown()
                http.server_close()
                thread.join()


def _name(number: int) -> str:
    return f"w{number}"


def run_supervised(
    config: ServerConfig,
    on_ready: Callable[[Listening], None],
    *,
    until_stdin_ends: bool = False,
) -> None:
    """Run a supervisor that SIGTERM and SIGINT stop, and a second SIGINT hurries.

    until_stdin_ends: the end of stdin stops it, too. Raises as Supervisor.run does.
    """
    supervisor = Supervisor(config)
    if until_stdin_ends:
        supervisor.stop_with_parent()
    on_signals({signal.SIGTERM: supervisor.stop, signal.SIGINT: supervisor.hurry})
    supervisor.run(on_ready)
