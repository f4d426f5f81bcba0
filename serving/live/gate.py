"""The gate: what a bundle has to show before it may take another's place.

Its index must find what an exact search finds; its towers must find no less of what people did next
than the active bundle's, bucket by bucket; and every live item must be in it. The questions are the
new bundle's own (gate.parquet): validation histories with what came after them, which neither of
the two has learned from. Knows no store.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from model.ann import exact_search, recall_of
from model.bundle import GATE
from model.errors import BundleRejected
from serving.domain import History, RetrieveRequest, UserQuery
from serving.generation import Generation
from serving.live.catalogue import Catalogue
from serving.pipeline import Answer, Pipeline
from serving.store.base import UserStore

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]

DEPTH = 50
INDEX_TOLERANCE = 0.02
"""recall@100 of the index may be so much below what the manifest says."""
RECALL_TOLERANCE = 0.1
"""recall@50 of a bucket may be lower than the active bundle's by this share of it,"""
SIGMAS = 2.0
"""and by so many standard errors, since a bucket holds a sample."""
LEAST_TARGETS = 30
"""Buckets with fewer targets say too little."""
_SAMPLE = 1000
_BLOCK = 64


@dataclass(frozen=True, slots=True)
class Questions:
    """Validation histories and what came after them; n users, T targets."""

    item_ids: list[list[str]]
    events: list[list[str]]
    times: list[Int64]
    now: Int64
    targets: list[str]
    owners: Int64
    """[T] whose target it is."""
    buckets: Int64
    """[T] 0: an item without a training event; 1, 2, 3: of the least, the middle and the most
    popular third of the other targets."""
    interests: Float32
    """[n, M, D] of the new bundle's user tower."""


BUCKETS = ("new items", "tail", "middle", "head")


