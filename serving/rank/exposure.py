"""Which items are in a group that exposure floors speak of: new ones, those of small creators, or
those where a filter holds. Knows no slates."""

import numpy as np
import numpy.typing as npt

from model.freshness import UNKNOWN
from serving.domain import ExposureFloor, NewItems, SmallCreators
from serving.live.catalogue import Catalogue
from serving.rank.graduation import rule

Bool = npt.NDArray[np.bool_]
Int64 = npt.NDArray[np.int64]

TAIL = 0.2
"""Where a request does not say: small creators have so much of all events together."""
_DAY_US = 86_400_000_000
_LATEST = np.iinfo(np.int64).max


def members(catalogue: Catalogue, floor: ExposureFloor, rows: Int64, now: int) -> Bool:
    """[n] which of the rows, all of which may be shown, are of a (checked) floor's group.

    now: UTC µs.
    """
    group = floor.group
    if isinstance(group, NewItems):
        group = rule(group, has_ages=catalogue.generation.has_ages)
        found = np.ones(len(rows), bool)
        if group.max_age_days:
            created = catalogue.created_of(rows, later=_LATEST)
            found &= (created != UNKNOWN) & (created >= now - group.max_age_days * _DAY_US)
        if group.max_events is not None:
            found &= catalogue.events_of(rows) <= group.max_events
        return found
    if isinstance(group, SmallCreators):
        small = catalogue.generation.small(group.field, group.tail or TAIL)
        codes = catalogue.codes_of(group.field, rows)
        # One that came after the bundle has no events yet.
        known = np.clip(codes, 0, max(len(small) - 1, 0))
        is_small = small[known] | (codes >= len(small)) if len(small) else codes >= 0
        return is_small & (codes >= 0)
    return catalogue.holds((group,), rows)
