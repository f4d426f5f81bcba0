"""RecordEvents and DeleteUser of interest.v1.IngestService: protos in, protos out, nothing else."""

from interest.v1 import ingest_service_pb2, types_pb2
from serving.budget import Context, budget
from serving.request_protos import events_of
from serving.response_protos import put_errors
from serving.runtime import Runtime


class EventServicer:
    """The part of the service that is about people."""

    def __init__(self, runtime: Runtime, *, worker: str) -> None:
        self._runtime, self._worker = runtime, worker

    def RecordEvents(  # noqa: N802
        self, request: ingest_service_pb2.RecordEventsRequest, context: Context
    ) -> ingest_service_pb2.RecordEventsResponse:
        """What users did."""
        recorded = self._runtime.record_events(
            events_of(request.events, self._runtime.limits), budget(context)
        )
        response = ingest_service_pb2.RecordEventsResponse(
            info=self._info(),
            num_taken=recorded.num_taken,
            num_duplicates=recorded.num_duplicates,
        )
        put_errors(response.errors, recorded.errors)
        return response

    def DeleteUser(  # noqa: N802
        self, request: ingest_service_pb2.DeleteUserRequest, context: Context
    ) -> ingest_service_pb2.DeleteUserResponse:
        """Everything that is known of a person."""
        existed = self._runtime.delete_user(request.user_id)
        return ingest_service_pb2.DeleteUserResponse(info=self._info(), existed=existed)

    def _info(self) -> types_pb2.AnswerInfo:
        return types_pb2.AnswerInfo(
            bundle_version=self._runtime.generation.version, worker=self._worker
        )
