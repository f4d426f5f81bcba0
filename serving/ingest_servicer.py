"""interest.v1.IngestService over one runtime: what happens is written here, and counts at once."""

from interest.v1 import ingest_service_pb2_grpc
from serving.item_servicer import ItemServicer


class IngestServicer(ItemServicer, ingest_service_pb2_grpc.IngestServiceServicer):
    """All of the service."""
