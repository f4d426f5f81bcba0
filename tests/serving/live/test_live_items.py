"""Live items against a plain dictionary: whatever happens in whatever order, a search finds what an
exact search over the dictionary finds, in every worker."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from model.bundle import open_bundle
from serving.config import Limits, ServerConfig
from serving.domain import NO_LIMIT, AnyOf, Filter, ItemChange, Not, Range
from serving.generation import Generation
from serving.live.compactor import Compactor
from serving.live.encode import ItemEncoder
from serving.live.follower import Follower
from serving.live.ingest import UpsertRequest, delete_items, upsert_items
from serving.store.base import store_path
from serving.store.database import Database
from serving.store.item_log import StoredItem, changed
from serving.store.sqlite_items import SqliteItemLog
from tests.serving import tiny
from tests.serving.tiny import NUM_ITEMS, NUM_RETIRED, World, item_id

IDS = [*(item_id(row) for row in (0, 1, 2, 5, NUM_ITEMS - 1)), *(f"new-{i}" for i in range(6))]
FILTERS: list[tuple[Filter, ...]] = [
    (),
    (AnyOf("craft", ("jade", "silver")),),
    (Range("price", 10.0, 30.0),),
    (Not(AnyOf("kind", ("video",))),),
    (AnyOf("tags", ("t1", "hot")), Range("price", max=400.0)),
]
CHANGES = st.fixed_dictionaries(
    {
        "item_id": st.sampled_from(IDS),
        "kind": st.sampled_from(["", "product", "video", "live"]),
        "features": st.dictionaries(
            st.sampled_from(["craft", "price", "tags", "title"]), st.integers(0, 3), max_size=4
        ),
        "available": st.sampled_from([None, None, True, False]),
        "expires": st.sampled_from([None, None, "never", "past"]),
    }
)
VALUES: dict[str, list[Any]] = {
    "craft": [None, "silver", "jade", "bamboo"],
    "price": [None, 5.0, 20.0, 1000.0],
    "tags": [None, [], ["hot"], ["t1", "t2"]],
    "title": [None, "玉", "a jade pendant", "a second one, longer"],
}
WORLDS: list[tuple[World, Generation]] = []
"""Two bundles of the same items, with vectors of 8 numbers and of 12."""


def change_of(drawn: dict[str, Any]) -> ItemChange:
    expires = {None: None, "never": 0, "past": 1_000_000}[drawn["expires"]]
    features = {name: VALUES[name][at] for name, at in drawn["features"].items()}
    return ItemChange(
        item_id=drawn["item_id"],
        kind=drawn["kind"],
        features=features,
        available=drawn["available"],
        expires_at_us=expires,
    )


class LiveItems(RuleBasedStateMachine):
    """One store, two workers and a compactor; `truth` is what should be there."""

    @initialize()
    def begin(self) -> None:
        self.state = Path(tempfile.mkdtemp(prefix="live-"))
        self.active = 0
        self._open()
        self.written: dict[str, StoredItem] = {}

    def _open(self) -> None:
        """The store, and what runs on it over the active bundle."""
        world, self.generation = WORLDS[self.active]
        self.database = Database(store_path(self.state))
        self.log = SqliteItemLog(self.database)
        config = ServerConfig(bundle=world.bundle, state=self.state, seal_rows=1)
        self.compactor = Compactor(config, self.database, self.log, generation=self.generation)
        self.workers = [Follower(self.generation, self.database, self.log) for _ in range(2)]
        self.encoder = ItemEncoder(self.generation)

    def teardown(self) -> None:
        if hasattr(self, "database"):
            self.database.close()
            shutil.rmtree(self.state)

    @rule(drawn=st.lists(CHANGES, min_size=1, max_size=8))
    def upsert(self, drawn: list[dict[str, Any]]) -> None:
        changes = [change_of(one) for one in drawn]
        request = UpsertRequest(changes=changes, budget=NO_LIMIT)
        taken = upsert_items(request, self.log, self.workers[0], Limits())
        refused = {error.index for error in taken.errors}
        for i, change in enumerate(changes):
            old = self.written.get(change.item_id)
            known = self.generation.rows_of([change.item_id])[0] >= 0
            # A new item, or one that was deleted, needs a kind; everything else is taken.
            needs_kind = (old is None and not known) or (old is not None and old.is_deleted)
            assert (i in refused) == (needs_kind and not change.kind)
            if i not in refused:
                self.written[change.item_id] = changed(old, change, in_bundle=known, now_us=0)

    @rule(ids=st.lists(st.sampled_from([*IDS, "nobody"]), min_size=1, max_size=4, unique=True))
    def delete(self, ids: list[str]) -> None:
        taken = delete_items(ids, self.log, self.workers[1], Limits())
        there = [
            not self.written[one].is_deleted
            if one in self.written
            else self.generation.rows_of([one])[0] >= 0
            for one in ids
        ]
        assert [error.index for error in taken.errors] == [
            i for i, ok in enumerate(there) if not ok
        ]
        for one, existed in zip(ids, there, strict=True):
            if existed:
                gone = StoredItem(one, 0, "", {}, (), True, True, False, 0, 0, None, "", 0)
                self.written[one] = gone

    @rule()
    def seal(self) -> None:
        self.compactor.seal(self.compactor._opened())

    @rule(which=st.integers(0, 1))
    def restart(self, which: int) -> None:
        self.workers[which] = Follower(self.generation, self.database, self.log)

    @rule(seals=st.booleans())
    def activate_the_other_bundle(self, seals: bool) -> None:
        self.database.close()
        self.active = 1 - self.active
        self._open()
        if seals:
            self.compactor.seal_all()

    @rule()
    def restart_everything(self) -> None:
        self.database.close()
        self._open()

    @invariant()
    def searches_find_what_is_there(self) -> None:
        if not hasattr(self, "workers"):
            return
        world = WORLDS[self.active][0]
        truth = self._truth(world)
        rng = np.random.default_rng(len(self.written))
        queries = rng.normal(size=(2, world.vectors.shape[1])).astype(np.float32)
        for worker in self.workers:
            worker.look()
            catalogue = worker.catalogue
            for filters in FILTERS:
                shown = {i: v for i, (v, raw) in truth.items() if passes(raw, filters)}
                ids, matrix = list(shown), np.array(list(shown.values()), np.float32)
                gone = sorted({catalogue.rows_of([i])[0] for i in ids[:3]})
                excluded = [np.array(gone, np.int64), np.empty(0, np.int64)]
                rows, scores = catalogue.search(queries, 20, filters, excluded)
                for i, query in enumerate(queries):
                    wanted = matrix @ query
                    if i == 0:
                        wanted[:3] = -np.inf
                    best = np.sort(wanted[wanted > -np.inf])[::-1][:20]
                    found = rows[i][rows[i] >= 0]
                    np.testing.assert_allclose(scores[i][: len(found)], best, atol=1e-4)
                    names = catalogue.ids_of(found)
                    assert len(set(names)) == len(names) == len(best)
                    own = [float(shown[name] @ query) for name in names]
                    np.testing.assert_allclose(own, best, atol=1e-4)
                    assert catalogue.rows_of(names).tolist() == found.tolist()
                    crafts = catalogue.column("craft", found).to_pylist()
                    assert crafts == [truth[name][1]["craft"] for name in names]

    def _truth(self, world: World) -> dict[str, tuple[Any, dict[str, Any]]]:
        """Every item that can be found: its vector and raw features."""
        found: dict[str, tuple[Any, dict[str, Any]]] = {}
        for row in range(NUM_ITEMS - NUM_RETIRED):
            if item_id(row) not in self.written:
                found[item_id(row)] = (world.vectors[row], raw_of(world, row))
        live = [
            item
            for item in self.written.values()
            if not item.is_deleted and is_available(item) and not item.expires_us
        ]
        if live:
            vectors = self.encoder.encode(live, lambda ids: (_ for _ in ()).throw(KeyError)).vectors
            for item, vector in zip(live, vectors, strict=True):
                under = {} if item.is_whole else raw_of(world, IDS_TO_ROW[item.item_id])
                raw = {**dict.fromkeys(VALUES), **under, **item.features}
                raw["kind"] = item.kind or under["kind"]
                found[item.item_id] = (vector, raw)
        return found


def is_available(item: StoredItem) -> bool:
    """What nobody has said is as the bundle says."""
    if item.is_available is None:
        return IDS_TO_ROW[item.item_id] < NUM_ITEMS - NUM_RETIRED
    return item.is_available


IDS_TO_ROW = {item_id(row): row for row in range(NUM_ITEMS)}


def raw_of(world: World, row: int) -> dict[str, Any]:
    return {
        "craft": world.crafts[row],
        "price": world.prices[row],
        "tags": world.tags[row],
        "title": f"题 {row}",
        "kind": world.kinds[row],
    }


def passes(raw: dict[str, Any], filters: tuple[Filter, ...]) -> bool:
    return all(holds(raw, one) for one in filters)


def holds(raw: dict[str, Any], filter_: Filter) -> bool:
    if isinstance(filter_, Not):
        return not holds(raw, filter_.filter)
    value = raw[filter_.field]
    if isinstance(filter_, Range):
        low = -np.inf if filter_.min is None else filter_.min
        high = np.inf if filter_.max is None else filter_.max
        return value is not None and low <= value <= high
    values = value if isinstance(value, list) else [value]
    return any(one in filter_.values for one in values)


@pytest.fixture(scope="module", autouse=True)
def opened(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny, "DIM", 12)
        patch.setattr(tiny, "COLD", np.eye(12, dtype=np.float32)[0])
        other = tiny.make_world(tmp_path_factory.mktemp("other"), seed=8)
    WORLDS[:] = [(one, Generation(open_bundle(one.bundle))) for one in (world, other)]
    yield
    WORLDS.clear()


TestLiveItems = LiveItems.TestCase
TestLiveItems.settings = settings(
    max_examples=12,
    stateful_step_count=10,
    deadline=None,
    derandomize=True,
    phases=(Phase.generate,),  # shrinking a failure takes minutes here
    suppress_health_check=list(HealthCheck),
)
