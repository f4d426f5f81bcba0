"""UserStore in Redis, where several machines serve the same users.

A request reads a user in one round trip, by a script, so that it sees the user as of one moment.
New events are written in groups (groups.py), each a transaction that holds or is made again.
"""

import json
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from serving.domain import Event
from serving.errors import StoreUnavailable
from serving.store.base import MAX_STORED_EVENTS, NewHistory, Outcome, StoredHistory
from serving.store.chunks import CHUNK_EVENTS, Hashes, unpacked
from serving.store.groups import Groups, Write
from serving.store.redis_server import (
    DELETED,
    LOG,
    NAMES,
    STORE,
    USERS,
    Command,
    RedisServer,
    logged_key,
    user_key,
)
from serving.store.redis_users import RedisUsers, add_user, watched
from serving.store.user_rows import deleted_hash
from serving.store.writing import merge_history, record_events

# The newest ARGV[1] chunks (all where it is negative), oldest first; and what names mean now.
_READ = """
local head = redis.call('HMGET', KEYS[1], 'profile', 'rejected', 'oldest', 'newest')
if not head[1] then return false end
local oldest, newest = tonumber(head[3] or 0), tonumber(head[4] or -1)
local first, wanted = oldest, tonumber(ARGV[1])
if wanted >= 0 then first = math.max(oldest, newest - wanted + 1) end
local rows, others = {}, {}
for n = first, newest do
  rows[#rows + 1] = redis.call('HMGET', KEYS[1], n .. 'i', n .. 'e', n .. 't')
end
if ARGV[2] == 'all' then
  for n = oldest, newest do others[#others + 1] = redis.call('HGET', KEYS[1], n .. 'h') end
end
if ARGV[2] ~= 'none' then others[#others + 1] = redis.call('HGET', KEYS[1], 'seen') end
return {head[1], head[2] or '', first, rows, others,
  redis.call('LLEN', KEYS[2]), redis.call('HGET', KEYS[3], 'id')}
"""
# A user's rows leave the log.
_FORGET = """
for _, number in ipairs(redis.call('SMEMBERS', KEYS[2])) do
  redis.call('ZREMRANGEBYSCORE', KEYS[1], number, number)
end
"""
_NONE: Hashes = np.empty(0, np.uint64)


@dataclass(frozen=True, slots=True)
class _Events:
    """What one call of `record` brings."""

    events: Sequence[Event]
    since_us: int
    negative: Collection[str]


