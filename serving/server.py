"""One worker process: wiring, health, reflection, drain.

    python -m serving.server NAME < config.json

is how the supervisor starts it (serving/supervisor.py): the first line of stdin is a ServerConfig
as JSON; the end of stdin means that the supervisor is gone. One line of JSON on stdout says that
the worker is ready, or why it is not. Logs go to stderr.
"""

import gc
import json
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING

import faiss
import grpc
from grpc_health.v1 import health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from interest.v1 import (
    admin_service_pb2,
    admin_service_pb2_grpc,
    circle_service_pb2,
    circle_service_pb2_grpc,
    ingest_service_pb2,
    ingest_service_pb2_grpc,
    retrieval_service_pb2,
    retrieval_service_pb2_grpc,
)
from model.errors import PenchantError
from serving.admin_servicer import AdminServicer
from serving.calls import CallExecutor
from serving.circle_servicer import CircleServicer
from serving.config import ServerConfig
from serving.drain import HURRY, longest_wait, stop_listening, wait_until_quiet
from serving.health import SERVICE_NAME, HealthServicer
from serving.ingest_servicer import IngestServicer
from serving.interceptors import INGEST, RETRIEVAL, CallInterceptor
from serving.logs import configure_logs, logger
from serving.memory import give_back
from serving.metrics import GENERATION_READY, MetricsFlusher
from serving.parent import stop_with_parent
from serving.runtime import Runtime
from serving.servicer import RetrievalServicer
from serving.signals import on_signals
from serving.telemetry import Telemetry, open_traces

if TYPE_CHECKING:
    from serving.traces import Traces

SERVICES: tuple[str, ...] = (
    retrieval_service_pb2.DESCRIPTOR.services_by_name["RetrievalService"].full_name,
    ingest_service_pb2.DESCRIPTOR.services_by_name["IngestService"].full_name,
    circle_service_pb2.DESCRIPTOR.services_by_name["CircleService"].full_name,
    admin_service_pb2.DESCRIPTOR.services_by_name["AdminService"].full_name,
)


class WorkerServer:
    """A gRPC server over one runtime, with health and reflection. Not started until `start`."""

    def __init__(
        self,
        config: ServerConfig,
        runtime: Runtime,
        *,
        worker: str,
        traces: "Traces | None" = None,
    ) -> None:
        self._config, self._port = config, 0
        self._streams = runtime.streams
        most = config.limits.max_pending
        self._executors = {
            service: CallExecutor(config.threads, max_waiting=most)
            for service in (RETRIEVAL, INGEST)
        }
        self._traces = traces
        self._calls = CallInterceptor(self._executors, Telemetry(config, traces))
        self._server = grpc.server(
            self._executors[RETRIEVAL],
            interceptors=[self._calls],
            options=[
                ("grpc.so_reuseport", 1),
                ("grpc.max_receive_message_length", config.limits.max_message_bytes),
                ("grpc.max_send_message_length", -1),
                # One connection may bring more calls than are let wait, and be told so; not a
                # million.
                ("grpc.max_concurrent_streams", 2 * (config.threads + config.limits.max_pending)),
                ("grpc.max_connection_age_ms", int(config.max_connection_age * 1000)),
                ("grpc.max_connection_age_grace_ms", int(config.drain_grace * 1000)),
            ],
        )
        self._health = HealthServicer(SERVICES)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        servicer = RetrievalServicer(runtime, worker=worker)
        _warm_up(servicer)
        retrieval_service_pb2_grpc.add_RetrievalServiceServicer_to_server(servicer, self._server)
        ingest_service_pb2_grpc.add_IngestServiceServicer_to_server(
            IngestServicer(runtime, worker=worker),
            self._server,
        )
        circle_service_pb2_grpc.add_CircleServiceServicer_to_server(
            CircleServicer(runtime, worker=worker), self._server
        )
        admin_service_pb2_grpc.add_AdminServiceServicer_to_server(
            AdminServicer(runtime, worker=worker), self._server
        )
        reflection.enable_server_reflection(
            (*SERVICES, SERVICE_NAME, reflection.SERVICE_NAME), self._server
        )

    def start(self) -> int:
        """Listen and say SERVING; returns the port. Raises OSError where it cannot be bound."""
        address = f"{self._config.host}:{self._config.port}"
        try:
            self._port = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise OSError(f"cannot listen on {address}") from error
        self._server.start()
        self._health.serve()
        self._flusher = MetricsFlusher(
            lambda: len(self._calls.in_flight),
            lambda: sum(executor.num_waiting for executor in self._executors.values()),
        )
        GENERATION_READY.set_to_current_time()
        return self._port

    def drain(self, hurry: threading.Event) -> None:
        """Let the callers go elsewhere, then stop; see serving/drain.py.

        hurry: once set, stop without waiting for callers to go; calls that have begun still have
        their grace.
        """
        self._health.leave()
        hurry.wait(self._config.drain_pause)
        stop_listening(self._port)
        self._streams.leave()
        quiet = wait_until_quiet(
            lambda: len(self._calls.in_flight),
            lambda: self._calls.num_begun,
            patience=longest_wait(self._config.max_connection_age),
            hurry=hurry,
        )
        self._health.close()
        stopped = self._server.stop(self._config.drain_grace)
        logger().info("worker stopping", quiet=quiet, in_flight=len(self._calls.in_flight))
        stopped.wait()
        for call in self._calls.in_flight:
            logger().error("a call outlasted its grace", rpc=call.rpc, request_id=call.request_id)
        self._flusher.stop()
        if self._traces is not None:
            self._traces.close()


def _warm_up(servicer: RetrievalServicer) -> None:
    """Answer a few requests, so that the first real one meets loaded code and filled caches."""
    request = retrieval_service_pb2.RetrieveRequest(
        queries=[retrieval_service_pb2.UserQuery(user_id="nobody")],
        k=1,
        fields=["kind", "title"],
        exclude_seen=True,
        num_history=1,
    )
    for _ in range(3):
        servicer.rehearse(request)
    # What was loaded so far stays for good; the collector need not walk it again and again.
    gc.collect()
    gc.freeze()
    give_back()


def main(name: str) -> int:
    """Run one worker until SIGTERM or the end of stdin; returns the exit code."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the supervisor, which sends TERM
    stopping, hurry = threading.Event(), threading.Event()
    on_signals({signal.SIGTERM: stopping.set, HURRY: hurry.set})
    config = ServerConfig.from_json(sys.stdin.readline())
    worker = f"{name}.{os.getpid()}"
    configure_logs(config.log_level, worker=worker)
    faiss.omp_set_num_threads(config.faiss_threads)
    try:
        traces = open_traces(config, worker=worker)  # before gigabytes are read
        runtime = Runtime(config, worker=name)
        server = WorkerServer(config, runtime, worker=worker, traces=traces)
        port = server.start()
        if not runtime.store.num_users():
            logger().warning(
                "no users", remedy="penchant load-users SNAPSHOT --state STATE; all are cold"
            )
    except (PenchantError, OSError) as error:
        _tell({"error": str(error), "kind": type(error).__name__})
        return 1
    _tell({"ready": port, "bundle_version": runtime.generation.version})
    logger().info("worker ready", port=port, bundle=runtime.generation.version)
    stop_with_parent(stopping)
    stopping.wait()
    logger().info("worker draining")
    server.drain(hurry)
    runtime.close()
    logger().info("worker stopped")
    return 0


def _tell(message: dict[str, object]) -> None:
    print(json.dumps(message), flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
