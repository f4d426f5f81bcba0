"""How much the inverted lists find where they read only some of them.

Filters are the hard part: random ones thin every list out, and those that follow the clusters leave
most lists empty and the rest far from most queries.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from model.ann import exact_search, open_index, recall_at, write_index
from model.ivf import Tuned, build_ivf, tune
from serving.index import ivf_index
from serving.index.base import Bitmap, Float32, Int64
from serving.index.ivf_index import IvfIndex, Packed

NUM_ROWS, NUM_CLUSTERS = 60_000, 60
Answer = tuple[Int64, Float32]


@dataclass(frozen=True)
class Built:
    index: IvfIndex
    tuned: Tuned
    vectors: Float32
    queries: Float32
    """Not those that the index was tuned with."""
    clusters: Int64


def clustered(rng: np.random.Generator) -> tuple[Float32, Float32, Int64]:
    """Vectors in clusters of unequal width and length, queries near them, clusters of the rows.

    Queries vary in a few directions and items in all, as users and items of trained towers do.
    """
    directions = 0.9 ** np.arange(64)
    centers = rng.normal(size=(NUM_CLUSTERS, 64)) * directions
    owner = rng.integers(NUM_CLUSTERS, size=NUM_ROWS)
    width = np.exp(0.4 * rng.normal(size=NUM_CLUSTERS))
    vectors = centers[owner] + 0.4 * width[owner, None] * rng.normal(size=(NUM_ROWS, 64))
    vectors *= np.exp(0.3 * rng.normal(size=(NUM_ROWS, 1)))
    near = centers[rng.integers(NUM_CLUSTERS, size=700)]
    queries = 6 * (near * directions + 0.3 * directions * rng.normal(size=(700, 64)))
    return vectors.astype(np.float32), queries.astype(np.float32), owner


@pytest.fixture(scope="module")
def built() -> Built:
    vectors, queries, owner = clustered(np.random.default_rng(5))
    made = build_ivf(vectors, queries[:500:2])
    tuned = tune(made, vectors, queries[:500])
    return Built(IvfIndex(made, vectors, tuned.setting), tuned, vectors, queries[500:], owner)


@pytest.fixture(autouse=True)
def lists_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where so few rows are allowed that they would be scored one and all."""
    monkeypatch.setattr(ivf_index, "SCAN_ROWS", 100)


def recall(built: Built, k: int = 100, allowed: Bitmap | None = None) -> float:
    mask = None if allowed is None else allowed.mask
    exact = exact_search(built.queries, built.vectors, k, allowed=mask)[0]
    return recall_at(built.index.search(built.queries, k, allowed=allowed)[0], exact)


def test_tuned_lists_find_what_they_promise(built: Built) -> None:
    assert built.tuned.recall >= 0.99
    assert recall(built) >= 0.99
    assert built.tuned.setting.probes < built.index._lists.nlist / 4, "it reads nearly everything"


@pytest.mark.parametrize("k", [1, 10, 150, 300, 1000])
def test_more_and_fewer_than_the_index_was_tuned_for(built: Built, k: int) -> None:
    assert recall(built, k) >= 0.985


def test_no_more_lists_are_read_than_there_are(built: Built) -> None:
    nlist = built.index._lists.nlist
    setting = replace(built.tuned.setting, probes=nlist - 1)
    index = IvfIndex(built.index._index, built.vectors, setting)
    exact = exact_search(built.queries, built.vectors, 150)[0]
    assert recall_at(index.search(built.queries, 150)[0], exact) >= 0.985


@pytest.mark.parametrize("share", [0.5, 0.1, 0.01])
def test_random_filters(built: Built, share: float) -> None:
    allowed = Bitmap(np.random.default_rng(1).random(NUM_ROWS) < share)
    assert recall(built, allowed=allowed) >= 0.99


@pytest.mark.parametrize("num_clusters", [30, 6, 1])
def test_filters_that_follow_the_lists(built: Built, num_clusters: int) -> None:
    assert recall(built, allowed=Bitmap(built.clusters < num_clusters)) >= 0.99


