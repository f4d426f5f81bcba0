"""EventLog in Redis: a sorted set by number, of NUMBER BODY.

Rows are appended by RedisUsers. Which of them are a user's is kept beside, so that they leave with
their user. (A stream would keep what is deleted from it until all that lies beside it is deleted.)
"""

import json
from typing import Any

from serving.store.redis_server import LOG, Command, RedisServer, logged_key


class RedisEventLog:
    """The log of one Redis; see EventLog."""

    def __init__(self, server: RedisServer) -> None:
        self._server = server

    def store_id(self) -> str:
        """Which store this is, 16 hexadecimal digits."""
        return self._server.store_id()

    def next_part(self, after: int, most_rows: int) -> tuple[int, int] | None:
        """The first and the last number of the next rows after this number; None for none."""
        first, end, last = self._server.ask_together(
            [
                _range(after, "+inf", skip=0, limit=1),
                _range(after, "+inf", skip=most_rows - 1, limit=1),
                ("ZRANGE", LOG, -1, -1),
            ]
        )
        return (_row(first[0])[0], _row((end or last)[0])[0]) if first else None

    def rows(self, after: int, until: int, *, limit: int) -> list[tuple[int, str]]:
        """(number, body) of the first `limit` rows in (after, until]."""
        return [_row(row) for row in self._server.ask(*_range(after, until, limit=limit))]

    def trim(self, until: int, *, limit: int) -> int:
        """Delete the first rows, at most `limit`, up to this number; returns how many."""
        rows = self.rows(0, until, limit=limit)
        if not rows:
            return 0
        users: dict[str, list[int]] = {}
        for number, body in rows:
            users.setdefault(json.loads(body)["user_id"], []).append(number)
        commands: list[Command] = [("ZREMRANGEBYSCORE", LOG, "-inf", rows[-1][0])]
        commands += [("SREM", logged_key(user), *numbers) for user, numbers in users.items()]
        # Rows that went meanwhile, with their user or by another trim, are not missed.
        _, (num, *_) = self._server.transact([], lambda: (commands, None))
        return int(num)


def _range(after: int, until: int | str, *, skip: int = 0, limit: int) -> Command:
    return ("ZRANGE", LOG, f"({after}", until, "BYSCORE", "LIMIT", skip, limit)


def _row(member: Any) -> tuple[int, str]:
    number, _, body = member.partition(b" ")
    return int(number), body.decode()
