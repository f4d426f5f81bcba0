"""The circles of the bundle before: who they were, and which items they held.

Reads what a bundle says and nothing of its networks. Knows no vectors.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from model.bundle import ITEMS, id_index
from model.circles import Level, read_circles
from model.errors import BundleRejected
from model.items import ItemTable, read_items
from model.manifest import open_verified

Int64 = npt.NDArray[np.int64]

_AT_ONCE = 1 << 16
"""Ids that are Python strings at one time."""


@dataclass(frozen=True, slots=True)
class PreviousLevel:
    """The O circles, or districts, that there were."""

    ids: Int64
    """[O]"""
    names: list[str]
    of_row: Int64
    """[old items] the position of each item's; -1 for none."""


@dataclass(frozen=True, slots=True)
class Previous:
    """The circles of an opened bundle, on both levels."""

    version: str
    next_id: int
    """No circle or district had this id or a higher one, in this bundle or in any before it."""
    levels: dict[Level, PreviousLevel]
    items: ItemTable

    def of_items(self, item_ids: pa.Array) -> dict[Level, Int64]:
        """[N] the position of each item's circle, and of its district, of then; -1 for none."""
        rows = np.concatenate(
            [
                self.items.rows_of(item_ids.slice(first, _AT_ONCE).to_pylist())
                for first in range(0, len(item_ids), _AT_ONCE)
            ]
        )
        return {
            level: np.where(rows >= 0, held.of_row[rows], -1) for level, held in self.levels.items()
        }


def read_previous(path: Path) -> Previous:
    """Open a bundle's circles. Raises BundleRejected, naming the file that is wrong."""
    manifest = open_verified(path, kind="bundle")
    circles, districts = read_circles(path)
    items = read_items(path / ITEMS, id_index(path))
    of_row = items.table["circle"].to_numpy().astype(np.int64)
    tables: dict[Level, pa.Table] = {"circle": circles, "district": districts}
    ids = {name: table["circle_id"].to_numpy().astype(np.int64) for name, table in tables.items()}
    place = {one: i for i, one in enumerate(ids["district"].tolist())}
    # Of circle -1, which is none, the last.
    district_of = np.array(
        [*(place.get(one, -1) for one in circles["district_id"].to_pylist()), -1], np.int64
    )
    highest = max([0, *ids["circle"].tolist(), *ids["district"].tolist()])
    return Previous(
        version=manifest.version,
        next_id=int(manifest.body.get("circles", {}).get("next_id", highest + 1)),
        levels={
            "circle": PreviousLevel(ids["circle"], circles["name"].to_pylist(), of_row),
            "district": PreviousLevel(
                ids["district"], districts["name"].to_pylist(), district_of[of_row]
            ),
        },
        items=items,
    )


def replaced(path: Path) -> Previous | None:
    """The circles of a bundle that another takes the place of; None where there is no whole one."""
    try:
        return read_previous(path)
    except BundleRejected:
        return None
