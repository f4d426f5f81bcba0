"""The circles of a catalogue: found, named, and told apart from those of the bundle before.

Puts together what the modules beside it know: where clusters lie, whose successors they are, what
they are called, how they grow. Knows no users.
"""

from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from model.circles import CIRCLE_SCHEMA, Level
from model.schema import Schema
from training.circles.clusters import (
    find_clusters,
    find_districts,
    means,
    num_circles,
    num_districts,
    unit,
)
from training.circles.growth import Growth, growth_of
from training.circles.identity import Changes, Identity, fresh, identify
from training.circles.naming import MIN_SHARES, names_of, top_features
from training.circles.previous import Previous
from training.circles.samples import best_known, samples_of

Bool = npt.NDArray[np.bool_]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]

NUM_NEIGHBOURS = 5
NUM_SAMPLES = 5
_SLACK = 1.25
"""There stay as many circles as there were, unless that is more than so many times what a catalogue
of this size has; more are added as soon as it has grown."""
_FIRST_ID = 1


@dataclass(frozen=True, slots=True)
class Circles:
    """What an export writes of them."""

    circles: pa.Table
    """circles.parquet; row c is circle c of `of_item`."""
    districts: pa.Table
    """districts.parquet"""
    of_item: Int32
    """[N] the row of each item's circle."""
    manifest: dict[str, Any]
    """The manifest's section `circles`; docs/bundle.md."""

    @property
    def names(self) -> dict[int, str]:
        """Id → name, of both levels."""
        both = pa.concat_tables([self.circles, self.districts])
        return dict(zip(both["circle_id"].to_pylist(), both["name"].to_pylist(), strict=True))


def find_circles(
    vectors: Float32,
    items: pa.Table,
    schema: Schema,
    popularity: Int64,
    *,
    seed: int,
    shown: Bool | None = None,
    events: tuple[Int64, Int64] | None = None,
    previous: Previous | None = None,
) -> Circles:
    """Cluster items on two levels and name the clusters.

    vectors: [N, D] float32, row i is items row i. popularity: [N] training events. shown: [N] which
    items may be samples; None: all. events: each item's events of late and those before
    (training/circles/growth.py); None where the dataset does not tell. previous: the circles whose
    ids are to last; None: all ids are new.
    """
    weights = 1 + np.log1p(popularity)
    before = {} if previous is None else previous.of_items(items["item_id"].combine_chunks())
    starts = {level: _starts(vectors, weights, held) for level, held in before.items()}
    clusters = find_clusters(
        vectors,
        _count(num_circles(len(vectors)), starts.get("circle")),
        seed=seed,
        starts=starts.get("circle"),
    )
    sizes = np.bincount(clusters.of_item)
    district_of = find_districts(
        clusters.centroids,
        sizes,
        _count(num_districts(len(sizes)), starts.get("district")),
        seed=seed,
        starts=starts.get("district"),
    )
    groups: dict[Level, Int64] = {
        "circle": clusters.of_item.astype(np.int64),
        "district": district_of.astype(np.int64)[clusters.of_item],
    }
    identities: dict[Level, Identity] = {}
    next_id = _FIRST_ID if previous is None else previous.next_id
    for level, of_item in groups.items():
        num = int(of_item.max()) + 1
        if previous is None:
            identities[level] = fresh(num, next_id=next_id)
        else:
            identities[level] = identify(
                before[level],
                of_item,
                weights,
                old_ids=previous.levels[level].ids,
                num_new=num,
                next_id=next_id,
            )
        next_id += len(identities[level].changes.born)
    item_ids = items["item_id"].combine_chunks()
    samples = samples_of(clusters, popularity, shown, most=NUM_SAMPLES)
    largest = np.argsort(-sizes, kind="stable")
    sampled: dict[Level, list[list[int]]] = {
        "circle": samples,
        "district": [
            [samples[c][0] for c in largest[district_of[largest] == d].tolist() if samples[c]][
                :NUM_SAMPLES
            ]
            for d in range(int(district_of.max()) + 1)
        ],
    }
    centroids: dict[Level, Float32] = {
        "circle": clusters.centroids,
        "district": means(
            clusters.centroids, district_of.astype(np.int64), len(sampled["district"]), sizes
        ),
    }
    tables = {
        level: _table(
            level,
            identities[level],
            of_item,
            items,
            schema,
            popularity,
            centroids=centroids[level],
            growth=None if events is None else growth_of(events, of_item, len(sampled[level])),
            samples=[
                item_ids.take(pa.array(rows, pa.int64())).to_pylist() for rows in sampled[level]
            ],
            district_ids=identities["district"].ids[district_of] if level == "circle" else None,
            held=None if previous is None else previous.levels[level].names,
        )
        for level, of_item in groups.items()
    }
    return Circles(
        circles=tables["circle"],
        districts=tables["district"],
        of_item=clusters.of_item,
        manifest={
            "previous": None if previous is None else previous.version,
            "next_id": next_id,
            **{
                level: _changes(identity.changes, previous, level)
                for level, identity in identities.items()
            },
        },
    )


