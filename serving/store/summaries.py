"""What is still known of the events that a bounded history has let go.

How many there were, of which events, from when to when, and which items they were about, as 64-bit
hashes: enough to never show a seen item again, at 8 bytes an item. Knows nothing of chunks.
"""

import json
import sqlite3
from collections import Counter
from collections.abc import Sequence

import numpy as np

from serving.store.chunks import Events, Hashes, Key

MOST_SEEN = 100_000
"""Hashes kept of one user, the latest: 0.8 MB."""


def last_let_go(db: sqlite3.Connection, user: int) -> Key | None:
    """Where the user's last event that was let go stood; None where none was."""
    found = db.execute(
        "SELECT last_us, last_sequence FROM summaries WHERE user = ?", (user,)
    ).fetchone()
    return None if found is None else (int(found[0]), int(found[1]))


def let_go(db: sqlite3.Connection, user: int, events: Events, names: Sequence[str]) -> None:
    """Add a user's oldest events, in order; they are later than any that were let go before.

    names: what the events' codes mean.
    """
    counts = Counter({names[code]: n for code, n in Counter(events.codes.tolist()).items()})
    num_events, (last_us, last_sequence) = len(events), events.key(-1)
    first_us, seen = int(events.times[0]), events.hashes
    found = db.execute(
        "SELECT num_events, first_us, counts, seen FROM summaries WHERE user = ?", (user,)
    ).fetchone()
    if found is not None:
        num_events += found[0]
        first_us = found[1]
        counts.update(json.loads(found[2]))
        seen = np.concatenate([np.frombuffer(found[3], np.uint64), seen])
    db.execute(
        "INSERT OR REPLACE INTO summaries "
        "(user, num_events, first_us, last_us, last_sequence, counts, seen) "
        "VALUES (?, ?, ?, ?, ?, ?, ?)",
        (
            user,
            num_events,
            first_us,
            last_us,
            last_sequence,
            json.dumps(counts, ensure_ascii=False, sort_keys=True),
            _latest(seen).tobytes(),
        ),
    )


def add_seen(db: sqlite3.Connection, user: int, hashes: Hashes) -> None:
    """Count items as seen whose events came when the history had let go of their time already."""
    (known,) = db.execute("SELECT seen FROM summaries WHERE user = ?", (user,)).fetchone()
    known = np.frombuffer(known, np.uint64)
    new = hashes[~np.isin(hashes, known)]
    if len(new):
        seen = _latest(np.concatenate([new, known]))
        db.execute("UPDATE summaries SET seen = ? WHERE user = ?", (seen.tobytes(), user))


def _latest(hashes: Hashes) -> Hashes:
    """[n] each hash once, where it stands last; the last MOST_SEEN of them."""
    backwards = hashes[::-1]
    places = np.sort(np.unique(backwards, return_index=True)[1])[:MOST_SEEN]
    return backwards[places][::-1]
