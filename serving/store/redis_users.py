"""Users in Redis inside a transaction: UserWrites and UserRows over hashes.

A user is one hash: `profile`, `rejected`, the summary of what the history has let go of (`let_go`,
`seen`), the numbers of the `oldest` and the `newest` chunk, the newest one's `length`, and each
chunk's columns (`7e` are the event codes of chunk 7). What a transaction reads is kept, and what it
changes lies above that until all of it is sent: so it sees its own writes, and can take them back.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from serving.domain import Event
from serving.store import event_log
from serving.store.chunks import Hashes, Key
from serving.store.redis_server import (
    DELETED,
    LOG,
    NAMES,
    NEXT_LOGGED,
    NEXT_USER,
    USERS,
    Command,
    RedisServer,
    logged_key,
    user_key,
)
from serving.store.user_rows import Row, Summary, deleted_hash

COLUMN_LETTERS = "ethisd"
"""Of events, timestamps, item_hashes, item_ids, sequences, event_ids: chunks.COLUMNS."""
_HEAD = ("oldest", "newest", "length", "let_go", "rejected")
_PUT_BETWEEN = 200
"""Fields of a hash that one command writes; fewer commands, and none too long."""

# What a write of a user nearly always needs: the head, and the two newest chunks.
_OPEN = """
local head = redis.call('HMGET', KEYS[1], 'oldest', 'newest', 'length', 'let_go', 'rejected')
local rows = {}
if head[2] then
  for n = math.max(tonumber(head[1]), head[2] - 1), tonumber(head[2]) do
    rows[#rows + 1] = redis.call(
      'HMGET', KEYS[1], n .. 'e', n .. 't', n .. 'h', n .. 'i', n .. 's', n .. 'd')
  end
end
return {redis.call('EXISTS', KEYS[1]), head, rows}
"""
# A number that is given once, in the order in which transactions are carried out.
_ADD = """
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) then
  redis.call('ZADD', KEYS[1], redis.call('INCR', KEYS[2]), ARGV[1])
end
redis.call('HSETNX', KEYS[3], 'profile', '')
"""
_APPEND = """
for i = 1, #ARGV do
  local number = string.format('%.0f', redis.call('INCR', KEYS[2]))
  redis.call('ZADD', KEYS[1], number, number .. ' ' .. ARGV[i])
  redis.call('SADD', KEYS[i + 2], number)