def _count(usual: int, starts: Float32 | None) -> int:
    """How many clusters there are to be."""
    if starts is not None and usual < len(starts) <= _SLACK * usual:
        return len(starts)
    return usual


def _starts(vectors: Float32, weights: Float64, held: Int64) -> Float32:
    """[S, D] where what the old circles held lies now, those that held most first."""
    if int(held.max(initial=-1)) < 0:
        return np.empty((0, vectors.shape[1]), np.float32)
    known = np.flatnonzero(held >= 0)
    worth = np.bincount(held[known], weights[known])
    places = means(vectors, held, len(worth), weights)
    return places[np.argsort(-worth, kind="stable")][: int((worth > 0).sum())]


def _table(
    level: Level,
    identity: Identity,
    of_item: Int64,
    items: pa.Table,
    schema: Schema,
    popularity: Int64,
    *,
    centroids: Float32,
    growth: Growth | None,
    samples: list[list[str]],
    district_ids: Int64 | None,
    held: list[str] | None,
) -> pa.Table:
    """One level as CIRCLE_SCHEMA. of_item: [N]. held: the names that the old ones had."""
    num = len(centroids)
    features = top_features(of_item, num, items, schema, least=MIN_SHARES[level])
    names = names_of(
        features,
        items["title"].take(pa.array(best_known(of_item, num, popularity))).to_pylist(),
        identity.ids.tolist(),
        held=[None if held is None or i < 0 else held[i] for i in identity.lasted.tolist()],
        word=level,
    )
    return pa.table(
        {
            "circle_id": identity.ids.astype(np.int32),
            "name": names,
            "top_features": features,
            "size": np.bincount(of_item, minlength=num),
            "centroid": list(centroids),
            "neighbours": [identity.ids[row].astype(np.int32) for row in _neighbours(centroids)],
            "district_id": pa.nulls(num, pa.int32())
            if district_ids is None
            else district_ids.astype(np.int32),
            "recent_events": pa.nulls(num, pa.int64()) if growth is None else growth.recent,
            "growth": pa.nulls(num, pa.float32())
            if growth is None
            else pa.array(growth.growth, from_pandas=True),  # NaN: null
            "sample_items": samples,
            "predecessors": [[one for one, _ in some] for some in identity.predecessors],
            "predecessor_shares": [[share for _, share in some] for some in identity.predecessors],
        },
        schema=CIRCLE_SCHEMA,
    )


def _neighbours(centroids: Float32) -> list[Int64]:
    """The rows nearest to each of C centroids [C, D], nearest first, itself left out."""
    most = min(NUM_NEIGHBOURS + 1, len(centroids))
    near = faiss.knn(unit(centroids), unit(centroids), most, metric=faiss.METRIC_INNER_PRODUCT)[1]
    return [row[row != c][: most - 1] for c, row in enumerate(near)]


def _changes(changes: Changes, previous: Previous | None, level: Level) -> dict[str, Any]:
    """As the manifest says it."""
    names: dict[int, str] = {}
    if previous is not None:
        old = previous.levels[level]
        names = dict(zip(old.ids.tolist(), old.names, strict=True))
    return {
        "kept": changes.kept,
        "born": len(changes.born),
        "ended": [
            {"circle_id": one, "name": names[one], "into": into}
            for one, into in changes.ended.items()
        ],
        "splits": [{"circle_id": one, "into": into} for one, into in changes.splits.items()],
        "merges": [{"circle_id": one, "of": old} for one, old in changes.merges.items()],
    }