@pytest.mark.parametrize("num_clusters", [30, 6])
def test_filters_that_thin_out_some_clusters(built: Built, num_clusters: int) -> None:
    spread = np.random.default_rng(1).random(NUM_ROWS) < 0.1
    allowed = Bitmap((built.clusters < num_clusters) & spread)
    assert recall(built, allowed=allowed) >= 0.99


def test_a_narrow_filter_reads_few_lists(built: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    plain = built.index._read

    def counted(query: Float32, k: int, fetch: int, rows: Packed, lists: Int64) -> Answer:
        read.append(len(lists))
        return plain(query, k, fetch, rows, lists)

    monkeypatch.setattr(built.index, "_read", counted)
    recall(built, allowed=Bitmap(built.clusters == 0))
    assert len(read) == len(built.queries), "some queries were searched twice"
    assert max(read) < built.index._lists.nlist / 4


@pytest.mark.parametrize("num_excluded", [50, 300, 2000, 8000, 30_000])
@pytest.mark.parametrize("filtered", [False, True])
def test_long_exclusions(built: Built, num_excluded: int, filtered: bool) -> None:
    """The best rows are excluded, and as many more at random."""
    rng = np.random.default_rng(2)
    queries = built.queries[:50]
    best = np.argsort(-(queries @ built.vectors.T), axis=1)
    half = num_excluded // 2
    excluded = [
        np.unique(np.concatenate([row[:half], rng.integers(0, NUM_ROWS + 9, half)])) for row in best
    ]
    allowed = Bitmap(rng.random(NUM_ROWS) < 0.5) if filtered else None
    rows, _ = built.index.search(queries, 100, allowed=allowed, excluded=excluded)
    assert not any(np.isin(found, out).any() for found, out in zip(rows, excluded, strict=True))
    known = [out[out < NUM_ROWS] for out in excluded]
    mask = None if allowed is None else allowed.mask
    exact = exact_search(queries, built.vectors, 100, allowed=mask, excluded=known)[0]
    assert recall_at(rows, exact) >= 0.99


def test_a_batch_answers_as_its_queries_do(built: Built) -> None:
    allowed = Bitmap(built.clusters < 9)
    for bitmap in (None, allowed):
        rows, scores = built.index.search(built.queries[:20], 100, allowed=bitmap)
        for i in range(20):
            one = built.index.search(built.queries[i : i + 1], 100, allowed=bitmap)
            assert np.array_equal(rows[i], one[0][0]) and np.array_equal(scores[i], one[1][0])


def test_lists_survive_the_disk(built: Built, tmp_path: Path) -> None:
    write_index(built.index._index, tmp_path / "index.faiss")
    opened = IvfIndex(open_index(tmp_path / "index.faiss"), built.vectors, built.tuned.setting)
    assert (opened.num_rows, opened.dim) == (NUM_ROWS, 64)
    for allowed in (None, Bitmap(built.clusters < 5)):
        rows, scores = built.index.search(built.queries, 100, allowed=allowed)
        again = opened.search(built.queries, 100, allowed=allowed)
        assert np.array_equal(rows, again[0]) and np.array_equal(scores, again[1])


@pytest.mark.parametrize(("k", "filtered"), [(10, False), (300, False), (10, True)])
def test_in_a_hurry_it_reads_less_and_never_says_what_is_wrong(
    built: Built, k: int, filtered: bool
) -> None:
    quick = built.index.quick(0.25)
    allowed = Bitmap(built.clusters < 30) if filtered else None
    mask = None if allowed is None else allowed.mask
    queries = built.queries[:60]
    rows, scores = quick.search(queries, k, allowed=allowed)
    exact, _ = exact_search(queries, built.vectors, k, allowed=mask)
    found = recall_at(rows, exact)
    usual = recall_at(built.index.search(queries, k, allowed=allowed)[0], exact)
    assert 0.5 < found < usual
    for query, some, given in zip(queries, rows, scores, strict=True):
        real = some >= 0
        np.testing.assert_allclose(built.vectors[some[real]] @ query, given[real], rtol=1e-4)
        assert mask is None or mask[some[real]].all()
    # The index that it was made from reads as much as before.
    assert recall_at(built.index.search(queries, k, allowed=allowed)[0], exact) == usual
