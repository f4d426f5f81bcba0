"""A gRPC server that does nothing but return one prepared answer: the floor.

    python benchmarks/empty_server.py ANSWER-FILE [--aio] [--recommend]

The answer is one of Retrieve, or of Recommend.

The same kind of server as Penchant's (threads, one process), or with --aio the one of grpc.aio; it
decodes the request and encodes the answer each time, as any server must. Prints its address and
runs until SIGTERM.
"""

import asyncio
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc

from interest.v1 import retrieval_service_pb2 as pb
from interest.v1 import retrieval_service_pb2_grpc as rpc
from serving.signals import on_signals


class Nothing(rpc.RetrievalServiceServicer):
    """Answers every call with the same message."""

    def __init__(self, answer: Any) -> None:
        self._answer = answer

    def Retrieve(  # noqa: N802  (the name of the RPC)
        self, request: pb.RetrieveRequest, context: Any
    ) -> pb.RetrieveResponse:
        """The prepared answer."""
        return self._answer

    def Recommend(  # noqa: N802
        self, request: pb.RecommendRequest, context: Any
    ) -> pb.RecommendResponse:
        """The prepared answer."""
        return self._answer


class NothingAsync(rpc.RetrievalServiceServicer):
    """The same on an event loop."""

    def __init__(self, answer: Any) -> None:
        self._answer = answer

    async def Retrieve(  # type: ignore[override]  # noqa: N802
        self, request: pb.RetrieveRequest, context: Any
    ) -> pb.RetrieveResponse:
        """The prepared answer."""
        return self._answer


def serve_threads(answer: Any) -> None:
    """Serve from a pool of threads until SIGTERM."""
    server = grpc.server(ThreadPoolExecutor(32))
    rpc.add_RetrievalServiceServicer_to_server(Nothing(answer), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(f"Serving nothing on 127.0.0.1:{port}", flush=True)
    stopped = threading.Event()
    on_signals({signal.SIGTERM: stopped.set})
    stopped.wait()
    server.stop(1).wait()


async def serve_loop(answer: Any) -> None:
    """Serve from an event loop until SIGTERM."""
    server = grpc.aio.server()
    rpc.add_RetrievalServiceServicer_to_server(NothingAsync(answer), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"Serving nothing on 127.0.0.1:{port}", flush=True)
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    await stopped.wait()
    await server.stop(1)


def main() -> None:
    """Serve the answer in the file until SIGTERM."""
    kind = pb.RecommendResponse if "--recommend" in sys.argv else pb.RetrieveResponse
    answer = kind.FromString(Path(sys.argv[1]).read_bytes())
    if "--aio" in sys.argv:
        asyncio.run(serve_loop(answer))
    else:
        serve_threads(answer)


if __name__ == "__main__":
    main()
