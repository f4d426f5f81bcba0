"""Policies of the closed loop that need no server: what is popular, and pure chance.

They know what a service would: items on sale, and what happened. Both leave out what a user was
shown or did something with in the loop.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

_MEMORY = 0.96
"""What is left after a day of a count of acts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestPolicy:
    """A policy that is a server's: what its requests ask for."""

    summary: str
    """One line for people."""
    weights: Mapping[str, float]
    """What one event of each head is worth."""
    objective: str = ""
    """Whose candidates are asked for, where the bundle learned it; empty: its first."""
    diversity: float = 0.0
    """0: by value alone, to 1."""
    kinds: Mapping[str, float] = field(default_factory=dict)
    """Least shares of each slate."""
    origins: Mapping[str, float] = field(default_factory=dict)
    """Least shares of each slate by where an item comes from: known, forgotten, adjacent,
    exploratory."""
    new: float = 0.0
    """Least share of new items over all slates; 0: none."""
    small: float = 0.0
    """Least share of small creators' items over all slates; 0: none."""
    exploration: float = 0.0
    """0: by the value model alone, to 1: by what it may be wrong."""


_INTEREST = RequestPolicy(
    summary="finds what people will love, and ranks it by watching, liking, following and "
    "ordering, each by its weight in the dataset",
    objective="interest",
    weights={"long_watch": 1.0, "like": 2.0, "follow": 3.0, "cart": 4.0, "order": 10.0},
)
_FLOORS = replace(
    _INTEREST,
    summary="as interest, with diverse slates and a least share of videos and live rooms",
    diversity=0.3,
    kinds={"video": 0.4, "live": 0.05, "product": 0.2},
)
SERVED: dict[str, RequestPolicy] = {
    "direct": RequestPolicy(
        summary="finds what people will order, and ranks it by the chance of an order, and of a "
        "cart, which is less rare",
        objective="direct",
        weights={"cart": 4.0, "order": 10.0},
    ),
    "interest": _INTEREST,
    "interest+floors": _FLOORS,
    "interest+floors+exploration": replace(
        _FLOORS,
        summary="as interest+floors, with shares over all slates for new items and small creators, "
        "some of circles next to a person's own, and a draw for what nobody knows yet",
        origins={"adjacent": 0.1},
        new=0.15,
        small=0.15,
        exploration=0.3,
    ),
}
"""Policies that a server answers, by name."""
ALONE = {
    "popularity": "what most people watched or clicked lately, the same for all",
    "random": "uniformly among all that can be shown",
    "oracle": "knows the hidden state of everyone: what no service can reach",
}
"""Policies without a server, by name."""


def read_stock(dataset: Path) -> dict[str, Any]:
    """A warm-up's items and links, and which of the items are gone at its last event: what `stock`
    takes beside a time."""
    items = pq.read_table(dataset / "items.parquet")
    links = pq.read_table(dataset / "links.parquet")
    last = pc.max(pq.read_table(dataset / "events", columns=["timestamp"])["timestamp"])
    over = pc.fill_null(pc.less_equal(items["expires_at"], last), False)
    gone = items.filter(pc.or_(over, pc.invert(items["available"])))
    return {"arrived": items, "links": links, "gone": gone["item_id"].to_pylist()}


class _OnSale:
    """What can be shown, by position in the order in which items came, and who saw what."""

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.on_sale: npt.NDArray[np.bool_] = np.zeros(0, bool)
        self._row: dict[str, int] = {}
        self._seen: dict[str, set[int]] = {}

    def begin(self, dataset: Path) -> None:
        """Learn what was done in the warm-up; everything that is not gone can be shown."""
        self.stock(0, **read_stock(dataset))
        events = pq.read_table(dataset / "events")
        self.learn(events.filter(pc.not_equal(events["event"], "exposure")))

    def stock(self, time: int, *, arrived: pa.Table, links: pa.Table, gone: Sequence[str]) -> None:
        """What can be shown from now on, and what cannot any more."""
        fresh = [name for name in arrived["item_id"].to_pylist() if name not in self._row]
        self._row |= {name: len(self.ids) + place for place, name in enumerate(fresh)}
        self.ids += fresh
        self.on_sale = np.append(self.on_sale, np.ones(len(fresh), bool))
        self.on_sale[[self._row[name] for name in gone]] = False

    def left(self, user: str, excluded: Sequence[str]) -> npt.NDArray[np.bool_]:
        """[num_items] what can be shown to this user."""
        left = self.on_sale.copy()
        left[list(self._seen.get(user, ()))] = False
        left[[self._row[name] for name in excluded]] = False
        return left

    def learn(self, events: pa.Table) -> None:
        """Remember what was shown."""
        for user, item in zip(
            events["user_id"].to_pylist(), events["item_id"].to_pylist(), strict=True
        ):
            if (row := self._row.get(item)) is not None:
                self._seen.setdefault(user, set()).add(row)

    def retrain(self, items: pa.Table, links: pa.Table) -> None:
        """They learn every night, and need no more."""

    def close(self) -> None:
        """Nothing to close."""


class Popularity(_OnSale):
    """What was watched and clicked most, lately; the same for everybody but for what they saw."""

    def __init__(self) -> None:
        super().__init__()
        self._acts: dict[str, float] = {}

    def choose(
        self,
        time: int,
        *,
        users: Sequence[str],
        lengths: Sequence[int],
        excluded: Sequence[Sequence[str]],
    ) -> list[list[str]]:
        """A slate for each session."""
        popular = np.array([self._acts.get(name, 0.0) for name in self.ids])
        order = np.argsort(-popular, kind="stable")
        slates = []
        for user, length, left_out in zip(users, lengths, excluded, strict=True):
            left = order[self.left(user, left_out)[order]][:length]
            slates.append([self.ids[row] for row in left.tolist()])
        return slates

    def learn(self, events: pa.Table) -> None:
        """Count a day's watches and clicks."""
        super().learn(events)
        self._acts = {name: count * _MEMORY for name, count in self._acts.items()}
        for item, event in zip(
            events["item_id"].to_pylist(), events["event"].to_pylist(), strict=True
        ):
            if event in ("watch", "click"):
                self._acts[item] = self._acts.get(item, 0.0) + 1.0


class Chance(_OnSale):
    """Uniformly at random."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._rng = np.random.default_rng(seed)

    def choose(
        self,
        time: int,
        *,
        users: Sequence[str],
        lengths: Sequence[int],
        excluded: Sequence[Sequence[str]],
    ) -> list[list[str]]:
        """A slate for each session."""
        slates = []
        for user, length, left_out in zip(users, lengths, excluded, strict=True):
            left = self._rng.permutation(np.flatnonzero(self.left(user, left_out)))[:length]
            slates.append([self.ids[row] for row in left.tolist()])
        return slates
