"""The services of interest.v1 over one runtime: a question in, an answer out; nothing else.

Protos become questions in serving/request_protos.py, answers protos in serving/response_protos.py.
"""

import dataclasses
import time
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

import numpy as np

from interest.v1 import (
    admin_service_pb2,
    admin_service_pb2_grpc,
    retrieval_service_pb2,
    retrieval_service_pb2_grpc,
    types_pb2,
)
from serving.budget import Context, budget
from serving.domain import NO_LIMIT, Slates
from serving.metrics import CANDIDATES, COLD
from serving.pipeline import Answer
from serving.rank.costs import DEGRADATIONS
from serving.request_protos import (
    embed_items_request,
    embed_request,
    recommend_request,
    rerank_request,
    retrieve_request,
    similar_request,
)
from serving.response_protos import (
    put_candidates,
    put_errors,
    put_history,
    put_provenance,
    put_readers,
)
from serving.runtime import Runtime
from serving.stages import stage


class RetrievalServicer(retrieval_service_pb2_grpc.RetrievalServiceServicer):
    """interest.v1.RetrievalService over one runtime."""

    def __init__(self, runtime: Runtime, *, worker: str) -> None:
        self._runtime = runtime
        self._worker = worker

    def Recommend(  # noqa: N802
        self, request: retrieval_service_pb2.RecommendRequest, context: Context
    ) -> retrieval_service_pb2.RecommendResponse:
        """What to show to each user."""
        wish = recommend_request(request, budget(context), self._runtime.limits)
        return self._shown(request.fields, *self._runtime.recommend(wish))

    def Rerank(  # noqa: N802
        self, request: retrieval_service_pb2.RerankRequest, context: Context
    ) -> retrieval_service_pb2.RecommendResponse:
        """The caller's candidates, ranked and arranged."""
        wish = rerank_request(request, budget(context), self._runtime.limits)
        return self._shown(request.fields, *self._runtime.rerank(wish))

    def _shown(
        self, fields: Sequence[str], answer: Answer, slates: Slates
    ) -> retrieval_service_pb2.RecommendResponse:
        began = time.perf_counter()
        with stage("pack"):
            left_out = [name for name in DEGRADATIONS if name in answer.left_out + slates.left_out]
            response = retrieval_service_pb2.RecommendResponse(info=self._info(answer, left_out))
            put_candidates(response.candidates, slates.candidates, answer.catalogue, fields)
            put_provenance(response.provenance, slates, answer.catalogue.generation)
            put_readers(response, answer.readers)
            put_errors(response.errors, slates.errors)
        num_shown = len(slates.values)
        size = num_shown + len(slates.candidates.counts)
        self._runtime.answered(size, time.perf_counter() - began)
        CANDIDATES.inc(num_shown)
        if any(response.cold):
            COLD.inc(sum(response.cold))
        return response

    def _info(self, answer: Answer, left_out: Sequence[str]) -> types_pb2.AnswerInfo:
        return types_pb2.AnswerInfo(
            bundle_version=answer.catalogue.generation.version,
            worker=self._worker,
            left_out=left_out,
        )

    def EmbedItems(  # noqa: N802
        self, request: retrieval_service_pb2.EmbedItemsRequest, context: Context
    ) -> retrieval_service_pb2.EmbedItemsResponse:
        """The vectors of items."""
        vectors = self._runtime.embed_items(
            embed_items_request(request, budget(context), self._runtime.limits)
        )
        return retrieval_service_pb2.EmbedItemsResponse(
            info=types_pb2.AnswerInfo(
                bundle_version=self._runtime.generation.version, worker=self._worker
            ),
            vectors=types_pb2.Vectors(
                data=vectors.astype("<f4", copy=False).tobytes(), dim=vectors.shape[1]
            ),
        )

    def Retrieve(  # noqa: N802
        self, request: retrieval_service_pb2.RetrieveRequest, context: Context
    ) -> retrieval_service_pb2.RetrieveResponse:
        """The items nearest to each user's interests."""
        answer = self._runtime.retrieve(
            retrieve_request(request, budget(context), self._runtime.limits)
        )
        response = self._retrieved(request, answer)
        CANDIDATES.inc(len(response.candidates.item_ids))
        cold = sum(response.cold)
        if cold:
            COLD.inc(cold)
        return response

    def rehearse(self, request: retrieval_service_pb2.RetrieveRequest) -> None:
        """Do what Retrieve does, and count it nowhere: it warms up the code and the caches."""
        self._retrieved(
            request,
            self._runtime.rehearse(retrieve_request(request, NO_LIMIT, self._runtime.limits)),
        )

    def _retrieved(
        self, request: retrieval_service_pb2.RetrieveRequest, answer: Answer
    ) -> retrieval_service_pb2.RetrieveResponse:
        assert answer.candidates is not None
        info = self._info(answer, answer.left_out)
        with stage("pack"):
            response = retrieval_service_pb2.RetrieveResponse(info=info)
            put_candidates(response.candidates, answer.candidates, answer.catalogue, request.fields)
            put_readers(response, answer.readers)
            if request.num_history:
                put_history(response.history, answer.readers, answer.catalogue, request.fields)
        return response

    def FindSimilar(  # noqa: N802
        self, request: retrieval_service_pb2.FindSimilarRequest, context: Context
    ) -> retrieval_service_pb2.FindSimilarResponse:
        """The items nearest to given items or vectors."""
        answer = self._runtime.similar(
            similar_request(request, budget(context), self._runtime.limits)
        )
        assert answer.candidates is not None
        response = retrieval_service_pb2.FindSimilarResponse(
            info=self._info(answer, answer.left_out)
        )
        put_candidates(response.candidates, answer.candidates, answer.catalogue, request.fields)
        CANDIDATES.inc(len(answer.candidates.rows))
        return response

    def EmbedUsers(  # noqa: N802
        self, request: retrieval_service_pb2.EmbedUsersRequest, context: Context
    ) -> retrieval_service_pb2.EmbedUsersResponse:
        """Each user's interest vectors."""
        answer = self._runtime.embed(embed_request(request, budget(context), self._runtime.limits))
        interests = np.stack(answer.vectors)
        response = retrieval_service_pb2.EmbedUsersResponse(
            info=self._info(answer, ()),
            interests=types_pb2.Vectors(
                data=interests.astype("<f4", copy=False).tobytes(), dim=interests.shape[2]
            ),
            num_interests=interests.shape[1],
        )
        put_readers(response, answer.readers)
        return response


