"""interest.v1.CircleService over one runtime: protos in, protos out, nothing else.

Apart from RetrievalService, whose threads answer on the hot path: these calls have two of their own
(serving/interceptors.py), and however many come, no recommendation waits for them.
"""

import time
from collections.abc import Sequence

import numpy as np

from interest.v1 import circle_service_pb2, circle_service_pb2_grpc, types_pb2
from serving.budget import Context, budget
from serving.checks import between
from serving.circle_results import Circle
from serving.circles import CircleMap, Shares, event_weights
from serving.domain import EmbedRequest
from serving.live.catalogue import Catalogue
from serving.readers import Readers
from serving.request_protos import circle_queries
from serving.response_protos import put_columns, put_readers
from serving.runtime import Runtime
from serving.validate import check_embed, check_fields
from serving.validate_circles import listed


class CircleServicer(circle_service_pb2_grpc.CircleServiceServicer):
    """interest.v1.CircleService over one runtime."""

    def __init__(self, runtime: Runtime, *, worker: str) -> None:
        self._runtime, self._worker = runtime, worker

    def ListCircles(  # noqa: N802
        self, request: circle_service_pb2.ListCirclesRequest, context: Context
    ) -> circle_service_pb2.ListCirclesResponse:
        """The circles and districts there are."""
        catalogue = self._runtime.catalogue
        circles = catalogue.generation.circles
        ids, more = listed(
            request.level,
            request.district_id if request.HasField("district_id") else None,
            request.page_size,
            request.page_token,
            limits=self._runtime.limits,
            circles=circles,
        )
        return circle_service_pb2.ListCirclesResponse(
            info=self._info(catalogue),
            circles=[_circle(circles.get(one), catalogue) for one in ids],
            next_page_token=more,
        )

    def GetCircle(  # noqa: N802
        self, request: circle_service_pb2.GetCircleRequest, context: Context
    ) -> circle_service_pb2.GetCircleResponse:
        """One circle or district."""
        catalogue = self._runtime.catalogue
        circles = catalogue.generation.circles
        found = circles.get(request.circle_id)
        check_fields(
            request.fields, len(found.sample_items), self._runtime.limits, catalogue.generation
        )
        response = circle_service_pb2.GetCircleResponse(
            info=self._info(catalogue),
            circle=_circle(found, catalogue),
            neighbours=[_circle(circles.get(one), catalogue) for one in found.neighbours],
        )
        rows = catalogue.rows_of(list(response.circle.sample_item_ids))
        put_columns(response.sample_columns, rows, catalogue, request.fields)
        return response

    def GetUserCircles(  # noqa: N802
        self, request: circle_service_pb2.GetUserCirclesRequest, context: Context
    ) -> circle_service_pb2.GetUserCirclesResponse:
        """Where users are at home."""
        catalogue, limits = self._runtime.catalogue, self._runtime.limits
        generation = catalogue.generation
        asked = EmbedRequest(
            queries=circle_queries(request, limits),
            time_us=request.time_us,
            whole_history=True,
            budget=budget(context),
        )
        check_embed(asked, limits, generation)
        between("n", request.n, 1, limits.max_page, unit="circles")
        source, clock, readers = Readers(catalogue, self._runtime.store), time.time_ns() // 1000, []
        for i, query in enumerate(asked.queries):
            asked.budget.check()
            readers.append(source.read(query, i, asked, clock=clock))
        shares = generation.circles.shares(
            [catalogue.codes_of("circle", reader.rows).astype(np.int64) for reader in readers],
            [event_weights(generation.schema, reader.events, reader.times) for reader in readers],
            most=request.n,
        )
        response = circle_service_pb2.GetUserCirclesResponse(info=self._info(catalogue))
        _put_shares(response.circles, shares["circle"], generation.circles)
        _put_shares(response.districts, shares["district"], generation.circles)
        put_readers(response, readers)
        return response

    def _info(self, catalogue: Catalogue) -> types_pb2.AnswerInfo:
        return types_pb2.AnswerInfo(
            bundle_version=catalogue.generation.version, worker=self._worker
        )


def _circle(circle: Circle, catalogue: Catalogue) -> circle_service_pb2.Circle:
    return circle_service_pb2.Circle(
        circle_id=circle.circle_id,
        level=circle.level,
        name=circle.name,
        top_features=circle.top_features,
        size=circle.size,
        district_id=circle.district_id,
        recent_events=circle.recent_events,
        growth=circle.growth,
        neighbour_ids=circle.neighbours,
        sample_item_ids=_shown(circle.sample_items, catalogue),
        predecessor_ids=circle.predecessors,
        predecessor_shares=circle.predecessor_shares,
    )


def _shown(item_ids: Sequence[str], catalogue: Catalogue) -> list[str]:
    """Those that may be retrieved now."""
    _, shown = catalogue.shown_of(item_ids)
    return [one for one, is_shown in zip(item_ids, shown.tolist(), strict=True) if is_shown]


def _put_shares(
    target: circle_service_pb2.CircleShares, shares: Shares, circles: CircleMap
) -> None:
    ids, places = np.unique(shares.ids, return_inverse=True)
    target.circle_ids.extend(shares.ids.tolist())
    target.shares.extend(shares.shares.tolist())
    target.counts.extend(shares.counts.tolist())
    target.name_indexes.extend(places.tolist())
    target.names.extend(circles.name_of(one) for one in ids.tolist())
