"""The client's calls about circles. Sends nothing itself."""

from collections.abc import Sequence

import numpy as np

from interest.v1 import circle_service_pb2
from serving.circle_results import Circle, CirclePage, CircleShares, FoundCircle, UserCircles
from serving.client_answers import part_errors, read_columns, read_source
from serving.client_messages import Users, message, query_messages
from serving.translation import Call

_SERVICE = "/interest.v1.CircleService"


def list_circles_call(
    level: str, district_id: int | None, page_size: int, page_token: str
) -> Call[CirclePage]:
    """ListCircles. Raises BadRequest for what no message can say."""
    return Call(
        f"{_SERVICE}/ListCircles",
        message(
            circle_service_pb2.ListCirclesRequest,
            level=level,
            district_id=district_id,
            page_size=page_size,
            page_token=page_token,
        ),
        circle_service_pb2.ListCirclesResponse,
        _page,
    )


def get_circle_call(circle_id: int, fields: Sequence[str]) -> Call[FoundCircle]:
    """GetCircle. Raises BadRequest for what no message can say."""
    return Call(
        f"{_SERVICE}/GetCircle",
        message(circle_service_pb2.GetCircleRequest, circle_id=circle_id, fields=fields),
        circle_service_pb2.GetCircleResponse,
        _found,
    )


def get_user_circles_call(users: Users, n: int, time_us: int) -> Call[UserCircles]:
    """GetUserCircles. Raises BadRequest for what no message can say."""
    return Call(
        f"{_SERVICE}/GetUserCircles",
        message(
            circle_service_pb2.GetUserCirclesRequest,
            queries=query_messages(users),
            n=n,
            time_us=time_us,
        ),
        circle_service_pb2.GetUserCirclesResponse,
        _user_circles,
    )


def _page(response: circle_service_pb2.ListCirclesResponse) -> CirclePage:
    return CirclePage(
        circles=[_circle(one) for one in response.circles],
        next_page_token=response.next_page_token,
        source=read_source(response.info),
    )


def _found(response: circle_service_pb2.GetCircleResponse) -> FoundCircle:
    return FoundCircle(
        circle=_circle(response.circle),
        neighbours=[_circle(one) for one in response.neighbours],
        sample_columns=read_columns(response.sample_columns),
        source=read_source(response.info),
    )


def _user_circles(response: circle_service_pb2.GetUserCirclesResponse) -> UserCircles:
    return UserCircles(
        circles=_shares(response.circles),
        districts=_shares(response.districts),
        cold=np.array(response.cold, np.bool_),
        history_lengths=np.array(response.history_lengths, np.int64),
        errors=part_errors(response.errors),
        source=read_source(response.info),
    )


def _shares(shares: circle_service_pb2.CircleShares) -> CircleShares:
    names = list(shares.names)
    return CircleShares(
        ids=np.array(shares.circle_ids, np.int64),
        names=[names[i] for i in shares.name_indexes],
        shares=np.array(shares.shares, np.float32),
        counts=np.array(shares.counts, np.int64),
    )


def _circle(one: circle_service_pb2.Circle) -> Circle:
    return Circle(
        circle_id=one.circle_id,
        level="district" if one.level == "district" else "circle",
        name=one.name,
        top_features=list(one.top_features),
        size=one.size,
        district_id=one.district_id if one.HasField("district_id") else None,
        recent_events=one.recent_events if one.HasField("recent_events") else None,
        growth=one.growth if one.HasField("growth") else None,
        neighbours=list(one.neighbour_ids),
        sample_items=list(one.sample_item_ids),
        predecessors=list(one.predecessor_ids),
        predecessor_shares=list(one.predecessor_shares),
    )