class RedisStore:
    """User histories and profiles in a Redis. Every method raises StoreUnavailable where it cannot
    be read or written; where the answer to a write was lost, it may have been taken all the same,
    and is found to be known when it is sent again."""

    most_together = 100
    """See UserStore: a large transaction would be overtaken by events of its users time and again.
    """

    def __init__(self, server: RedisServer, *, most_events: int = MAX_STORED_EVENTS) -> None:
        """most_events: of one user, above which the oldest are let go."""
        self.server, self._most = server, most_events
        self._names_of: tuple[int, bytes | None] = (0, None)
        self._event_names: list[str] = []
        self._groups: Groups[_Events] = Groups(self._record_together)

    @property
    def event_names(self) -> Sequence[str]:
        """What the codes in StoredHistory.events mean."""
        if not self._event_names:
            self._read_names()
        return self._event_names

    def read(
        self, user_id: str, *, limit: int | None, others: bool = False
    ) -> StoredHistory | None:
        """The user's latest `limit` events (all that are stored where None); None for an unknown
        user. others: whether StoredHistory.others is wanted."""
        num_chunks = -1 if limit is None else -(-limit // CHUNK_EVENTS) + 1
        which = "none" if not others else "seen" if limit is None else "all"
        found = self.server.ask(
            *("EVAL_RO", _READ, 3, user_key(user_id), NAMES, STORE, num_chunks, which)
        )
        if found is None:
            return None
        profile, rejected, first, rows, hashes, *names_of = found
        if tuple(names_of) != self._names_of:
            self._read_names()  # another server has added an event name since
        try:
            item_ids, events, times = unpacked(
                [(None if row[0] is None else row[0].decode(), row[1], row[2]) for row in rows]
            )
            seen = np.frombuffer(b"".join(one for one in hashes if one is not None), np.uint64)
            if any(None in row for row in rows):
                raise ValueError("a chunk is not whole")
        except (ValueError, TypeError) as error:
            raise self._damaged(user_id, str(error)) from error
        is_all = first == 0
        if limit is not None and len(item_ids) > limit:
            start = len(item_ids) - limit
            item_ids, events, times = item_ids[start:], events[start:], times[start:]
            is_all = False
        if len(events) and max(events.tolist()) >= len(self._event_names):
            raise self._damaged(user_id, "an event code without a name")
        return StoredHistory(
            item_ids,
            events,
            times,
            profile.decode(),
            np.frombuffer(rejected, np.uint64),
            _NONE if is_all else seen,
        )

    def record(
        self, events: Sequence[Event], *, since_us: int, negative: Collection[str]
    ) -> "Future[list[Outcome]]":
        """Add events that happened just now, and log them; see UserStore."""
        if not events:
            nothing: Future[list[Outcome]] = Future()
            nothing.set_result([])
            return nothing
        done = self._groups.submit(_Events(events, since_us, negative))
        if done is None:
            raise StoreUnavailable(f"cannot write {self.server.name}: it is closed")
        return done

    def merge_histories(
        self, histories: Iterable[NewHistory], *, negative: Collection[str] = ()
    ) -> int:
        """Add the events whose event_id the user does not have yet; returns how many."""
        every = list(histories)  # which may have to be merged more than once
        ids = list(dict.fromkeys(history.user_id for history in every))

        def plan() -> tuple[list[Command], int]:
            users, added = RedisUsers(self.server, ids), 0
            names = users.names()
            for history in every:
                try:
                    added += merge_history(
                        users, history, names, negative=negative, most=self._most
                    )
                except (ValueError, TypeError) as error:  # of what is stored already
                    raise self._damaged(history.user_id, str(error)) from error
            return users.commands(), added

        return self.server.transact(watched(ids), plan)[0] if ids else 0

    def put_profiles(
        self, profiles: Iterable[tuple[str, str]], *, as_of_us: int | None = None
    ) -> None:
        """Set users' raw features, (user_id, JSON object) each. On disk when it returns."""
        every = dict(profiles)
        if not every:
            return

        def plan() -> tuple[list[Command], None]:
            hashes = [deleted_hash(user_id) for user_id in every]
            deleted = self.server.ask("HMGET", DELETED, *hashes)
            commands: list[Command] = []
            for (user_id, profile), when in zip(every.items(), deleted, strict=True):
                if when is None or as_of_us is None or int(when) < as_of_us:
                    commands.append(add_user(user_id))
                    commands.append(("HSET", user_key(user_id), "profile", profile))
            return commands, None

        self.server.transact([DELETED], plan)

    def delete_user(self, user_id: str, *, now_us: int) -> bool:
        """Forget all about a user, and remember when; returns whether anything was known."""
        key, logged = user_key(user_id), logged_key(user_id)

        def plan() -> tuple[list[Command], bool]:
            existed = self.server.ask("EXISTS", key)
            commands: list[Command] = [("HSET", DELETED, deleted_hash(user_id), now_us)]
            if existed:
                commands.append(("EVAL", _FORGET, 2, LOG, logged))
                commands += [("DEL", key, logged), ("ZREM", USERS, user_id)]
            return commands, bool(existed)

        return self.server.transact([key], plan)[0]

    def num_users(self) -> int:
        """How many users have a history or a profile."""
        return int(self.server.ask("ZCARD", USERS))

    def list_users(self, *, after: int, limit: int) -> list[tuple[int, str, int]]:
        """(number, user_id, events) of at most `limit` users whose number is above `after`."""
        found = self.server.ask(
            *("ZRANGE", USERS, f"({after}", "+inf", "BYSCORE", "LIMIT", 0, limit, "WITHSCORES")
        )
        pairs = list(zip(found[::2], found[1::2], strict=True))
        ids = [user_id.decode() for user_id, _ in pairs]
        fields = ("oldest", "newest", "length", "let_go")
        heads = self.server.ask_together([("HMGET", user_key(one), *fields) for one in ids])
        return [
            (int(float(number)), user_id, _num_events(*head))
            for (_, number), user_id, head in zip(pairs, ids, heads, strict=True)
        ]

    def close(self) -> None:
        """Finish what was begun; the server stays open."""
        self._groups.close()

    def _record_together(self, group: Sequence[Write[_Events]]) -> None:
        """Write all events of a group in one transaction, and tell everyone."""
        ids = list(dict.fromkeys(one.user_id for write in group for one in write.work.events))

        def plan() -> tuple[list[Command], list[Any]]:
            users, results = RedisUsers(self.server, ids), []
            for write in group:
                results.append(
                    record_events(
                        users,
                        write.work.events,
                        since_us=write.work.since_us,
                        negative=write.work.negative,
                        most=self._most,
                    )
                )
            return users.commands(), results

        results, _ = self.server.transact(watched(ids), plan)
        for write, result in zip(group, results, strict=True):
            write.done.set_result(result)

    def _damaged(self, user_id: str, reason: str) -> StoreUnavailable:
        return StoreUnavailable(
            f"{self.server.name} is damaged where it holds user {user_id!r:.80}: {reason}"
        )

    def _read_names(self) -> None:
        # A new list, never a change in place: readers may hold the old one.
        names, identity = self.server.ask_together(
            [("LRANGE", NAMES, 0, -1), ("HGET", STORE, "id")]
        )
        self._event_names = [name.decode() for name in names]
        self._names_of = (len(names), cast("bytes | None", identity))


def _num_events(
    oldest: bytes | None, newest: bytes | None, length: bytes | None, let_go: bytes | None
) -> int:
    """Of a user, those that the history has let go of included."""
    gone = json.loads(let_go)["num_events"] if let_go else 0
    if newest is None:
        return int(gone)
    return int(gone) + (int(newest) - int(oldest or 0)) * CHUNK_EVENTS + int(length or 0)
