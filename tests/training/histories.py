"""Histories written out by hand, for tests of whatever reads them."""

from collections.abc import Mapping, Sequence

import numpy as np

from model.schema import Event, Role, Schema, TimeKind
from training.dataset import Interactions

DAY = 86_400_000_000
ROLES: Mapping[str, Role] = {"watch": "engagement", "cart": "engagement", "order": "conversion"}
WATCH, CART, ORDER = 1, 2, 3


def histories_of(
    users: Sequence[Sequence[int | tuple[int, int]]],
    *,
    num_items: int,
    days: Sequence[Sequence[float]] | None = None,
    weights: Mapping[int, float] | None = None,
    time: TimeKind = "exact",
    roles: Mapping[str, Role] = ROLES,
) -> Interactions:
    """users: each user's events, oldest first: an item row, or (item row, event code); an item row
    alone was watched. days: when each event was; without it, all at once. weights: by event code, 1
    if left out."""
    pairs = [
        event if isinstance(event, tuple) else (event, WATCH) for user in users for event in user
    ]
    codes = [code for _, code in pairs]
    weigh = weights or {}
    schema = Schema(name="hand", time=time, events={n: Event(role=r) for n, r in roles.items()})
    times = np.zeros(len(pairs)) if days is None else np.array([d for user in days for d in user])
    return Interactions(
        schema=schema,
        starts=np.concatenate([[0], np.cumsum([len(user) for user in users])]).astype(np.int64),
        items=np.array([item for item, _ in pairs], np.int32),
        events=np.array(codes, np.int32),
        times=np.round(times * DAY).astype(np.int64),
        weights=np.array([weigh.get(code, 1.0) for code in codes], np.float32),
        published=np.zeros(len(pairs), np.int8),
        num_items=num_items,
    )
