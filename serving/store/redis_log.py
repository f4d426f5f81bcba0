"""EventLog in Redis: a stream, whose entries have the numbers 0-1, 0-2, … by themselves.

Entries are appended by RedisUsers. Which of them are a user's is kept beside, so that they leave
with their user.
"""

import json

from serving.store.redis_server import LOG, Command, RedisServer, logged_key


class RedisEventLog:
    """The log of one Redis; see EventLog."""

    def __init__(self, server: RedisServer) -> None:
        self._server = server

    def store_id(self) -> str:
        """Which store this is, 16 hexadecimal digits."""
        return self._server.store_id()

    def next_part(self, after: int, most_rows: int) -> tuple[int, int] | None:
        """The first and the last number of the next rows after this number; None for none.

        Fewer than `most_rows` where some between have left with their user.
        """
        found = self.rows(after, -1, limit=1)
        if not found:
            return None
        first = found[0][0]
        ((last, _),) = self._server.ask(
            *("XREVRANGE", LOG, f"0-{first + most_rows - 1}", f"0-{first}", "COUNT", 1)
        )
        return first, _number(last)

    def rows(self, after: int, until: int, *, limit: int) -> list[tuple[int, str]]:
        """(number, body) of the first `limit` rows in (after, until]; to the end where that is
        negative."""
        end = "+" if until < 0 else f"0-{until}"
        found = self._server.ask("XRANGE", LOG, f"0-{after + 1}", end, "COUNT", limit)
        return [(_number(entry), _body(fields)) for entry, fields in found]

    def trim(self, until: int, *, limit: int) -> int:
        """Delete the first rows, at most `limit`, up to this number; returns how many."""
        if until <= 0:
            return 0
        rows = self.rows(0, until, limit=limit)
        if not rows:
            return 0

        def plan() -> tuple[list[Command], None]:
            ids = [f"0-{number}" for number, _ in rows]
            users: dict[str, list[str]] = {}
            for entry, (_, body) in zip(ids, rows, strict=True):
                users.setdefault(json.loads(body)["user_id"], []).append(entry)
            commands: list[Command] = [("XDEL", LOG, *ids)]
            commands += [("SREM", logged_key(user), *some) for user, some in users.items()]
            return commands, None

        # Rows that went meanwhile, with a user or by another trim, are not missed.
        self._server.transact([], plan)
        return len(rows)


def _number(entry: bytes) -> int:
    return int(entry.partition(b"-")[2])


def _body(fields: dict[bytes, bytes]) -> str:
    return fields[b"body"].decode()
