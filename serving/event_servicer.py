"""RecordEvents, StreamEvents and DeleteUser of interest.v1.IngestService: protos in, protos out,
nothing else."""

import time
from collections.abc import Iterator

from interest.v1 import ingest_service_pb2, types_pb2
from serving.budget import Context, budget
from serving.metrics import CALL_SECONDS
from serving.recording import Recording
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

    def StreamEvents(  # noqa: N802
        self, request_iterator: Iterator[ingest_service_pb2.StreamEventsRequest], context: Context
    ) -> Iterator[ingest_service_pb2.StreamEventsResponse]:
        """What users did, over one connection; see serving/streaming.py."""
        runtime = self._runtime

        def begin(
            request: ingest_service_pb2.StreamEventsRequest,
        ) -> tuple[int, int, Recording]:
            events = events_of(request.events, runtime.limits)
            return request.sequence, len(events), runtime.begin_recording(events)

        for found in runtime.streams.acknowledge(request_iterator, begin):
            response = ingest_service_pb2.StreamEventsResponse(
                sequence=found.sequence,
                num_taken=found.recorded.num_taken,
                num_duplicates=found.recorded.num_duplicates,
            )
            put_errors(response.errors, found.recorded.errors)
            yield response
            now = time.perf_counter()
            for came in found.came:
                CALL_SECONDS.labels("StreamEvents").observe(now - came)

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
