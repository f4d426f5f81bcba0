"""ItemLog in Redis: an item is a hash, and the feed a sorted set by the number of the last change.

Numbers are given where a change is carried out, so that whoever reads the feed after one of them
misses none below it. Both are read by one script, as of one moment.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from serving.errors import BadRequest
from serving.store.item_log import (
    COLUMNS,
    StoredItem,
    Upsert,
    changed,
    item_of,
    now_us,
    row_of,
    tombstone,
)
from serving.store.redis_server import FEED, SEQUENCE, STORE, Command, RedisServer, item_key

_FIELDS = tuple(COLUMNS.split(", "))
_NO_LIMIT = 1 << 53
"""Scores are doubles; numbers below are exact."""

# ARGV: how many values an item has, then the values of each, without its number.
_PUT = """
local width, sequence = tonumber(ARGV[1]), tonumber(redis.call('GET', KEYS[2]) or 0)
for i = 3, #KEYS do
  local start = 2 + (i - 3) * width
  sequence = redis.call('INCR', KEYS[2])
  redis.call('HSET', KEYS[i], 'sequence', sequence, unpack(ARGV, start, start + width - 1))
  redis.call('ZADD', KEYS[1], sequence, ARGV[start + 1])
end
return sequence
"""
_SINCE = f"""
local items = {{}}
local ids = redis.call(
  'ZRANGE', KEYS[1], '(' .. ARGV[1], ARGV[2], 'BYSCORE', 'LIMIT', 0, tonumber(ARGV[3]))
for i = 1, #ids do
  items[i] = redis.call('HMGET', ARGV[4] .. ids[i], {", ".join(f"'{f}'" for f in _FIELDS)})
end
return items
"""


class RedisItemLog:
    """The items of one Redis; see ItemLog."""

    def __init__(self, server: RedisServer) -> None:
        self._server = server
        self.feed = server.store_id()

    def changes(self) -> int:
        """A number that is another one once anybody has written an item, or emptied the store."""
        identity, sequence = self._server.ask_together([("HGET", STORE, "id"), ("GET", SEQUENCE)])
        if identity is None or identity.decode() != self.feed:
            self.feed = self._server.store_id()
        return hash((self.feed, int(sequence or 0)))

    def holds(self, sequence: int, item_id: str) -> bool:
        """Whether the feed still has the change of this number, or a later one of that item."""
        if self.newest() < sequence:
            return False
        score = self._server.ask("ZSCORE", FEED, item_id) if item_id else None
        return not item_id or (score is not None and float(score) >= sequence)

    def read(self, item_ids: Sequence[str]) -> dict[str, StoredItem]:
        """Those of these items that the store has, deleted ones too."""
        ids = list(dict.fromkeys(item_ids))
        found = self._server.ask_together([("HMGET", item_key(one), *_FIELDS) for one in ids])
        return {
            item_id: _item(values)
            for item_id, values in zip(ids, found, strict=True)
            if values[0] is not None
        }

    def since(self, sequence: int, *, limit: int, most: int | None = None) -> list[StoredItem]:
        """At most `limit` items that changed after this number, the earliest change first; none
        that changed after `most`."""
        end = _NO_LIMIT if most is None else min(most, _NO_LIMIT)
        found = self._server.ask("EVAL_RO", _SINCE, 1, FEED, sequence, end, limit, item_key(""))
        return [_item(values) for values in found]

    def newest(self) -> int:
        """The number of the last change; 0 where there was none."""
        return int(self._server.ask("GET", SEQUENCE) or 0)

    def num_since(self, sequence: int) -> int:
        """How many items have changed after this number."""
        return int(self._server.ask("ZCOUNT", FEED, f"({sequence}", "+inf"))

    def upsert(self, upserts: Sequence[Upsert]) -> tuple[int, dict[int, BadRequest]]:
        """Write the changes; returns the number of the last, and what was refused, by its place."""
        ids = [upsert.change.item_id for upsert in upserts]

        def plan() -> tuple[list[Command], dict[int, BadRequest]]:
            now, items, rows = now_us(), self.read(ids), []
            refused: dict[int, BadRequest] = {}
            for place, upsert in enumerate(upserts):
                item_id = upsert.change.item_id
                old = items.get(item_id)
                try:
                    new = changed(old, upsert.change, in_bundle=upsert.in_bundle, now_us=now)
                except BadRequest as error:
                    refused[place] = error
                    continue
                # Somebody else changed it meanwhile: what was made of it is of another item.
                holds = (0 if old is None else old.sequence) == upsert.assumed
                new = replace(new, encoded_by=upsert.encoded_by)
                rows.append(row_of(new, 0, upsert.encoded if holds else None))
                # Its number is not known yet, and is no number that anybody can have assumed.
                items[item_id] = replace(new, sequence=-1)
            return [_put(rows)] if rows else [], refused

        refused, answers = self._server.transact([item_key(one) for one in ids], plan)
        return int(answers[0]) if answers else self.newest(), refused

    def delete(self, item_ids: Sequence[str], in_bundle: Sequence[bool]) -> tuple[list[bool], int]:
        """Delete items; returns which of them there were, and the number of the last change."""

        def plan() -> tuple[list[Command], list[bool]]:
            now, items = now_us(), self.read(item_ids)
            existed, rows = [], []
            for item_id, known in zip(item_ids, in_bundle, strict=True):
                old = items.get(item_id)
                existed.append(known if old is None else not old.is_deleted)
                if existed[-1]:
                    items[item_id] = tombstone(item_id, now)
                    rows.append(row_of(items[item_id], 0, None))
            return [_put(rows)] if rows else [], existed

        existed, answers = self._server.transact([item_key(one) for one in item_ids], plan)
        return existed, int(answers[0]) if answers else self.newest()


def _put(rows: Sequence[Sequence[Any]]) -> Command:
    """What writes rows of items, each with the next number."""
    values: list[Any] = []
    for row in rows:
        pairs = [(n, v) for n, v in zip(_FIELDS, row, strict=True) if n != "sequence"]
        values += [_plain(part) for pair in pairs for part in pair]
    width = 2 * (len(_FIELDS) - 1)
    keys = [item_key(row[0]) for row in rows]
    return ("EVAL", _PUT, 2 + len(keys), FEED, SEQUENCE, *keys, width, *values)


def _plain(value: Any) -> str | bytes | int:
    """What Redis takes: no booleans, and nothing for None."""
    if value is None:
        return b""
    return int(value) if isinstance(value, bool) else value


def _item(values: Sequence[bytes]) -> StoredItem:
    item_id, sequence, kind, body, whole, deleted, available, expires, updated, encoded, by = values
    return item_of(
        (
            item_id.decode(),
            int(sequence),
            kind.decode(),
            body,
            int(whole),
            int(deleted),
            int(available),
            int(expires),
            int(updated),
            encoded or None,
            by.decode(),
        )
    )
