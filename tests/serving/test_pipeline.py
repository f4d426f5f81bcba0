"""The pipeline by itself: what it gives the tower, and what stored profiles may not break."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.bundle import open_bundle
from model.schema import Feature
from serving import profiles
from serving.domain import EmbedRequest, History, RetrieveRequest, SimilarRequest, UserQuery
from serving.generation import Generation
from serving.live.catalogue import Catalogue
from serving.pipeline import Answer, Pipeline
from serving.profiles import feature_column
from serving.store.database import Database
from serving.store.sqlite import SqliteStore
from tests.serving.tiny import World, item_id

HOUR = 3_600_000_000
DAY = 24 * HOUR


@pytest.fixture
def generation(world: World) -> Generation:
    return Generation(open_bundle(world.bundle))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(Database(tmp_path / "store.db"))
    yield store
    store.database.close()


@pytest.mark.parametrize(
    ("time", "idle"), [("exact", 29 * HOUR), ("day", 2 * DAY)], ids=["exact", "day"]
)
def test_days_are_counted_from_midnight_to_midnight(
    generation: Generation, store: SqliteStore, time: str, idle: int
) -> None:
    given: dict[str, Any] = {}
    interests = generation.tower.interests

    def record(rows: Any, events: Any, times: Any, profiles: Any, **rest: Any) -> Any:
        given.update(rest, times=times)
        return interests(rows, events, times, profiles, **rest)

    generation.tower.interests = record  # type: ignore[method-assign]
    generation.schema = generation.schema.model_copy(update={"time": time})
    history = History([item_id(1)], ["watch"], [20 * DAY + 20 * HOUR])
    request = EmbedRequest(queries=[UserQuery(history=history)], time_us=22 * DAY + HOUR)
    (answer,) = Pipeline(Catalogue(generation), store).answer([request])
    assert isinstance(answer, Answer)
    assert int(given["now"][0]) - int(given["times"][0][0]) == idle


@pytest.mark.parametrize(
    "misfit",
    [
        '{"city": 3}',
        '{"city": {"name": "Suzhou"}}',
        '{"city": "\\ud800"}',
        '{"city": ["Suzhou"]}',
        '{"city": ',
        "[1]",
    ],
)
def test_a_stored_profile_that_does_not_fit_is_left_aside(
    generation: Generation, store: SqliteStore, world: World, misfit: str
) -> None:
    store.put_profiles([("old", misfit), ("new", '{"city": "Suzhou"}')])
    requests = [RetrieveRequest(queries=[UserQuery(user)], k=3) for user in ("old", "new")]
    old, new = Pipeline(Catalogue(generation), store).answer(requests)
    assert isinstance(old, Answer) and isinstance(new, Answer)
    np.testing.assert_allclose(old.vectors[0], world.interests([]), atol=1e-6)
    np.testing.assert_allclose(new.vectors[0], world.interests([], city="Suzhou"), atol=1e-6)


@pytest.mark.parametrize(
    ("feature", "fits", "misfits"),
    [
        (Feature(type="number"), [3, 2.5], ["3", True, 2**80, [1.0]]),
        (Feature(type="categories"), [[], ["a", "b"]], ["a", [1], {"a": 1}]),
        (Feature(type="text"), ["words"], [1, ["words"]]),
        (Feature(type="vector", dim=2), [[1.0, 2.0]], [[1.0], [1.0, None], ["a", "b"], 3.0]),
    ],
)
def test_features_that_do_not_fit_count_as_missing(
    feature: Feature, fits: list[Any], misfits: list[Any]
) -> None:
    for value in fits:
        assert feature_column([value], feature).null_count == 0, value
    for value in [None, *misfits]:
        assert feature_column([value], feature).null_count == 1, value


def test_kept_profiles_stay_within_their_bytes(
    generation: Generation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(profiles, "CACHED_PROFILE_BYTES", 50_000)
    kept = profiles.Profiles(generation.bundle)
    for i in range(300):
        kept.arrays([json.dumps({"city": f"{i:0900}"})], ["profile.city"])
        assert kept._num_bytes <= 50_000
    num_bytes = sum(profiles._num_bytes(*entry) for entry in kept._known.items())
    assert num_bytes == kept._num_bytes and 10 < len(kept._known) < 60


def test_no_search_is_wider_than_there_are_items(
    generation: Generation, store: SqliteStore, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    widths: list[int] = []
    search = generation.index.search

    def record(queries: Any, k: int, **rest: Any) -> Any:
        widths.append(k)
        return search(queries, k, **rest)

    monkeypatch.setattr(generation.index, "search", record)
    pipeline = Pipeline(Catalogue(generation), store)
    (answer,) = pipeline.answer([RetrieveRequest(queries=[UserQuery("u")], k=1000)])
    (similar,) = pipeline.answer([SimilarRequest(item_ids=[item_id(1)], k=1000)])
    assert widths == [world.num_active, world.num_active]
    assert isinstance(answer, Answer) and answer.candidates is not None
    assert answer.candidates.counts.tolist() == [world.num_active]
    assert isinstance(similar, Answer) and similar.candidates is not None
    assert similar.candidates.counts.tolist() == [world.num_active - 1]
