"""Which store is opened: SQLite in the state folder, or a Redis that several machines share.

The module that needs the extra [redis] is imported where it is asked for.
"""

from collections.abc import Callable
from dataclasses import dataclass

from serving.store.base import MAX_STORED_EVENTS, SQLITE, UserStore, check_store
from serving.store.database import Database
from serving.store.event_log import EventLog, SqliteEventLog
from serving.store.item_log import ItemLog
from serving.store.sqlite import SqliteStore
from serving.store.sqlite_items import SqliteItemLog


@dataclass(frozen=True, slots=True)
class Store:
    """What servers are told: of users, of items, and the log of events."""

    users: UserStore
    items: ItemLog
    events: EventLog
    kind: str
    """`sqlite` or `redis`."""
    name: str
    """For people; without secrets."""
    close: Callable[[], None]
    """Finish what was begun and let go of it."""


def open_sqlite(database: Database, *, most_events: int = MAX_STORED_EVENTS) -> Store:
    """The store of a state folder. most_events: of one user; the oldest beyond are summed up."""
    return Store(
        SqliteStore(database, most_events=most_events),
        SqliteItemLog(database),
        SqliteEventLog(database),
        SQLITE,
        str(database.path),
        database.close,
    )


def open_redis(
    url: str, *, most_events: int = MAX_STORED_EVENTS, allows_loss: bool = False
) -> Store:
    """The store in a Redis. allows_loss: also in one that may lose what it has acknowledged.

    Raises ConfigError where it cannot be the store, or without the extra [redis], and
    StoreUnavailable where it does not answer.
    """
    from serving.store.redis import RedisStore
    from serving.store.redis_items import RedisItemLog
    from serving.store.redis_log import RedisEventLog
    from serving.store.redis_server import RedisServer

    server = RedisServer(url, allows_loss=allows_loss)
    users = RedisStore(server, most_events=most_events)

    def close() -> None:
        users.close()
        server.close()

    return Store(users, RedisItemLog(server), RedisEventLog(server), "redis", server.name, close)


def open_store(
    store: str,
    database: Callable[[], Database],
    *,
    most_events: int = MAX_STORED_EVENTS,
    allows_loss: bool = False,
) -> Store:
    """The store that was named. database: opens the state folder's, where it is that.

    Raises as open_redis does, and StoreUnavailable.
    """
    check_store(store)
    if store == SQLITE:
        return open_sqlite(database(), most_events=most_events)
    return open_redis(store, most_events=most_events, allows_loss=allows_loss)