def read_questions(generation: Generation) -> Questions:
    """gate.parquet of a bundle."""
    table = pq.read_table(generation.bundle.path / GATE)
    bundle = generation.bundle
    counts = np.array([len(one) for one in table["targets"].to_pylist()], np.int64)
    popularity = np.concatenate(
        [np.asarray(one, np.int64) for one in table["target_popularity"].to_pylist()]
        or [np.empty(0, np.int64)]
    )
    known = np.sort(popularity[popularity > 0])
    edges = known[[len(known) // 3, 2 * len(known) // 3]] if len(known) else np.zeros(2)
    buckets = np.where(popularity > 0, 1 + np.searchsorted(edges, popularity, side="right"), 0)
    times = [np.asarray(one or (), np.int64) for one in table["times_us"].to_pylist()]
    idle = (np.asarray(table["idle_seconds"].to_numpy()) * 1e6).astype(np.int64)
    last = np.array([int(one[-1]) if len(one) else 0 for one in times], np.int64)
    shape = (table.num_rows, bundle.num_interests, bundle.dim)
    return Questions(
        table["item_ids"].to_pylist(),
        table["events"].to_pylist(),
        times,
        last + idle,
        [target for one in table["targets"].to_pylist() for target in one],
        np.repeat(np.arange(len(counts)), counts),
        buckets.astype(np.int64),
        np.array(table["interests"].to_pylist(), np.float32).reshape(shape),
    )


def check(new: Catalogue, active: Catalogue | None) -> list[str]:
    """What speaks against the new bundle; nothing where it may be activated.

    active: with its live items; None where nothing is. Raises BundleRejected where the new bundle's
    questions cannot be read.
    """
    generation = new.generation
    reasons = [*_index_misses(generation), *_missing_live(new)]
    if active is None:
        return reasons
    try:
        questions = read_questions(generation)
    except (OSError, KeyError, ValueError, pa.ArrowException) as error:
        raise BundleRejected(
            f"{generation.bundle.path}: {GATE} cannot be read ({error}), so nothing says whether "
            "the bundle is as good as the active one. Export it again, or activate it with "
            "--skip-gate."
        ) from error
    if not len(questions.targets):
        return reasons
    mine, theirs = _hits(new, questions), _hits(active, questions)
    for bucket, name in enumerate(BUCKETS):
        inside = questions.buckets == bucket
        count = int(np.count_nonzero(inside))
        if count < LEAST_TARGETS:
            continue
        ours, others = float(mine[inside].mean()), float(theirs[inside].mean())
        noise = SIGMAS * np.sqrt((ours * (1 - ours) + others * (1 - others)) / count)
        if ours < others * (1 - RECALL_TOLERANCE) - noise:
            reasons.append(
                f"recall@{DEPTH} of {name} is {ours:.4f}, the active bundle's {others:.4f} "
                f"({count} targets); allowed: {RECALL_TOLERANCE:.0%} lower at most, beside noise"
            )
    return reasons


def _index_misses(generation: Generation) -> Iterator[str]:
    """What the index does not find of what an exact search finds."""
    vectors = generation.vectors[: generation.items.num_active]
    stated = generation.bundle.ann.get("recall@100")
    if stated is None or not len(vectors):
        return
    queries = user_vectors(generation)[:_SAMPLE]
    depth = min(100, len(vectors))
    best = exact_search(queries, vectors, depth)[1][:, -1]
    found = generation.index.search(queries, depth)[1]
    longest = float(np.sqrt(np.einsum("nd,nd->n", vectors, vectors).max()))
    recall = recall_of(found, best, queries, longest=longest, depth=depth)
    if recall < float(stated) - INDEX_TOLERANCE:
        yield (
            f"the index finds {recall:.4f} of what an exact search finds; its manifest says "
            f"{float(stated):.4f}"
        )


def _missing_live(catalogue: Catalogue) -> Iterator[str]:
    """Live items that a search for their own vector does not find."""
    segment = catalogue.segment
    if segment is None or not len(alive := np.flatnonzero(segment.alive)):
        return
    some = alive[np.linspace(0, len(alive) - 1, min(len(alive), _SAMPLE // 10)).astype(np.int64)]
    rows = some + catalogue.generation.items.num_items
    vectors = segment.vectors.take(some, axis=0)
    own = np.einsum("nd,nd->n", vectors, vectors)
    found, scores = catalogue.search(vectors, 100)
    # Of many items alike, or longer in the same direction, others may take all places.
    missing = ~(found == rows[:, np.newaxis]).any(axis=1) & (scores[:, -1] < own * (1 - 1e-5))
    if missing.any():
        (item_id,) = catalogue.ids_of(rows[missing][:1])
        yield f"{int(missing.sum())} of {len(rows)} live items are not found, such as {item_id!r}"


def user_vectors(generation: Generation) -> Float32:
    """[Q, D] vectors to ask an index for: the questions' users, or items where there are none."""
    try:
        found = read_questions(generation).interests.reshape(-1, generation.bundle.dim)
    except (OSError, KeyError, ValueError, pa.ArrowException):
        found = np.empty((0, generation.bundle.dim), np.float32)
    if len(found):
        return found
    active = generation.items.num_active
    return generation.vectors[np.linspace(0, active - 1, min(active, _SAMPLE)).astype(np.int64)]


def _hits(catalogue: Catalogue, questions: Questions) -> npt.NDArray[np.bool_]:
    """[T] whether each target is among the DEPTH best, what the history has left out."""
    # Every query brings its history, so that no store is ever read.
    pipeline = Pipeline(catalogue, cast(UserStore, None))
    wanted = catalogue.rows_of(questions.targets)
    hits = np.zeros(len(wanted), bool)
    num_users = len(questions.item_ids)
    targets: list[set[str]] = [set() for _ in range(num_users)]
    for owner, target in zip(questions.owners.tolist(), questions.targets, strict=True):
        targets[owner].add(target)
    for start in range(0, num_users, _BLOCK):
        users = range(start, min(start + _BLOCK, num_users))
        requests = [
            RetrieveRequest(
                queries=[
                    UserQuery(
                        history=History(
                            questions.item_ids[u], questions.events[u], questions.times[u]
                        )
                    )
                ],
                k=DEPTH,
                # Where people come back to what they know, it must be found.
                exclude_seen=targets[u].isdisjoint(questions.item_ids[u]),
                time_us=int(questions.now[u]),
            )
            for u in users
        ]
        for user, answer in zip(users, pipeline.answer(requests), strict=True):
            assert isinstance(answer, Answer) and answer.candidates is not None
            mine = questions.owners == user
            hits[mine] = np.isin(wanted[mine], answer.candidates.rows) & (wanted[mine] >= 0)
    return hits
