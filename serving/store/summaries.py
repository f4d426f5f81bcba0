"""What is still known of the events that a bounded history has let go.

How many there were, of which events, from when to when, and which items they were about, as 64-bit
hashes: enough to never show a seen item again, at 8 bytes an item. Knows nothing of chunks.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from serving.store.chunks import Events, Hashes
from serving.store.user_rows import Summary, UserRows

MOST_SEEN = 100_000
"""Hashes kept of one user, the latest: 0.8 MB."""


def let_go(user: UserRows, events: Events, names: Sequence[str]) -> None:
    """Add a user's oldest events, in order; they are later than any that were let go before.

    names: what the events' codes mean.
    """
    counts = Counter({names[code]: n for code, n in Counter(events.codes.tolist()).items()})
    num_events, (last_us, last_sequence) = len(events), events.key(-1)
    first_us, seen = int(events.times[0]), events.hashes
    found = user.summary()
    if found is not None:
        num_events += found.num_events
        first_us = found.first_us
        counts.update(json.loads(found.counts))
        seen = np.concatenate([np.frombuffer(found.seen, np.uint64), seen])
    user.put_summary(
        Summary(
            num_events,
            first_us,
            last_us,
            last_sequence,
            json.dumps(counts, ensure_ascii=False, sort_keys=True),
            _latest(seen).tobytes(),
        )
    )


def add_seen(user: UserRows, hashes: Hashes) -> None:
    """Count items as seen whose events came when the history had let go of their time already."""
    found = user.summary()
    assert found is not None  # or nothing would be let go of
    known = np.frombuffer(found.seen, np.uint64)
    new = hashes[~np.isin(hashes, known)]
    if len(new):
        seen = _latest(np.concatenate([new, known]))
        user.put_summary(replace(found, seen=seen.tobytes()))


def _latest(hashes: Hashes) -> Hashes:
    """[n] each hash once, where it stands last; the last MOST_SEEN of them."""
    backwards = hashes[::-1]
    places = np.sort(np.unique(backwards, return_index=True)[1])[:MOST_SEEN]
    return backwards[places][::-1]
