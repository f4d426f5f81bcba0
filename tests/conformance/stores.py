"""The stores that the suite runs on. Each `open` is as another process would open it."""

import itertools
from pathlib import Path
from typing import Protocol

from serving.store.base import MAX_STORED_EVENTS
from serving.store.choice import Store, open_redis, open_sqlite
from serving.store.database import Database
from tests.redis_process import RedisProcess


class Stores(Protocol):
    """One kind of store."""

    def open(self, *, most_events: int = MAX_STORED_EVENTS) -> Store:
        """The store; closed with the test."""

    def renew(self) -> None:
        """Begin with an empty store."""


class SqliteStores:
    def __init__(self, folder: Path) -> None:
        self._folder, self._numbers = folder, itertools.count()
        self._opened: list[Store] = []
        self.renew()

    def open(self, *, most_events: int = MAX_STORED_EVENTS) -> Store:
        self._opened.append(open_sqlite(Database(self._path), most_events=most_events))
        return self._opened[-1]

    def renew(self) -> None:
        self.close()
        self._path = self._folder / f"{next(self._numbers)}" / "store.db"

    def close(self) -> None:
        for store in self._opened:
            store.close()
        self._opened.clear()


class RedisStores:
    def __init__(self, redis: RedisProcess) -> None:
        self._redis = redis
        self._opened: list[Store] = []
        self.renew()

    def open(self, *, most_events: int = MAX_STORED_EVENTS) -> Store:
        self._opened.append(open_redis(self._redis.url, most_events=most_events))
        return self._opened[-1]

    def renew(self) -> None:
        self.close()
        self._redis.client.flushall()

    def close(self) -> None:
        for store in self._opened:
            store.close()
        self._opened.clear()
