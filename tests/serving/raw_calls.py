"""Raw bytes to any RPC of a running server, past the client and its checks."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import grpc

from interest.v1 import (
    admin_service_pb2,
    circle_service_pb2,
    retrieval_service_pb2,
    types_pb2,
)
from serving.status import DETAIL_KEY

ADMIN = set(admin_service_pb2.DESCRIPTOR.services_by_name["AdminService"].methods_by_name)
CIRCLE = set(circle_service_pb2.DESCRIPTOR.services_by_name["CircleService"].methods_by_name)
RETRIEVAL = set(
    retrieval_service_pb2.DESCRIPTOR.services_by_name["RetrievalService"].methods_by_name
)

RawCall = Callable[[str, bytes], tuple[grpc.StatusCode, types_pb2.ErrorDetail, bytes]]


@contextlib.contextmanager
def raw_calls(address: str) -> Iterator[RawCall]:
    """call(RPC, bytes): the error's status and detail come back, or the bytes of the answer."""
    with grpc.insecure_channel(address) as channel:

        def send(rpc: str, data: bytes) -> tuple[grpc.StatusCode, types_pb2.ErrorDetail, bytes]:
            service = "Admin" if rpc in ADMIN else "Circle" if rpc in CIRCLE else "Retrieval"
            method = channel.unary_unary(f"/interest.v1.{service}Service/{rpc}", None, None)
            try:
                answer = method(data, timeout=10)
                return grpc.StatusCode.OK, types_pb2.ErrorDetail(), answer
            except grpc.RpcError as error:
                trailing: dict[str, Any] = dict(error.trailing_metadata())  # type: ignore[arg-type]
                assert DETAIL_KEY in trailing, error
                detail = types_pb2.ErrorDetail.FromString(trailing[DETAIL_KEY])
                return error.code(), detail, b""

        yield send
