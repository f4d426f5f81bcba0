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
    popularity: npt.NDArray[np.int64],
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


def _values(items: pa.Table, schema: Schema) -> Iterator[tuple[npt.NDArray[np.int64], list[str]]]:
    """(item rows, value) pairs of every category feature that a person can read.

    `kind` says nothing of interest, and a value that is itself an item's id (a creator) no word.
    """
    ids = items["item_id"].combine_chunks()
    for name, feature in schema.item_features.items():
        if feature.type not in ("category", "categories"):
            continue
        if name in items.column_names and _are_ids(items[name].combine_chunks(), ids):
            continue
        if feature.type == "category":
            column = items[name].combine_chunks()
            rows = np.flatnonzero(np.asarray(pc.is_valid(column)))
            yield rows, pc.drop_null(column).to_pylist()
        elif feature.type == "categories":
            column = items[name].combine_chunks()
            yield np.asarray(pc.list_parent_indices(column)), pc.list_flatten(column).to_pylist()


def _are_ids(column: pa.Array, ids: pa.Array) -> bool:
    values = pc.list_flatten(column) if pa.types.is_nested(column.type) else column
    known = pc.is_in(pc.drop_null(values), value_set=ids)
    return bool(pc.any(known).as_py())


def _top_features(
    circles: npt.NDArray[np.int64], num: int, items: pa.Table, schema: Schema
) -> list[list[str]]:
    """The values that are most each circle's own: share × log(share / share in the catalogue)."""
    found: list[list[tuple[float, str]]] = [[] for _ in range(num)]
    sizes = np.bincount(circles, minlength=num)
    for rows, values in _values(items, schema):
        if not len(rows):
            continue
        names, codes = np.unique(np.array(values, object).astype(str), return_inverse=True)
        counts = np.zeros((num, len(names)))
        np.add.at(counts, (circles[rows], codes), 1)
        share = counts / sizes[:, None]
        overall = counts.sum(axis=0) / len(circles)
        lift = share * np.log(np.maximum(share, 1e-9) / overall)
        # A quantity ("50-150") or a code ("c0042") sets items apart, but is no name for people.
        lift[:, [any(map(str.isdigit, name)) for name in names]] = 0
        for circle in range(num):
            for code in np.argsort(-lift[circle])[:NUM_TOP_FEATURES]:
                if share[circle, code] >= _MIN_SHARE and lift[circle, code] > 0:
                    found[circle].append((float(lift[circle, code]), str(names[code])))
    return [
        list(dict.fromkeys(name for _, name in sorted(pairs, reverse=True)))[:NUM_TOP_FEATURES]
        for pairs in found
    ]


def _names(
    features: list[list[str]],
    circles: npt.NDArray[np.int64],
    items: pa.Table,
    popularity: npt.NDArray[np.int64],
) -> list[str]:
    """The two most telling values; where circles share them, as many more as tell them apart, and
    where they share all of them, the best-known item as well. A circle without any has its number.
    """
    titles = items["title"]
    best_known = [
        titles[int(rows[np.argmax(popularity[rows])])].as_py()
        for rows in (np.flatnonzero(circles == circle) for circle in range(len(features)))
    ]
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
