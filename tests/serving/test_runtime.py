"""Requests of many queries: answered in parts, as one answer."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from serving import encoder
from serving.config import ServerConfig
from serving.domain import (
    Budget,
    EmbedItemsRequest,
    EmbedRequest,
    History,
    ItemFeatures,
    RetrieveRequest,
    UserQuery,
)
from serving.errors import Cancelled
from serving.live.catalogue import Catalogue
from serving.pipeline import Answer
from serving.runtime import MAX_BATCH_QUERIES, Runtime
from tests.serving.tiny import DIM


@pytest.fixture(scope="module")
def runtime(value_bundle: Path, state: Path) -> Iterator[Runtime]:
    runtime = Runtime(ServerConfig(bundle=value_bundle, state=state))
    yield runtime
    runtime.close()


@pytest.fixture
def batches(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many queries each batch had."""
    compute, sizes = runtime._batcher._compute, []

    def counting(
        requests: Sequence[tuple[Catalogue, RetrieveRequest]],
    ) -> Sequence[Answer | Exception]:
        sizes.append(sum(len(request.queries) for _, request in requests))
        return compute(requests)

    monkeypatch.setattr(runtime._batcher, "_compute", counting)
    return sizes


def test_many_queries_are_answered_in_parts(runtime: Runtime, batches: list[int]) -> None:
    queries = [UserQuery(f"user-{u:03d}") for u in range(100)]
    queries[70] = UserQuery(history=History(["nothing"]))
    together = runtime.retrieve(RetrieveRequest(queries=queries, k=7))
    assert batches == [MAX_BATCH_QUERIES, 100 - MAX_BATCH_QUERIES]
    assert together.candidates is not None and together.candidates.counts.tolist() == [7] * 100
    assert len(together.readers) == len(together.vectors) == len(together.now) == 100
    (error,) = together.readers[70].errors
    assert (error.index, error.field) == (70, "queries[70].history.item_ids[0]")
    for i in (0, 63, 64, 99):
        alone = runtime.retrieve(RetrieveRequest(queries=queries[i : i + 1], k=7))
        assert alone.candidates is not None
        found = together.candidates.rows.reshape(100, 7)[i]
        assert found.tolist() == alone.candidates.rows.tolist()
    embedded = runtime.embed(EmbedRequest(queries=queries))
    assert embedded.candidates is None
    np.testing.assert_allclose(np.stack(embedded.vectors), np.stack(together.vectors))


def test_queries_of_many_vectors_count_as_several(runtime: Runtime, batches: list[int]) -> None:
    many = UserQuery(vectors=np.ones((32, DIM), np.float32))  # as many as 16 users have
    runtime.retrieve(RetrieveRequest(queries=[many] * 9, k=3))
    assert batches == [4, 4, 1]


def test_parts_are_not_begun_when_the_caller_has_gone(runtime: Runtime, batches: list[int]) -> None:
    answers = iter([True, False])
    leaving = Budget(is_wanted=lambda: next(answers))
    queries = [UserQuery(f"user-{u:03d}") for u in range(200)]
    with pytest.raises(Cancelled):
        runtime.retrieve(RetrieveRequest(queries=queries, k=7, budget=leaving))
    assert batches == [MAX_BATCH_QUERIES, MAX_BATCH_QUERIES]


def test_many_items_go_through_the_tower_in_parts(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = [
        ItemFeatures("video", {"price": float(i), "title": "竹" * (i % 9), "craft": "silver"})
        for i in range(300)
    ]
    _, in_parts = runtime.embed_items(EmbedItemsRequest(items=items))
    monkeypatch.setattr(encoder, "ITEMS_A_RUN", 1000)
    _, at_once = runtime.embed_items(EmbedItemsRequest(items=items))
    np.testing.assert_allclose(in_parts, at_once)
    assert in_parts.shape == (300, DIM)
    answers = iter([True, False])
    leaving = Budget(is_wanted=lambda: next(answers))
    monkeypatch.setattr(encoder, "ITEMS_A_RUN", 64)
    with pytest.raises(Cancelled):
        runtime.embed_items(EmbedItemsRequest(items=items, budget=leaving))
    assert next(answers, None) is None
    runtime.embed_items(EmbedItemsRequest(items=items[:1]))  # its turn was given back
