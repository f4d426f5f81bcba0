"""UpsertItems and DeleteItems: changes are checked one by one, encoded, and written together.

What cannot be taken is named, the rest is taken. Encoding is done here, before the write, so that
the other workers need not; the store keeps it with the item. Knows no protos.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from model.schema import KINDS, Schema
from serving.checks import between, check_features, check_ids, check_length, check_time
from serving.config import Limits
from serving.domain import Budget, ItemChange, PartError
from serving.errors import BadRequest, BadVector
from serving.live.follower import Follower
from serving.store.item_log import ItemLog, StoredItem, Upsert, changed

TITLE = "title"


@dataclass(slots=True, kw_only=True)
class UpsertRequest:
    """Changes of items, in the order in which they are to be made."""

    changes: Sequence[ItemChange]
    budget: Budget


@dataclass(frozen=True, slots=True)
class Taken:
    """What a write did: how many items were taken, the feed's number of the last change, and what
    was refused."""

    num_taken: int
    sequence: int
    errors: Sequence[PartError]


def upsert_items(request: UpsertRequest, log: ItemLog, follower: Follower, limits: Limits) -> Taken:
    """Write the changes. On disk when it returns.

    Raises BadRequest for a request that is none, StoreUnavailable, and as the budget has it
    DeadlineExceeded or Cancelled; then nothing was written.
    """
    between("items", len(request.changes), 1, limits.max_items, unit="items")
    generation = follower.catalogue.generation
    errors: list[PartError] = []
    good: list[tuple[int, ItemChange]] = []
    for i, change in enumerate(request.changes):
        try:
            check_change(change, generation.schema, limits)
            good.append((i, change))
        except BadRequest as error:
            errors.append(_refused(i, error))
    ids = [change.item_id for _, change in good]
    in_bundle = [row >= 0 for row in generation.items.rows_of(ids).tolist()]
    stored = log.read(ids)
    known = {item_id: item.sequence for item_id, item in stored.items()}
    kept: list[tuple[int, ItemChange, bool, StoredItem]] = []
    now: dict[str, StoredItem] = {}
    for (i, change), in_it in zip(good, in_bundle, strict=True):
        before = now.get(change.item_id, stored.get(change.item_id))
        try:
            new = changed(before, change, in_bundle=in_it, now_us=0)
        except BadRequest as error:
            errors.append(_refused(i, error))
            continue
        now[change.item_id] = new
        kept.append((i, change, in_it, new))
    if not kept:
        return Taken(0, log.newest(), sorted(errors, key=lambda error: error.index))
    encoded = follower.encoder.encode(
        [new for *_, new in kept], follower.vectors_of(request.budget), request.budget
    )
    request.budget.check()
    upserts, places = [], []
    both = np.concatenate([encoded.vectors, encoded.value_vectors], axis=1)
    healthy = np.isfinite(both).all(axis=1).tolist()
    for (i, change, in_it, _), blob, whole in zip(kept, encoded.packed(), healthy, strict=True):
        if not whole:
            reason = "its features give no vector but NaN or infinity; is a number out of bounds?"
            errors.append(_refused(i, BadVector(reason, field="features")))
            continue
        assumed = known.get(change.item_id, 0)
        upserts.append(Upsert(change, in_it, assumed, blob, generation.version))
        places.append(i)
    if not upserts:
        return Taken(0, log.newest(), sorted(errors, key=lambda error: error.index))
    sequence, gone = log.upsert(upserts)
    follower.hint()
    errors += [_refused(places[place], error) for place, error in gone.items()]
    num_taken = len(upserts) - len(gone)
    return Taken(num_taken, sequence, sorted(errors, key=lambda error: error.index))


def delete_items(
    item_ids: Sequence[str], log: ItemLog, follower: Follower, limits: Limits
) -> Taken:
    """Delete items. On disk when it returns. Raises BadRequest and StoreUnavailable."""
    between("item_ids", len(item_ids), 1, limits.max_items, unit="items")
    check_ids(item_ids, "item_ids", limits)
    in_bundle = follower.catalogue.generation.items.rows_of(item_ids) >= 0
    existed, sequence = log.delete(item_ids, in_bundle.tolist())
    follower.hint()
    errors = [
        PartError(i, "UNKNOWN_ITEM", f"item_ids[{i}]", f"no item {item_ids[i]!r:.80}; left aside")
        for i, there in enumerate(existed)
        if not there
    ]
    return Taken(sum(existed), sequence, errors)


def check_change(change: ItemChange, schema: Schema, limits: Limits) -> None:
    """Raise BadRequest, naming the field within the item, for what cannot be taken."""
    if not change.item_id:
        raise BadRequest("an item needs an id", field="item_id")
    check_length(change.item_id, "item_id", limits.max_id_bytes)
    if change.kind and change.kind not in KINDS:
        raise BadRequest(f"no kind {change.kind!r:.80}; kinds: {', '.join(KINDS)}", field="kind")
    given = {name: value for name, value in change.features.items() if value is not None}
    if TITLE in given and TITLE not in schema.item_features:
        title = given.pop(TITLE)
        if not isinstance(title, str):
            raise BadRequest("'title' is of type text", field="features")
        check_length(title, "features", limits.max_text_bytes)
    check_features(given, schema.item_features, "features", limits, of="item")
    cleared = {name: "" for name, value in change.features.items() if value is None}
    for name in cleared:
        if name != TITLE and name not in schema.item_features:
            check_features({name: ""}, schema.item_features, "features", limits, of="item")
    if change.expires_at_us is not None:
        check_time(change.expires_at_us, "expires_at_us")
        if change.expires_at_us < 0:
            raise BadRequest("a time before 1970; 0: never", field="expires_at_us")
    between("links", len(change.links or ()), 0, limits.max_values, unit="links")
    for i, (relation, to) in enumerate(change.links or ()):
        for name, value in (("relation", relation), ("to_item_id", to)):
            if not value:
                raise BadRequest("an empty string", field=f"links[{i}].{name}")
            check_length(value, f"links[{i}].{name}", limits.max_id_bytes)


def _refused(position: int, error: BadRequest) -> PartError:
    where = f"items[{position}].{error.field}" if error.field else f"items[{position}]"
    return PartError(position, error.code, where, str(error))
