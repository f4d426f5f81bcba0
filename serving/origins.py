"""Where a candidate comes from: what the user does lately, what they once did, what lies next to
it, or none of these. Told by circles.

Arrays from end to end: a table over circles a user, and a look-up a candidate. Knows no slates.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from model.histories import NO_TIME
from serving.domain import Candidates
from serving.generation import Generation
from serving.live.catalogue import Catalogue
from serving.readers import Reader

Float32 = npt.NDArray[np.float32]
Int8 = npt.NDArray[np.int8]
Int32 = npt.NDArray[np.int32]
Int64 = npt.NDArray[np.int64]

ORIGINS = ("known", "forgotten", "adjacent", "exploratory")
KNOWN, FORGOTTEN, ADJACENT, EXPLORATORY = range(len(ORIGINS))

RECENT_DAYS = 30
"""What happened in so many days before the moment that is answered for is recent."""
RECENT_EVENTS = 50
"""Where times are not known, so many events, the newest, are."""
ACTIVE_SHARE = 0.02
"""A circle with less of the events does not make it the user's: one stray click of a hundred."""
MOST_CIRCLES = 8
"""So many circles of one origin are searched for one user, those nearest to their interests."""

_DAY_US = 86_400_000_000


def origins_of_circles(circles: Int32, is_recent: npt.NDArray[np.bool_], neighbours: Int32) -> Int8:
    """[num_circles + 1] each circle's origin for one user, an index into ORIGINS; the last is that
    of no circle.

    circles, is_recent: [L] the circle of each event of the history, -1 for none, and whether it is
    recent. neighbours: [num_circles, N] circles, -1 where there are fewer.

    Known: at least ACTIVE_SHARE of the recent events. Forgotten: at least that share of the older
    ones, and not known. Adjacent: a neighbour of a known one (where nothing is recent, of a
    forgotten one), and neither. Exploratory: all others.
    """
    num = len(neighbours)
    lately = _active(circles[is_recent & (circles >= 0)], num)
    once = _active(circles[~is_recent & (circles >= 0)], num)
    origins = np.full(num + 1, EXPLORATORY, np.int8)
    near = neighbours[lately if lately.any() else once]
    origins[near[near >= 0]] = ADJACENT
    origins[:num][once] = FORGOTTEN
    origins[:num][lately] = KNOWN
    return origins


def reader_origins(catalogue: Catalogue, reader: Reader, now: int) -> Int8:
    """`origins_of_circles` of a reader's history; told once. now: UTC µs, what is answered for."""
    if reader.origins is None:
        generation = catalogue.generation
        reader.origins = origins_of_circles(
            catalogue.codes_of("circle", reader.rows),
            _recent(generation, reader.times, now),
            generation.neighbours,
        )
    return reader.origins


def candidate_origins(
    catalogue: Catalogue, readers: Sequence[Reader], now: Int64, candidates: Candidates
) -> Int8:
    """[n] the origin of each candidate for the user whom it was found for. now: [Q] UTC µs."""
    origins = np.empty(len(candidates.rows), np.int8)
    circles = catalogue.codes_of("circle", candidates.rows)
    start = 0
    for reader, moment, count in zip(
        readers, now.tolist(), candidates.counts.tolist(), strict=True
    ):
        end = start + count
        origins[start:end] = reader_origins(catalogue, reader, moment)[circles[start:end]]
        start = end
    return origins


def centroids_to_search(
    generation: Generation, origins: Int8, origin: int, interests: Float32
) -> Float32:
    """[n, D] where items of one origin lie: the centroids of its circles, MOST_CIRCLES at most,
    those that point most in the direction of any of the interests [M, D]."""
    circles = np.flatnonzero(origins[:-1] == origin)
    if len(circles) > MOST_CIRCLES:
        near = (generation.centroids[circles] @ interests.T).max(axis=1)
        circles = circles[np.argsort(-near, kind="stable")[:MOST_CIRCLES]]
    return generation.centroids[circles]


def _recent(generation: Generation, times: Int64, now: int) -> npt.NDArray[np.bool_]:
    """[L] which events are recent."""
    if not generation.schema.has_order:
        return np.ones(len(times), bool)
    known = times != NO_TIME
    if known.any():
        recent: npt.NDArray[np.bool_] = known & (times > now - RECENT_DAYS * _DAY_US)
        return recent
    return np.arange(len(times)) >= len(times) - RECENT_EVENTS


def _active(circles: Int32, num: int) -> npt.NDArray[np.bool_]:
    """[num] which circles have at least their share of these events."""
    counts = np.bincount(circles, minlength=num)
    active: npt.NDArray[np.bool_] = (counts > 0) & (counts >= ACTIVE_SHARE * len(circles))
    return active
