"""A shop where people buy what they put in the cart, to learn a value model of candidates from."""

from pathlib import Path

import numpy as np

from model.schema import Event, TimeKind
from tests.training.value.shown import act, write_shown

EVENTS = {
    "view": Event(role="engagement"),
    "cart": Event(role="engagement"),
    "order": Event(role="conversion", weight=5.0),
}


def write_carts(folder: Path, *, time: TimeKind = "exact", num_users: int = 120) -> Path:
    """Each of the users views 14 of 80 items, puts 5 of them into the cart, and orders 3 of these,
    now and then another; an event an hour."""
    rng = np.random.default_rng(3)
    items = [f"i{i:02d}" for i in range(80)]
    groups = {name: f"g{i % 4}" for i, name in enumerate(items)}
    events = []
    for u in range(num_users):
        viewed = rng.choice(len(items), 14, replace=False)
        carted = rng.choice(viewed, 5, replace=False)
        ordered = rng.choice(carted, 3, replace=False)
        if u % 10 == 0:
            ordered[2] = rng.choice(np.setdiff1d(viewed, carted))
        acts = [("view", i) for i in viewed] + [("cart", i) for i in carted]
        acts += [("order", i) for i in ordered]
        for n, (event, i) in enumerate(acts):
            when = n / 24 + u / 1e5 if time in ("exact", "day") else None
            events.append(act(f"u{u:03d}", items[i], event, when, sequence=n))
    return write_shown(folder, events, time=time, declared=EVENTS, groups=groups)
