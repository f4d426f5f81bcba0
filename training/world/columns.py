"""The world's arrays as Arrow columns, and its events as the rows of a dataset.

Knows the dataset's layout (docs/dataset.md), not how the world works.
"""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from training.world.catalogue import Catalogue
from training.world.config import NEVER
from training.world.log import EVENTS, EventLog
from training.world.people import People

_TIME = pa.timestamp("us", tz="UTC")


def event_table(
    catalogue: Catalogue, people: People, log: EventLog, *, since: int = 0
) -> tuple[pa.Table, NDArray[np.int64]]:
    """The events from row `since` of the log on as a dataset has them, sorted by time.

    Returns them and, by row from `since` on, the number in each one's event_id.
    """
    columns = log.columns(since)
    order = np.lexsort((columns["event"], columns["user"], columns["time"]))
    columns = {name: column[order] for name, column in columns.items()}
    num = len(order)
    number = np.empty(num, np.int64)
    number[order] = np.arange(num)
    # The place of each event among those of its user, from 0.
    by_user = np.argsort(columns["user"], kind="stable")
    first = np.searchsorted(columns["user"][by_user], columns["user"][by_user])
    sequence = np.empty(num, np.int64)
    sequence[by_user] = np.arange(num) - first
    value, propensity = columns["value"], columns["propensity"]
    position = columns["position"].astype(np.int32)
    table = {
        "event_id": numbered("e", since + np.arange(num)),
        "user_id": take(people.ids, columns["user"]),
        "item_id": take(catalogue.ids, columns["item"]),
        "event": take(tuple(EVENTS), columns["event"].astype(np.int64)),
        "timestamp": times(columns["time"]),
        "sequence": pa.array(sequence),
        "value": pa.array(value, pa.float64(), mask=np.isnan(value)),
        "exposure_id": numbered("x", columns["exposure"]),
        "source_item_id": take(catalogue.ids, columns["source"]),
        "position": pa.array(position, pa.int32(), mask=position < 0),
        "propensity": pa.array(propensity, pa.float64(), mask=np.isnan(propensity)),
    }
    return pa.table(table), since + number


def take(values: Sequence[str], at: NDArray[np.int64]) -> pa.Array:
    """The values at the given positions as strings; null where a position is -1."""
    positions = pa.array(at, pa.int64(), mask=at < 0)
    return pa.array(values, pa.string()).take(positions)


def times(values: NDArray[np.int64]) -> pa.Array:
    """UTC microseconds as timestamps; null where NEVER."""
    return pa.array(values, pa.int64(), mask=values == NEVER).cast(_TIME)


def numbered(prefix: str, numbers: NDArray[np.int64]) -> pa.Array:
    """Ids such as e000000123; null where a number is -1."""
    text = np.char.mod(f"{prefix}%09d", numbers.clip(0))
    return pa.array(text, pa.string(), mask=numbers < 0)
