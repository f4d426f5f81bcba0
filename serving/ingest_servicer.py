"""interest.v1.IngestService over one runtime: what happens is written here, and counts at once."""

from interest.v1 import ingest_service_pb2_grpc
from serving.event_servicer import EventServicer
from serving.item_servicer import ItemServicer


class IngestServicer(EventServicer, ItemServicer, ingest_service_pb2_grpc.IngestServiceServicer):
    """All of the service, put together of its parts."""
