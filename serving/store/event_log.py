"""Every taken event as it came, in the order of coming, until it is exported and trimmed.

Rows are appended in the transaction that adds the event to its user's history, and leave with
their user. Knows no Parquet (serving/store/export.py) and no histories.
"""

import sqlite3
from collections.abc import Sequence
from urllib.parse import quote

from serving.domain import Event
from serving.store.chunks import to_json

ABSENT = ("", None)


def local_id(user_id: str, event_id: str) -> str:
    """An event's id among its user's events: what `qualified_id` made of it is taken back."""
    return event_id.removeprefix(_prefix(user_id))


def qualified_id(user_id: str, event_id: str) -> str:
    """An event's id among all users' events, as a dataset needs it."""
    return _prefix(user_id) + local_id(user_id, event_id)


def _prefix(user_id: str) -> str:
    return quote(user_id, safe="") + "/"


def append(db: sqlite3.Connection, user: int, events: Sequence[Event]) -> None:
    """Log some events of one user."""
    rows = ((user, to_json(_body(event))) for event in events)
    db.executemany("INSERT INTO event_log (user, body) VALUES (?, ?)", rows)


def _body(event: Event) -> dict[str, object]:
    body: dict[str, object] = {
        "event_id": event.event_id,
        "user_id": event.user_id,
        "item_id": event.item_id,
        "event": event.event,
        "timestamp_us": event.timestamp_us,
        "sequence": event.sequence,
    }
    for name in ("value", "exposure_id", "source_item_id", "position", "propensity"):
        value = getattr(event, name)
        if value not in ABSENT:
            body[name] = value
    return body
