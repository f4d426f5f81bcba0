"""A gRPC server that does nothing but return one prepared Retrieve answer: the floor.

    python benchmarks/empty_server.py ANSWER-FILE

The same kind of server as Penchant's (threads, one process); it decodes the request and encodes
the answer each time, as any server must. Prints its address and runs until SIGTERM.
"""

import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc

from interest.v1 import retrieval_service_pb2 as pb
from interest.v1 import retrieval_service_pb2_grpc as rpc


class Nothing(rpc.RetrievalServiceServicer):
    """Answers every Retrieve with the same message."""

    def __init__(self, answer: pb.RetrieveResponse) -> None:
        self._answer = answer

    def Retrieve(  # noqa: N802  (the name of the RPC)
        self, request: pb.RetrieveRequest, context: Any
    ) -> pb.RetrieveResponse:
        """The prepared answer."""
        return self._answer


def main() -> None:
    """Serve until SIGTERM."""
    answer = pb.RetrieveResponse.FromString(Path(sys.argv[1]).read_bytes())
    server = grpc.server(ThreadPoolExecutor(32))
    rpc.add_RetrievalServiceServicer_to_server(Nothing(answer), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(f"Serving nothing on 127.0.0.1:{port}", flush=True)
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    stopped.wait()
    server.stop(1).wait()


if __name__ == "__main__":
    main()
