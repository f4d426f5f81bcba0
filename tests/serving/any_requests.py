"""Requests of any shape for every RPC: hypothesis strategies, likely values beside wild ones."""

import numpy as np
from hypothesis import strategies as st

from interest.v1 import (
    admin_service_pb2,
    circle_service_pb2,
    retrieval_service_pb2,
    types_pb2,
)
from tests.serving.raw_calls import ADMIN, CIRCLE, RETRIEVAL
from tests.serving.tiny import DIM, item_id

text = st.text(max_size=8) | st.sampled_from(
    ["user-005", item_id(3), "kind", "price", "watch", "x"]
)
vectors = st.builds(
    types_pb2.Vectors,
    data=st.binary(max_size=70) | st.just(np.ones(DIM, np.float32).tobytes()),
    dim=st.integers(0, 9) | st.just(2**32 - 1),
)
any_filter = st.recursive(
    st.builds(
        types_pb2.Filter,
        any_of=st.builds(types_pb2.AnyOf, field=text, values=st.lists(text, max_size=3)),
    )
    | st.builds(
        types_pb2.Filter,
        range=st.builds(
            types_pb2.Range, field=text, min=st.floats() | st.none(), max=st.floats() | st.none()
        ),
    ),
    lambda inner: st.builds(types_pb2.Filter, negation=inner),
    max_leaves=3,
)
query = st.builds(
    retrieval_service_pb2.UserQuery,
    user_id=text,
    history=st.none()
    | st.builds(
        types_pb2.History,
        item_ids=st.lists(text, max_size=4),
        events=st.lists(text, max_size=4),
        timestamps_us=st.lists(st.integers(-(2**63), 2**63 - 1), max_size=4),
    ),
    profile=st.lists(
        st.builds(types_pb2.Feature, name=text | st.just("city"), category=text)
        | st.builds(types_pb2.Feature, name=st.just("city"), vector=st.binary(max_size=9)),
        max_size=2,
    ),
    vectors=st.none() | vectors,
    exclude_item_ids=st.lists(text, max_size=3),
)
retrieve_request = st.builds(
    retrieval_service_pb2.RetrieveRequest,
    queries=st.lists(query, max_size=3),
    k=st.integers(0, 40) | st.integers(0, 2**32 - 1),
    filters=st.lists(any_filter, max_size=2),
    objective=st.sampled_from(["", "direct"]) | text,
    exclude_seen=st.booleans(),
    fields=st.lists(text, max_size=3),
    num_history=st.integers(0, 2**32 - 1) | st.just(3),
    time_us=st.integers(-(2**63), 2**63 - 1) | st.just(0),
)
similar_request = st.builds(
    retrieval_service_pb2.FindSimilarRequest,
    item_ids=st.lists(text, max_size=3),
    vectors=st.none() | vectors,
    k=st.integers(0, 40),
    filters=st.lists(any_filter, max_size=2),
    exclude_item_ids=st.lists(text, max_size=3),
    fields=st.lists(text, max_size=3),
)
embed_request = st.builds(
    retrieval_service_pb2.EmbedUsersRequest,
    queries=st.lists(query, max_size=3),
    objective=st.sampled_from(["", "direct"]) | text,
    time_us=st.integers(-(2**63), 2**63 - 1) | st.just(0),
)
weights = st.lists(
    st.builds(
        retrieval_service_pb2.ValueWeight,
        head=st.sampled_from(["watch", "order"]) | text,
        weight=st.floats(),
    ),
    max_size=3,
)
slate = st.builds(
    retrieval_service_pb2.Slate,
    diversity=st.none() | st.floats() | st.just(0.5),
    caps=st.lists(
        st.builds(
            retrieval_service_pb2.Cap,
            field=st.sampled_from(["circle", "craft", "tags"]) | text,
            most=st.integers(0, 2**32 - 1) | st.just(1),
        ),
        max_size=2,
    ),
    kinds=st.lists(
        st.builds(
            retrieval_service_pb2.KindShare,
            kind=st.sampled_from(["live", "video"]) | text,
            share=st.floats() | st.just(0.2),
        ),
        max_size=2,
    ),
    method=st.sampled_from(["", "mmr", "dpp"]) | text,
    window=st.just(0) | st.integers(0, 2**32 - 1),
    floors=st.lists(
        st.builds(
            retrieval_service_pb2.ExposureFloor,
            new_items=st.builds(
                retrieval_service_pb2.NewItems,
                max_age_days=st.just(0.0) | st.floats(),
                max_events=st.none() | st.integers(0, 2**32 - 1) | st.just(50),
            ),
            share=st.floats() | st.just(0.2),
            paced=st.booleans(),
            least=st.just(0) | st.integers(0, 2**32 - 1),
        )
        | st.builds(
            retrieval_service_pb2.ExposureFloor,
            small_creators=st.builds(
                retrieval_service_pb2.SmallCreators,
                field=st.just("craft") | text,
                tail=st.just(0.5) | st.floats(),
            ),
            share=st.just(0.2),
        )
        | st.builds(retrieval_service_pb2.ExposureFloor, filter=any_filter, share=st.just(0.3)),
        max_size=2,
    ),
    exploration=st.just(0.0) | st.just(0.5) | st.floats(),
    seed=st.integers(0, 2**64 - 1),
    origins=st.lists(
        st.builds(
            retrieval_service_pb2.OriginShare,
            origin=st.sampled_from(["adjacent", "exploratory"]) | text,
            share=st.floats() | st.just(0.2),
        ),
        max_size=2,
    ),
)
recommend_request = st.builds(
    retrieval_service_pb2.RecommendRequest,
    queries=st.lists(query, max_size=3),
    k=st.integers(0, 40) | st.integers(0, 2**32 - 1),
    num_candidates=st.just(0) | st.integers(0, 90) | st.integers(0, 2**32 - 1),
    filters=st.lists(any_filter, max_size=1),
    objective=st.just("") | text,
    include_seen=st.booleans(),
    fields=st.lists(text, max_size=2),
    time_us=st.integers(-(2**63), 2**63 - 1) | st.just(0),
    weights=st.just([]) | weights,
    slate=slate,
    explain=st.booleans(),
    language=st.sampled_from(["", "en", "zh"]) | text,
)
rerank_request = st.builds(
    retrieval_service_pb2.RerankRequest,
    queries=st.lists(query, min_size=1, max_size=2),
    item_ids=st.lists(text | st.sampled_from([item_id(r) for r in range(9)]), max_size=6),
    counts=st.lists(st.integers(0, 6) | st.integers(0, 2**32 - 1), min_size=1, max_size=2),
    k=st.just(0) | st.integers(0, 2**32 - 1),
    fields=st.lists(text, max_size=2),
    weights=st.just([]) | weights,
    slate=slate,
)
feature = st.builds(
    types_pb2.Feature, name=text | st.just("price"), number=st.floats()
) | st.builds(
    types_pb2.Feature, name=st.sampled_from(["craft", "title"]), vector=st.binary(max_size=9)
)
embed_items_request = st.builds(
    retrieval_service_pb2.EmbedItemsRequest,
    item_ids=st.lists(text, max_size=3),
    items=st.lists(
        st.builds(
            retrieval_service_pb2.ItemFeatures,
            kind=st.just("video") | text,
            features=st.lists(feature, max_size=2),
        ),
        max_size=2,
    ),
)
list_circles_request = st.builds(
    circle_service_pb2.ListCirclesRequest,
    level=st.sampled_from(["", "circle", "district"]) | text,
    district_id=st.none() | st.integers(0, 2**32 - 1),
    page_size=st.integers(0, 2**32 - 1) | st.just(3),
    page_token=st.sampled_from(["", "circle-1", "district-99999999999"]) | text,
)
get_circle_request = st.builds(
    circle_service_pb2.GetCircleRequest,
    circle_id=st.integers(0, 3) | st.integers(0, 2**32 - 1),
    fields=st.lists(text, max_size=2),
)
user_circles_request = st.builds(
    circle_service_pb2.GetUserCirclesRequest,
    queries=st.lists(query, max_size=3),
    n=st.integers(0, 5) | st.integers(0, 2**32 - 1),
    time_us=st.integers(-(2**63), 2**63 - 1) | st.just(0),
)
anything = st.one_of(
    st.tuples(st.just("ListCircles"), list_circles_request.map(lambda m: m.SerializeToString())),
    st.tuples(st.just("GetCircle"), get_circle_request.map(lambda m: m.SerializeToString())),
    st.tuples(st.just("GetUserCircles"), user_circles_request.map(lambda m: m.SerializeToString())),
    st.tuples(st.just("Retrieve"), retrieve_request.map(lambda m: m.SerializeToString())),
    st.tuples(st.just("FindSimilar"), similar_request.map(lambda m: m.SerializeToString())),
    st.tuples(st.just("EmbedUsers"), embed_request.map(lambda m: m.SerializeToString())),
    st.tuples(st.just("Recommend"), recommend_request.map(lambda m: m.SerializeToString())),
    st.tuples(st.just("Rerank"), rerank_request.map(lambda m: m.SerializeToString())),
    st.tuples(st.just("EmbedItems"), embed_items_request.map(lambda m: m.SerializeToString())),
    st.tuples(
        st.just("ListUsers"),
        st.builds(
            admin_service_pb2.ListUsersRequest,
            page_size=st.integers(0, 2**32 - 1) | st.just(3),
            page_token=text | st.integers().map(str),
        ).map(lambda m: m.SerializeToString()),
    ),
    st.tuples(st.sampled_from(sorted(ADMIN | CIRCLE | RETRIEVAL)), st.binary(max_size=60)),
)
