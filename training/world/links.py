"""Which products each video, article and live room of the synthetic world shows, and when.

Knows what an item is about and when it exists; nothing of users.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Links:
    """The shown products of N items, in compressed rows: those of item i are
    `product[first[i]:first[i + 1]]`."""

    first: NDArray[np.int64]
    """[N + 1]."""
    product: NDArray[np.int64]
    """[L], item rows of products."""
    start: NDArray[np.int64]
    """[L], when a live room takes the product on air, UTC microseconds; 0 outside live rooms."""
    end: NDArray[np.int64]
    """[L], when it takes it off again; 0 outside live rooms."""

    def draw(self, items: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
        """For each item one of its products at random, [n] rows; -1 if it shows none."""
        count = self.first[items + 1] - self.first[items]
        at = self.first[items] + (rng.random(len(items)) * count).astype(np.int64)
        if not len(self.product):
            return np.full(len(items), -1)
        return np.where(count > 0, self.product[at.clip(0, len(self.product) - 1)], -1)


def draw_links(
    rng: np.random.Generator,
    *,
    content: NDArray[np.bool_],
    live: NDArray[np.bool_],
    product: NDArray[np.bool_],
    craft: NDArray[np.int64],
    second: NDArray[np.int64],
    share: NDArray[np.float64],
    creator: NDArray[np.int64],
    created: NDArray[np.int64],
    air: NDArray[np.int64],
    gone: NDArray[np.int64],
    reach: NDArray[np.float64],
) -> Links:
    """Choose 1 to 3 products for most videos and articles, 3 to 8 for live rooms.

    All arguments after rng are [N] arrays with the meaning they have in Catalogue. A product is of
    one of the item's crafts, exists when the item is made (is not sold out by then), and is
    likelier the creator's own. A live room shows its products one after the other.
    """
    shelves = []
    for code in range(int(craft.max()) + 1):
        rows = np.flatnonzero(product & (craft == code))
        shelves.append(rows[np.argsort(created[rows], kind="stable")])
    count = np.where(rng.random(len(craft)) < 0.85, rng.integers(1, 4, len(craft)), 0)
    count = np.where(live, rng.integers(3, 9, len(craft)), np.where(content, count, 0))
    chosen: list[NDArray[np.int64]] = []
    shown = np.zeros(len(craft), np.int64)
    for row in np.flatnonzero(count):
        picks = []
        blended = int((rng.random(count[row]) >= share[row]).sum())
        for code, wanted in (
            (craft[row], count[row] - blended),
            (second[row], blended),
        ):
            shelf = shelves[code]
            shelf = shelf[: np.searchsorted(created[shelf], created[row], side="right")]
            shelf = shelf[gone[shelf] > gone[row]] if live[row] else shelf[gone[shelf] > air[row]]
            if not wanted or not len(shelf):
                continue
            weight = reach[shelf] ** 0.5 * np.where(creator[shelf] == creator[row], 8.0, 1.0)
            key = rng.exponential(size=len(shelf)) / weight
            picks.append(shelf[np.argsort(key, kind="stable")[:wanted]])
        found = np.unique(np.concatenate(picks)) if picks else np.empty(0, np.int64)
        shown[row] = len(found)
        chosen.append(rng.permutation(found))
    first = np.concatenate([[0], np.cumsum(shown)])
    products = np.concatenate([*chosen, np.empty(0, np.int64)])
    owner = np.repeat(np.arange(len(craft)), shown)
    place = np.arange(len(products)) - first[owner]
    slot = np.where(live[owner], (gone[owner].clip(0, 2**61) - air[owner]) // shown[owner], 0)
    start = np.where(live[owner], air[owner] + place * slot, 0)
    return Links(
        first=first,
        product=products,
        start=start,
        end=np.where(slot > 0, start + slot, 0),
    )
