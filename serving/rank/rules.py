"""What a request asks of its slates, as arrays over one query's candidates.

Who is of a kind, an origin or a group; what is drawn for exploration; what paced floors add. Knows
items and requests, and leaves to serving/rank/compose.py how a slate is made of it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from serving.domain import ExposureFloor, PartError, SlateRules
from serving.live.catalogue import Catalogue
from serving.origins import ORIGINS
from serving.rank.compose import Composed, Rules
from serving.rank.explore import sampled
from serving.rank.exposure import members
from serving.rank.floors import Floor
from serving.rank.pacing import Pacer
from serving.rank.places import Group
from serving.rank.slate import METHODS

Bool = npt.NDArray[np.bool_]
Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Int8 = npt.NDArray[np.int8]
Int64 = npt.NDArray[np.int64]


@dataclass(slots=True)
class Listed:
    """One query's candidates, and what the value model says of them.

    rows: [C]. values: [C]. chances: [C, T]. origins: [C] int8, where the request asks for shares of
    them. now: UTC µs. query: its number in the request. groups: [C] who is in the group of each
    exposure floor; RuleBook.rules fills it in.
    """

    rows: Int64
    values: Float32
    chances: Float32
    origins: Int8 | None
    now: int
    query: int
    groups: list[Bool] = field(default_factory=list)


class RuleBook:
    """The rules of one request, for one query after the other."""

    def __init__(
        self,
        catalogue: Catalogue,
        slate: SlateRules,
        given: Mapping[str, float],
        weights: Float64 | None,
        *,
        diversity: float,
        pacer: Pacer,
    ) -> None:
        """given: the request's weights of heads; weights: [T], what each head weighs, or None where
        the value model is left out. diversity: 0 where there is no time for it."""
        self._catalogue, self._slate, self._weights = catalogue, slate, weights
        self._diversity, self._pacer = diversity, pacer
        # Values of other weights are of another unit, and so are prices.
        self._unit = (weights is None, tuple(sorted(given.items())))

    def rules(self, listed: Listed, k: int) -> Rules:
        """What the slate of k has to keep."""
        catalogue, slate, rows = self._catalogue, self._slate, listed.rows
        floors, lifted = [], None
        listed.groups = [members(catalogue, floor, rows, listed.now) for floor in slate.floors]
        for floor, group in zip(slate.floors, listed.groups, strict=True):
            least = floor.least if floor.paced else least_of(floor.share, k)
            if least:
                floors.append(Floor(group, least, "exposure_floor"))
            if floor.paced:
                lifted = np.zeros(len(rows), np.float32) if lifted is None else lifted
                lifted[group] += np.float32(self._pacer.price(self._key(floor)))
        shares = [
            Floor(catalogue.is_kind(kind.kind, rows), least_of(kind.share, k))
            for kind in slate.kinds
        ]
        for one in slate.origins:
            assert listed.origins is not None
            of_origin = listed.origins == ORIGINS.index(one.origin)
            shares.append(Floor(of_origin, least_of(one.share, k), "origin_share"))
        return Rules(
            vectors=catalogue.vectors_of(rows) if self._diversity else None,
            diversity=self._diversity,
            method=next((method for method in METHODS if method == slate.method), METHODS[0]),
            window=slate.window,
            caps=[Group(catalogue.codes_of(cap.field, rows), cap.most) for cap in slate.caps],
            floors=floors,
            shares=shares,
            drawn=self._drawn(listed),
            lifted=lifted,
        )

    def shown(self, listed: Listed, made: Composed) -> list[float]:
        """Put down what a slate gave to each paced floor; returns the share that each has had."""
        places, shares = made.slate.places, []
        for floor, group in zip(self._slate.floors, listed.groups, strict=True):
            if not floor.paced:
                continue
            spread = float(np.ptp(listed.values)) if len(listed.values) else 0.0
            self._pacer.shown(
                self._key(floor),
                floor.share,
                places=len(places),
                members=int(np.count_nonzero(group[places])),
                there=int(np.count_nonzero(group)),
                spread=spread,
            )
            shares.append(self._pacer.share(self._key(floor)))
        return shares

    def not_met(self, query: int, made: Composed) -> list[PartError]:
        """What the slate of a query could not keep."""
        slate, asked = self._slate, list[tuple[str, str, str]]()
        for i, floor in enumerate(slate.floors):
            if not floor.paced or floor.least:
                wanted = (
                    f"a least of {floor.least}" if floor.paced else f"a share of {floor.share:g}"
                )
                asked.append(
                    (
                        "FLOOR_NOT_MET",
                        f"slate.floors[{i}]",
                        f"of the group are missing for {wanted}",
                    )
                )
        for i, kind in enumerate(slate.kinds):
            what = f"of kind {kind.kind!r} are missing for a share of {kind.share:g}"
            asked.append(("SHARE_NOT_MET", f"slate.kinds[{i}]", what))
        for i, one in enumerate(slate.origins):
            what = f"of origin {one.origin!r} are missing for a share of {one.share:g}"
            asked.append(("SHARE_NOT_MET", f"slate.origins[{i}]", what))
        return [
            PartError(
                query,
                code,
                where,
                f"{missing} items {what}: no more of them are among what may be shown",
            )
            for (code, where, what), missing in zip(asked, made.slate.missing, strict=True)
            if missing
        ]

    def _key(self, floor: ExposureFloor) -> tuple[object, ...]:
        return floor, self._unit

    def _drawn(self, listed: Listed) -> Float32 | None:
        slate = self._slate
        if not slate.exploration or self._weights is None:
            return None
        rng = np.random.default_rng((slate.seed, listed.query) if slate.seed else None)
        events = self._catalogue.events_of(listed.rows)
        chances = sampled(listed.chances, events, slate.exploration, rng)
        drawn: Float32 = (chances @ self._weights).astype(np.float32)
        return drawn


def least_of(share: float, k: int) -> int:
    """How many items of a slate of k a share is: rounded down, but one at least."""
    return max(int(share * k + 1e-9), 1)
