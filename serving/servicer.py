"""interest.v1.RetrievalService over one runtime: a question in, an answer out; nothing else.

Protos become questions in serving/request_protos.py, answers protos in serving/response_protos.py.
"""

import time
from collections.abc import Sequence

import numpy as np

from interest.v1 import (
    retrieval_service_pb2,
    retrieval_service_pb2_grpc,
    types_pb2,
)
from serving.budget import Context, budget
from serving.domain import NO_LIMIT, Slates
from serving.metrics import CANDIDATES, COLD
from serving.pipeline import Answer
from serving.rank.costs import DEGRADATIONS
from serving.rank.explain import explanations
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
    put_origins,
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
        return self._shown(request, *self._runtime.recommend(wish))

    def Rerank(  # noqa: N802
        self, request: retrieval_service_pb2.RerankRequest, context: Context
    ) -> retrieval_service_pb2.RecommendResponse:
        """The caller's candidates, ranked and arranged."""
        wish = rerank_request(request, budget(context), self._runtime.limits)
        return self._shown(request, *self._runtime.rerank(wish))

    def _shown(
        self,
        request: retrieval_service_pb2.RecommendRequest | retrieval_service_pb2.RerankRequest,
        answer: Answer,
        slates: Slates,
    ) -> retrieval_service_pb2.RecommendResponse:
        began = time.perf_counter()
        with stage("pack"):
            left_out = [name for name in DEGRADATIONS if name in answer.left_out + slates.left_out]
            response = retrieval_service_pb2.RecommendResponse(info=self._info(answer, left_out))
            put_candidates(response.candidates, slates.candidates, answer.catalogue, request.fields)
            origins = put_origins(response.candidates, answer, slates.candidates)
            put_provenance(response.provenance, slates, answer.catalogue.generation)
            if request.explain:
                places, texts = explanations(
                    answer.catalogue, answer.readers, slates.candidates, origins, request.language
                )
                response.provenance.explanations.extend(places)
                response.provenance.explanation_texts.extend(texts)
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
        generation, vectors = self._runtime.embed_items(
            embed_items_request(request, budget(context), self._runtime.limits)
        )
        return retrieval_service_pb2.EmbedItemsResponse(
            info=types_pb2.AnswerInfo(bundle_version=generation.version, worker=self._worker),
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
            put_origins(response.candidates, answer, answer.candidates)
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
