"""UpsertItems and DeleteItems of interest.v1.IngestService: protos in, protos out, nothing else."""

from interest.v1 import ingest_service_pb2, types_pb2
from serving.budget import Context, budget
from serving.request_protos import upsert_request
from serving.response_protos import put_errors
from serving.runtime import Runtime


class ItemServicer:
    """The part of the service that is about items."""

    def __init__(self, runtime: Runtime, *, worker: str) -> None:
        self._runtime, self._worker = runtime, worker

    def UpsertItems(  # noqa: N802
        self, request: ingest_service_pb2.UpsertItemsRequest, context: Context
    ) -> ingest_service_pb2.UpsertItemsResponse:
        """New items, and changes to known ones."""
        taken = self._runtime.upsert_items(
            upsert_request(request, budget(context), self._runtime.limits)
        )
        response = ingest_service_pb2.UpsertItemsResponse(
            info=self._info(), num_taken=taken.num_taken, sequence=taken.sequence
        )
        put_errors(response.errors, taken.errors)
        return response

    def DeleteItems(  # noqa: N802
        self, request: ingest_service_pb2.DeleteItemsRequest, context: Context
    ) -> ingest_service_pb2.DeleteItemsResponse:
        """Items that are gone for good."""
        taken = self._runtime.delete_items(list(request.item_ids))
        response = ingest_service_pb2.DeleteItemsResponse(
            info=self._info(), num_deleted=taken.num_taken, sequence=taken.sequence
        )
        put_errors(response.errors, taken.errors)
        return response

    def _info(self) -> types_pb2.AnswerInfo:
        return types_pb2.AnswerInfo(
            bundle_version=self._runtime.generation.version, worker=self._worker
        )