end
"""
_ABSENT = object()


def watched(user_ids: Iterable[str]) -> list[str]:
    """The keys that RedisUsers reads, of these users."""
    return [NAMES, DELETED, *map(user_key, user_ids)]


class RedisUsers:
    """UserWrites of some users. What it reads must be watched while it lives."""

    def __init__(self, server: RedisServer, user_ids: Sequence[str]) -> None:
        self._server = server
        hashes = [deleted_hash(user_id) for user_id in user_ids]
        names, deleted, *found = server.ask_together(
            [
                ("LRANGE", NAMES, 0, -1),
                ("HMGET", DELETED, *hashes),
                *(("EVAL_RO", _OPEN, 1, user_key(user_id)) for user_id in user_ids),
            ]
        )
        self._names = [name.decode() for name in names]
        self._deleted = dict(zip(user_ids, deleted, strict=True))
        self._users = {
            user_id: RedisUserRows(self, user_id, bool(exists), _known(head, rows))
            for user_id, (exists, head, rows) in zip(user_ids, found, strict=True)
        }
        self._new_names: dict[int, str] = {}
        self._added: dict[str, bool] = {}
        self._logged: dict[int, tuple[str, str]] = {}
        self._journal: list[tuple[dict[Any, Any], Any, Any]] = []

    def names(self) -> list[str]:
        """Event names by their codes."""
        return [*self._names, *self._new_names.values()]

    def add_name(self, code: int, name: str) -> None:
        """Give an event name the next code."""
        self.change(self._new_names, code, name)

    def deleted_us(self, user_id: str) -> int | None:
        """When the user was deleted, UTC µs; None for one who never was."""
        found = self._deleted[user_id]
        return None if found is None else int(found)

    def find_or_add(self, user_id: str) -> "RedisUserRows":
        """The user, who is known from now on."""
        user = self._users[user_id]
        if not user.exists and user_id not in self._added:
            self.change(self._added, user_id, True)
        return user

    def append(self, user_id: str, bodies: Iterable[str]) -> None:
        """Put events of a user at the end of the log."""
        for body in bodies:
            self.change(self._logged, len(self._logged), (user_id, body))

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """The block is written whole, or nothing of it where it meets damage."""
        mark = self.mark()
        try:
            yield
        except (ValueError, TypeError):
            self.take_back(mark)
            raise

    def mark(self) -> int:
        """Where `take_back` may go back to."""
        return len(self._journal)

    def take_back(self, mark: int) -> None:
        """Undo what was written after `mark` was taken."""
        while len(self._journal) > mark:
            where, name, before = self._journal.pop()
            if before is _ABSENT:
                del where[name]
            else:
                where[name] = before

    def change(self, where: dict[Any, Any], name: Any, value: Any) -> None:
        """Write a value so that it can be taken back."""
        self._journal.append((where, name, where.get(name, _ABSENT)))
        where[name] = value

    def commands(self) -> list[Command]:
        """What makes all that was written so."""
        made: list[Command] = []
        if self._new_names:
            made.append(("RPUSH", NAMES, *self._new_names.values()))
        made += [add_user(user_id) for user_id in self._added]
        for user in self._users.values():
            made += user.commands()
        if self._logged:
            keys = [logged_key(user_id) for user_id, _ in self._logged.values()]
            bodies = [body for _, body in self._logged.values()]
            made.append(("EVAL", _APPEND, 2 + len(keys), LOG, NEXT_LOGGED, *keys, *bodies))
        return made

    def fetch(self, key: str, fields: Sequence[str]) -> list[bytes | None]:
        """Fields of a user's hash, as Redis has them."""
        return list(self._server.ask("HMGET", key, *fields))


