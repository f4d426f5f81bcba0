"""A user's events as the store keeps them: columns in memory, rows of up to CHUNK_EVENTS on disk.

The key of a row is the user's number and the chunk's, so that a user's chunks are neighbours; all
but the last are full. Times, sequences and hashes are packed, ids are JSON lists. What a request
does not need (sequences, event ids) lies in a row's last columns, which SQLite then does not read.
Knows no statements beyond one row.
"""

import json
from collections.abc import Iterator, Sequence, Sized
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

Codes = npt.NDArray[np.uint16]
Int64 = npt.NDArray[np.int64]
Hashes = npt.NDArray[np.uint64]
Key = tuple[int, int]
"""Where an event stands in its user's history: timestamp, sequence."""

CHUNK_EVENTS = 128
CHUNKS_A_USER = 1 << 20

COLUMNS = "events, timestamps, item_hashes, item_ids, sequences, event_ids"
INSERT = f"INSERT OR REPLACE INTO chunks (chunk, {COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)"

to_json = json.JSONEncoder(ensure_ascii=False).encode
"""What json.dumps does with an encoder that it makes anew for each text."""

_decode = json.JSONDecoder().raw_decode  # what json.loads does, without its checks of types

Scalar = TypeVar("Scalar", bound=np.generic)


@dataclass(slots=True)
class Events:
    """n events of one user, column by column."""

    codes: Codes
    """[n], into event_names."""
    times: Int64
    """[n] UTC µs, or NO_TIME."""
    hashes: Hashes
    """[n] of the item ids, by model.items.hash_ids."""
    item_ids: list[str]
    sequences: Int64
    event_ids: list[str]

    def __len__(self) -> int:
        return len(self.codes)

    def take(self, places: Int64) -> "Events":
        """These of them, in this order."""
        listed = places.tolist()
        return Events(
            self.codes[places],
            self.times[places],
            self.hashes[places],
            [self.item_ids[i] for i in listed],
            self.sequences[places],
            [self.event_ids[i] for i in listed],
        )

    def cut(self, start: int, end: int) -> "Events":
        """Those from `start` to before `end`."""
        return Events(
            self.codes[start:end],
            self.times[start:end],
            self.hashes[start:end],
            self.item_ids[start:end],
            self.sequences[start:end],
            self.event_ids[start:end],
        )

    def followed_by(self, other: "Events") -> "Events":
        """Both, end to end."""
        return Events(
            np.concatenate([self.codes, other.codes]),
            np.concatenate([self.times, other.times]),
            np.concatenate([self.hashes, other.hashes]),
            self.item_ids + other.item_ids,
            np.concatenate([self.sequences, other.sequences]),
            self.event_ids + other.event_ids,
        )

    def in_order(self) -> "Events":
        """By (timestamp, sequence); equal ones stay as they are."""
        if len(self) < 2 or _is_ordered(self.times, self.sequences):
            return self
        return self.take(np.lexsort((self.sequences, self.times)))

    def key(self, place: int) -> Key:
        """(timestamp, sequence) of one event."""
        return int(self.times[place]), int(self.sequences[place])

    def rows(self, chunk: int) -> Iterator[tuple[Any, ...]]:
        """What INSERT takes, for chunks from this number on."""
        for number, start in enumerate(range(0, len(self), CHUNK_EVENTS), chunk):
            part = slice(start, start + CHUNK_EVENTS)
            yield (
                number,
                self.codes[part].tobytes(),
                self.times[part].tobytes(),
                self.hashes[part].tobytes(),
                to_json(self.item_ids[part]),
                self.sequences[part].tobytes(),
                to_json(self.event_ids[part]),
            )


def from_rows(rows: Sequence[Sequence[Any]]) -> Events:
    """The events of some rows of COLUMNS, oldest first. Raises ValueError where one is damaged."""
    events = Events(
        _joined(rows, 0, np.uint16),
        _joined(rows, 1, np.int64),
        _joined(rows, 2, np.uint64),
        [item_id for row in rows for item_id in json.loads(row[3])],
        _joined(rows, 4, np.int64),
        [event_id for row in rows for event_id in json.loads(row[5])],
    )
    columns: tuple[Sized, ...] = (
        *(events.codes, events.times, events.hashes),
        *(events.item_ids, events.sequences, events.event_ids),
    )
    if len({len(column) for column in columns}) > 1:
        raise ValueError("its columns differ in length")
    return events


def unpacked(
    parts: Sequence[tuple[str | None, bytes | None, bytes | None]],
) -> tuple[list[str], Codes, Int64]:
    """Item ids, event codes and times of one or more chunks, oldest first; None where a user has
    none. Raises ValueError or TypeError where one is damaged."""
    if len(parts) == 1:
        ids, codes, moments = parts[0]
        item_ids = _decode(ids)[0] if ids is not None else []
        events = np.frombuffer(codes or b"", np.uint16)
        times = np.frombuffer(moments or b"", np.int64)
    else:
        item_ids = [item_id for part in parts for item_id in json.loads(part[0] or "")]
        events = np.frombuffer(b"".join([part[1] or b"" for part in parts]), np.uint16)
        times = np.frombuffer(b"".join([part[2] or b"" for part in parts]), np.int64)
    if not len(item_ids) == len(events) == len(times):
        raise ValueError(f"{len(item_ids)} items, {len(events)} events, {len(times)} times")
    return item_ids, events, times


def chunk_range(user: int) -> tuple[int, int]:
    """The keys of a user's chunks: from the first number to before the second."""
    return user * CHUNKS_A_USER, (user + 1) * CHUNKS_A_USER


def _joined(
    rows: Sequence[Sequence[bytes]], column: int, dtype: type[Scalar]
) -> npt.NDArray[Scalar]:
    if len(rows) == 1:
        return np.frombuffer(rows[0][column], dtype)
    return np.frombuffer(b"".join(row[column] for row in rows), dtype)


def _is_ordered(times: Int64, sequences: Int64) -> bool:
    later = times[1:] > times[:-1]
    if later.all():
        return True
    return bool((later | ((times[1:] == times[:-1]) & (sequences[1:] >= sequences[:-1]))).all())
