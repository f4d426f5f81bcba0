"""Circles: clusters of the item space, with names a person can read.

Spherical k-means over item vectors; a circle is named by the feature values that are most its own.
Knows nothing of users.
"""

from collections import Counter
from collections.abc import Iterator
from typing import cast

import faiss
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from model.schema import Schema

Float32 = npt.NDArray[np.float32]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]

NUM_NEIGHBOURS = 5
NUM_TOP_FEATURES = 5
_MIN_SHARE = 0.15
"""A value may name a circle if at least this share of its items have it."""

CIRCLE_SCHEMA = pa.schema(
    [
        ("circle_id", pa.int32()),
        ("name", pa.string()),
        ("top_features", pa.list_(pa.string())),
        ("size", pa.int64()),
        ("centroid", pa.list_(pa.float32())),
        ("neighbours", pa.list_(pa.int32())),
    ]
)


def find_circles(
    vectors: Float32,
    items: pa.Table,
    schema: Schema,
    popularity: Int64,
    *,
    seed: int,
) -> tuple[pa.Table, Int32]:
    """Cluster items and name the clusters.

    vectors: [N, D] float32, row i is items row i. popularity: [N] training events.

    Returns the table of circles.parquet and each item's circle [N] int32.
    """
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    count = num_circles(len(vectors))
    means = faiss.Kmeans(
        vectors.shape[1],
        count,
        niter=25,
        nredo=2,
        seed=seed,
        spherical=True,
        min_points_per_centroid=1,
        max_points_per_centroid=256,
    )
    means.train(np.ascontiguousarray(unit, np.float32))
    centroids = cast(Float32, means.centroids)
    nearest = means.index.search(np.ascontiguousarray(unit, np.float32), 1)[1][:, 0]
    # A cluster that lost all its items is no circle.
    used, circles = np.unique(nearest, return_inverse=True)
    centroids = centroids[used]
    between = centroids @ centroids.T
    np.fill_diagonal(between, -np.inf)
    neighbours = np.argsort(-between, axis=1)[:, : min(NUM_NEIGHBOURS, len(used) - 1)]
    features = _top_features(circles, len(used), items, schema)
    table = pa.table(
        {
            "circle_id": np.arange(len(used), dtype=np.int32),
            "name": _names(features, circles, items, popularity),
            "top_features": features,
            "size": np.bincount(circles, minlength=len(used)),
            "centroid": list(centroids),
            "neighbours": [row.astype(np.int32) for row in neighbours],
        },
        schema=CIRCLE_SCHEMA,
    )
    return table, circles.astype(np.int32)


def num_circles(num_items: int) -> int:
    """One and a half times the square root of the catalogue: 88 for 3,416 items, 1,500 for a
    million; fewer put several crafts of the default world into one circle."""
    return int(np.clip(round(1.5 * num_items**0.5), 1, min(num_items, 8192)))


def _values(items: pa.Table, schema: Schema) -> Iterator[tuple[Int64, Int64, list[str]]]:
    """Every category feature that a person can read: item rows and value codes [n] of all its
    cells, and the values that the codes stand for.

    `kind` says nothing of interest, and a value that is itself an item's id (a creator) no word.
    """
    ids = items["item_id"].combine_chunks()
    for name, feature in schema.item_features.items():
        if feature.type not in ("category", "categories"):
            continue
        column = items[name].combine_chunks()
        if feature.type == "category":
            rows = np.flatnonzero(np.asarray(pc.is_valid(column)))
            values = pc.drop_null(column).dictionary_encode()
        else:
            rows = np.asarray(pc.list_parent_indices(column)).astype(np.int64)
            values = pc.list_flatten(column).dictionary_encode()
        if len(rows) and not pc.any(pc.is_in(values.dictionary, value_set=ids)).as_py():
            yield rows, values.indices.to_numpy().astype(np.int64), values.dictionary.to_pylist()


def _top_features(circles: Int64, num: int, items: pa.Table, schema: Schema) -> list[list[str]]:
    """The values that are most each circle's own: share × log(share / share in the catalogue).

    Only the pairs of circle and value that occur are counted: a catalogue of a million items has
    thousands of circles and may have as many creators as it likes.
    """
    found: list[list[tuple[float, str]]] = [[] for _ in range(num)]
    sizes = np.bincount(circles, minlength=num)
    for rows, codes, names in _values(items, schema):
        pairs, counts = np.unique(circles[rows] * len(names) + codes, return_counts=True)
        circle, code = np.divmod(pairs, len(names))
        share = counts / sizes[circle]
        often = share >= _MIN_SHARE
        circle, code, share = circle[often], code[often], share[often]
        overall = np.bincount(codes, minlength=len(names))[code] / len(circles)
        lift = share * np.log(share / overall)
        for place in np.flatnonzero(lift > 0).tolist():
            name = names[code[place]]
            # A quantity ("50-150") or a code ("c0042") sets items apart, but is no name for people.
            if not any(map(str.isdigit, name)):
                found[circle[place]].append((float(lift[place]), name))
    return [
        list(dict.fromkeys(name for _, name in sorted(pairs, reverse=True)))[:NUM_TOP_FEATURES]
        for pairs in found
    ]


def _names(
    features: list[list[str]], circles: Int64, items: pa.Table, popularity: Int64
) -> list[str]:
    """The two most telling values; where circles share them, as many more as tell them apart, and
    where they share all of them, the best-known item as well. A circle without any has its number.
    """
    # Circle by circle, the most popular item first, and the first in the file among equals.
    order = np.lexsort((-popularity, circles))
    first = np.searchsorted(circles[order], np.arange(len(features)))
    best_known = items["title"].take(pa.array(order[first])).to_pylist()
    names = [" · ".join(values[:2]) for values in features]
    for depth in range(3, NUM_TOP_FEATURES + 1):
        shared = {name for name, count in Counter(names).items() if count > 1}
        names = [
            " · ".join(values[:depth]) if name in shared else name
            for name, values in zip(names, features, strict=True)
        ]
    counts = Counter(names)
    return [
        name
        if name and counts[name] == 1
        else f"{name} ({title})"
        if name and title
        else name or title or f"circle {circle}"
        for circle, (name, title) in enumerate(zip(names, best_known, strict=True))
    ]