class AdminServicer(admin_service_pb2_grpc.AdminServiceServicer):
    """interest.v1.AdminService over one runtime."""

    def __init__(self, runtime: Runtime, *, worker: str) -> None:
        self._runtime, self._worker = runtime, worker

    def GetStatus(  # noqa: N802
        self, request: admin_service_pb2.GetStatusRequest, context: Context
    ) -> admin_service_pb2.GetStatusResponse:
        """The worker that answers, and the bundle that it serves."""
        generation = self._runtime.generation
        bundle, manifest = generation.bundle, generation.bundle.manifest
        return admin_service_pb2.GetStatusResponse(
            info=types_pb2.AnswerInfo(bundle_version=generation.version, worker=self._worker),
            server_version=_release(),
            uptime_seconds=time.monotonic() - self._runtime.ready_at,
            bundle=admin_service_pb2.BundleStatus(
                version=generation.version,
                name=generation.schema.name,
                created=manifest.created.isoformat(),
                as_of=manifest.as_of.isoformat() if manifest.as_of else "",
                num_items=generation.items.num_items,
                num_active=generation.items.num_active,
                dim=bundle.dim,
                num_interests=bundle.num_interests,
                max_history=bundle.max_history,
                num_circles=bundle.circles.num_rows,
                objectives=bundle.objectives,
                history_events=list(generation.event_codes),
                filterable=list(generation.schema.filterable()),
                columns=generation.columns,
                heads=[] if generation.value is None else generation.value.heads,
                default_weights=[]
                if generation.value is None
                else generation.value.default_weights.tolist(),
            ),
            store=admin_service_pb2.StoreStatus(
                kind="sqlite", num_users=self._runtime.store.num_users()
            ),
            limits=admin_service_pb2.Limits(**dataclasses.asdict(self._runtime.limits)),
        )

    def ListUsers(  # noqa: N802
        self, request: admin_service_pb2.ListUsersRequest, context: Context
    ) -> admin_service_pb2.ListUsersResponse:
        """The users of the store, page by page."""
        users = self._runtime.list_users(request.page_size, request.page_token)
        return admin_service_pb2.ListUsersResponse(
            info=types_pb2.AnswerInfo(
                bundle_version=self._runtime.generation.version, worker=self._worker
            ),
            user_ids=[user_id for _, user_id, _ in users],
            num_events=[num_events for _, _, num_events in users],
            next_page_token=str(users[-1][0]) if len(users) == request.page_size else "",
        )


def _release() -> str:
    try:
        return version("penchant")
    except PackageNotFoundError:
        return "uninstalled"