class RedisUserRows:
    """UserRows of one user."""

    def __init__(
        self, users: RedisUsers, user_id: str, exists: bool, known: dict[str, bytes | None]
    ) -> None:
        """known: fields that were read already."""
        self._users, self._user_id, self._key = users, user_id, user_key(user_id)
        self.exists, self._known = exists, known
        self._changes: dict[str, bytes | str | int | None] = {}

    @property
    def first_chunk(self) -> int:
        """The number of a first chunk."""
        return 0

    def tail(self, since_us: int) -> list[Row]:
        """The newest chunk, and those before it that reach to since_us; oldest first."""
        rows: list[Row] = []
        last, num = self._number("newest", -1), 2
        oldest = self._number("oldest", 0)
        while last >= oldest:
            first = max(last - num + 1, oldest)
            for row in reversed(self.between(first, last + 1)):
                if rows and int.from_bytes(row[2][-8:], "little", signed=True) < since_us:
                    return rows[::-1]
                rows.append(row)
            last, num = first - 1, 2 * num
        return rows[::-1]

    def between(self, start: int, end: int) -> list[Row]:
        """The chunks from this number to before that one, oldest first.

        Raises ValueError where one is not whole.
        """
        fields = [f"{n}{letter}" for n in range(start, end) for letter in COLUMN_LETTERS]
        values = self._read(fields)
        width = len(COLUMN_LETTERS)
        return [
            _row(start + i, values[i * width : (i + 1) * width]) for i in range(max(end - start, 0))
        ]

    def oldest(self) -> int:
        """The number of the oldest chunk that is left."""
        return self._number("oldest", 0)

    def put(self, rows: Iterable[Row]) -> None:
        """Write the newest chunks, or write them again; the last is the newest of all."""
        for number, *values in rows:
            for letter, value in zip(COLUMN_LETTERS, values, strict=True):
                self._write(f"{number}{letter}", value)
            if self._read(["oldest"])[0] is None:
                self._write("oldest", number)
            self._write("newest", number)
            self._write("length", len(values[0]) // 2)

    def drop(self, start: int, end: int) -> None:
        """Forget the oldest chunks: from this number, which is the oldest, to before that one."""
        for number in range(start, end):
            for letter in COLUMN_LETTERS:
                self._write(f"{number}{letter}", None)
        self._write("oldest", end)

    def last_let_go(self) -> Key | None:
        """Where the last event that was let go of stood; None where none was."""
        (found,) = self._read(["let_go"])
        if found is None:
            return None
        about = json.loads(_str(found))
        return about["last_us"], about["last_sequence"]

    def summary(self) -> Summary | None:
        """Of the events that were let go of; None where none was."""
        found, seen = self._read(["let_go", "seen"])
        if found is None:
            return None
        return Summary(seen=_bytes(seen), **json.loads(_str(found)))

    def put_summary(self, summary: Summary) -> None:
        """Write the summary."""
        about = {
            "num_events": summary.num_events,
            "first_us": summary.first_us,
            "last_us": summary.last_us,
            "last_sequence": summary.last_sequence,
            "counts": summary.counts,
        }
        self._write("let_go", json.dumps(about))
        self._write("seen", summary.seen)

    def reject(self, hashes: Hashes) -> None:
        """Add items to those that the user does not want to see."""
        known = np.frombuffer(_bytes(self._read(["rejected"])[0]), np.uint64)
        self._write("rejected", np.union1d(known, hashes).tobytes())

    def log(self, events: Sequence[Event]) -> None:
        """Put events at the end of the log."""
        self._users.append(self._user_id, map(event_log.to_body, events))

    def commands(self) -> list[Command]:
        """What makes all that was written of the user so."""
        put = [(name, value) for name, value in self._changes.items() if value is not None]
        gone = [name for name, value in self._changes.items() if value is None]
        made: list[Command] = []
        for start in range(0, len(put), _PUT_BETWEEN):
            pairs = put[start : start + _PUT_BETWEEN]
            made.append(("HSET", self._key, *(part for pair in pairs for part in pair)))
        if gone:
            made.append(("HDEL", self._key, *gone))
        return made

    def _write(self, name: str, value: bytes | str | int | None) -> None:
        self._users.change(self._changes, name, value)

    def _read(self, fields: Sequence[str]) -> list[bytes | str | int | None]:
        """Fields as they are after what was written, None where there is none."""
        missing = [f for f in fields if f not in self._changes and f not in self._known]
        if missing and self.exists:
            values = self._users.fetch(self._key, missing)
            self._known.update(zip(missing, values, strict=True))
        return [self._changes[f] if f in self._changes else self._known.get(f) for f in fields]

    def _number(self, name: str, absent: int) -> int:
        (found,) = self._read([name])
        return absent if found is None else int(found)


def add_user(user_id: str) -> Command:
    """What makes a user known, where they are not."""
    return ("EVAL", _ADD, 3, USERS, NEXT_USER, user_key(user_id), user_id)


def _known(
    head: Sequence[bytes | None], rows: Sequence[Sequence[bytes | None]]
) -> dict[str, bytes | None]:
    """What _OPEN read, by its fields."""
    known = dict(zip(_HEAD, head, strict=True))
    if rows:
        first = int(known["newest"] or 0) - len(rows) + 1
        for number, values in enumerate(rows, first):
            names = (f"{number}{letter}" for letter in COLUMN_LETTERS)
            known.update(zip(names, values, strict=True))
    return known


def _row(number: int, values: Sequence[bytes | str | int | None]) -> Row:
    if None in values:
        raise ValueError(f"chunk {number} is not whole")
    codes, times, hashes, item_ids, sequences, event_ids = values
    return (number, codes, times, hashes, _str(item_ids), sequences, _str(event_ids))


def _str(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _bytes(value: object) -> bytes:
    return value if isinstance(value, bytes) else b""
