"""Every RPC that the protos declare is answered by serving, none by the generated base classes."""

import pytest

from interest.v1 import (
    admin_service_pb2_grpc,
    circle_service_pb2_grpc,
    ingest_service_pb2_grpc,
    retrieval_service_pb2_grpc,
)
from serving.admin_servicer import AdminServicer
from serving.circle_servicer import CircleServicer
from serving.ingest_servicer import IngestServicer
from serving.servicer import RetrievalServicer

SERVED = [
    (admin_service_pb2_grpc.AdminServiceServicer, AdminServicer),
    (circle_service_pb2_grpc.CircleServiceServicer, CircleServicer),
    (ingest_service_pb2_grpc.IngestServiceServicer, IngestServicer),
    (retrieval_service_pb2_grpc.RetrievalServiceServicer, RetrievalServicer),
]


@pytest.mark.parametrize(("declared", "served"), SERVED, ids=lambda one: one.__name__)
def test_every_rpc_is_served(declared: type, served: type) -> None:
    names = [name for name in vars(declared) if not name.startswith("_")]
    assert names
    assert [n for n in names if getattr(served, n) is getattr(declared, n)] == []
