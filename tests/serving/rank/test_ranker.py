"""What is left out where time is short, in which order, and that it is said."""

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.bundle import open_bundle
from serving.domain import (
    Budget,
    KindShare,
    RetrieveRequest,
    SimilarRequest,
    SlateRules,
    Slates,
    UserQuery,
)
from serving.errors import Cancelled, DeadlineExceeded
from serving.generation import Generation
from serving.index.ivf_index import IvfIndex
from serving.live.catalogue import Catalogue
from serving.pipeline import Answer, Pipeline, Request
from serving.rank import costs as costs_module
from serving.rank import parts as parts_module
from serving.rank import value as value_module
from serving.rank.costs import Cost, Costs, new_costs
from serving.rank.ranker import Ranker, Wish
from serving.store.base import store_path
from serving.store.database import Database
from serving.store.sqlite import SqliteStore
from tests.serving.tiny import item_id

VARIED = SlateRules(diversity=0.5)


@pytest.fixture(scope="module")
def generation(value_bundle: Path) -> Generation:
    return Generation(open_bundle(value_bundle))


@pytest.fixture(scope="module")
def answer(generation: Generation, state: Path) -> Iterator[Answer]:
    store = SqliteStore(Database(store_path(state)))
    request = RetrieveRequest(queries=[UserQuery("user-011"), UserQuery("user-012")], k=50)
    (found,) = Pipeline(Catalogue(generation), store).answer([request])
    assert isinstance(found, Answer)
    yield found
    store.database.close()


def known(**seconds: float) -> Costs:
    """Costs with so many seconds a unit, as if measured."""
    costs = new_costs()
    for name, value in seconds.items():
        getattr(costs, name).observe(1, value)
    return costs


def rank(
    generation: Generation,
    answer: Answer,
    costs: Costs,
    budget: Budget,
    slate: SlateRules,
    k: int = 10,
    hurries: bool = False,
) -> tuple[list[int], tuple[str, ...]]:
    assert answer.candidates is not None
    slates = Ranker(costs, diversity=0.0).rank(
        answer.catalogue,
        answer.candidates,
        answer.readers,
        answer.vectors,
        Wish(k=k, weights={}, slate=slate),
        now=answer.now,
        budget=budget,
        hurries=hurries,
    )
    return slates.candidates.rows.tolist(), slates.left_out


def test_costs_are_a_running_average_with_a_margin() -> None:
    cost = Cost()
    assert cost.of(5) == 0
    cost.observe(10, 1.0)  # 0.1 a unit
    assert cost.of(10) == pytest.approx(1.5)
    cost.observe(10, 2.0)  # a tenth of the way to 0.2
    assert cost.of(10) == pytest.approx(1.65)


def test_with_time_nothing_is_left_out(generation: Generation, answer: Answer) -> None:
    costs = known(value=0.001, arrange=0.001)  # 0.15 s for 100 candidates
    budget = Budget(time.monotonic() + 60)
    _, left_out = rank(generation, answer, costs, budget, VARIED)
    assert left_out == ()


def test_diversity_goes_first_then_the_value_model(generation: Generation, answer: Answer) -> None:
    costs = known(value=0.1, arrange=10.0)  # with the margin 15 s and 30 s
    plain, _ = rank(generation, answer, new_costs(), Budget(), SlateRules())
    varied, _ = rank(generation, answer, new_costs(), Budget(), VARIED)
    rows, left_out = rank(generation, answer, costs, Budget(time.monotonic() + 60), VARIED)
    assert left_out == () and rows == varied
    costs = known(value=0.1, arrange=10.0)
    rows, left_out = rank(generation, answer, costs, Budget(time.monotonic() + 40), VARIED)
    assert left_out == ("diversity",) and rows == plain
    costs = known(value=0.1, arrange=10.0)
    rows, left_out = rank(generation, answer, costs, Budget(time.monotonic() + 10), VARIED)
    assert left_out == ("diversity", "value_model")
    assert answer.candidates is not None
    scores = answer.candidates.scores[:50]
    best = answer.candidates.rows[:50][np.argsort(-scores, kind="stable")][:10]
    assert rows[:10] == best.tolist()


def test_what_was_searched_for_in_haste_is_not_ranked_at_leisure(
    generation: Generation, answer: Answer
) -> None:
    quick, left_out = rank(generation, answer, new_costs(), Budget(), VARIED, hurries=True)
    assert left_out == ("diversity", "value_model")
    plain, left_out = rank(generation, answer, new_costs(), Budget(), SlateRules(), hurries=True)
    assert left_out == ("value_model",) and plain == quick


def test_what_was_not_asked_for_is_not_left_out(generation: Generation, answer: Answer) -> None:
    costs = known(value=0.1, arrange=10.0)
    budget = Budget(time.monotonic() + 10)
    assert rank(generation, answer, costs, budget, SlateRules())[1] == ("value_model",)


def test_nothing_is_begun_after_the_deadline_or_for_nobody(
    generation: Generation, answer: Answer
) -> None:
    ranker = Ranker(new_costs(), diversity=0.0)
    assert answer.candidates is not None
    wish = Wish(k=3, weights={}, slate=VARIED)
    given = (answer.catalogue, answer.candidates, answer.readers, answer.vectors, wish)
    with pytest.raises(Cancelled):
        ranker.rank(*given, now=answer.now, budget=Budget(is_wanted=lambda: False))
    assert ranker._turns.take(0)  # another call is being ranked
    with pytest.raises(DeadlineExceeded):
        ranker.rank(*given, now=answer.now, budget=Budget(time.monotonic() + 0.05))
    ranker._turns.give()
    assert ranker.rank(*given, now=answer.now, budget=Budget()).candidates.counts.tolist() == [3, 3]


def test_the_index_is_read_less_where_time_is_short(
    generation: Generation, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Quick:
        """Stands for an index that reads fewer lists; finds the same here."""

        calls = 0

        def search(self, *args: object, **options: object) -> object:
            Quick.calls += 1
            return generation.index.search(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(generation, "quick_index", Quick())
    store = SqliteStore(Database(store_path(state)))
    soon = Budget(time.monotonic() + 5)
    requests = [
        RetrieveRequest(queries=[UserQuery("user-011")], k=5, budget=soon),
        RetrieveRequest(queries=[UserQuery("user-011")], k=5),
    ]
    hurried, other = Pipeline(Catalogue(generation), store, known(find=10.0)).answer(requests)
    assert isinstance(hurried, Answer) and isinstance(other, Answer)
    assert (hurried.left_out, other.left_out, Quick.calls) == (("probes",), (), 1)
    hurried, other = Pipeline(Catalogue(generation), store, known(find=0.001)).answer(requests)
    assert isinstance(hurried, Answer) and hurried.left_out == () and Quick.calls == 1
    gone = RetrieveRequest(
        queries=[UserQuery("user-011")], k=5, budget=Budget(is_wanted=lambda: False)
    )
    (refused,) = Pipeline(Catalogue(generation), store).answer([gone])
    assert isinstance(refused, Cancelled)
    store.database.close()


def test_only_lists_can_be_read_less(generation: Generation) -> None:
    assert generation.quick_index is None and not isinstance(generation.index, IvfIndex)


def test_one_bad_moment_weighs_little() -> None:
    cost = Cost()
    cost.observe(1, 0.01)
    cost.observe(1, 60.0)  # the machine stood still
    assert cost.of(1) == pytest.approx(1.5 * 0.019)
    for _ in range(20):  # it has become slow, and stays so
        cost.observe(1, 1.0)
    assert cost.of(1) > 1


def test_one_of_many_costs_less_than_one_alone() -> None:
    cost = Cost()
    cost.observe(1, 0.004)
    assert cost.of(64) == pytest.approx(1.5 * 64 * 0.004)  # nothing better is known yet
    cost.observe(64, 0.064)
    assert cost.of(64) == pytest.approx(1.5 * 0.064)
    assert cost.of(100) == pytest.approx(1.5 * 0.1)
    assert cost.of(1) == pytest.approx(1.5 * 0.004)
    cost.observe(10**9, 1.0)
    assert cost.of(10**9) == pytest.approx(1.5)


def test_an_average_that_nothing_renews_fades(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(costs_module, "_FRESH", 0.02)
    monkeypatch.setattr(costs_module, "_HALVES", 0.02)
    cost = Cost()
    cost.observe(1, 60.0)  # the machine stood still
    assert cost.of(1) == pytest.approx(90)
    time.sleep(0.3)
    assert 0 <= cost.of(1) < 0.1
    cost.observe(1, 1.0)
    assert cost.of(1) < 0.3 * 90


def test_what_is_left_out_is_tried_again(
    generation: Generation, answer: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    costs = known(value=1.0)
    assert rank(generation, answer, costs, Budget(time.monotonic() + 5), SlateRules())[1]
    monkeypatch.setattr(costs_module, "_FRESH", 0.02)
    monkeypatch.setattr(costs_module, "_HALVES", 0.02)
    time.sleep(0.3)
    assert rank(generation, answer, costs, Budget(time.monotonic() + 5), SlateRules())[1] == ()


@pytest.mark.parametrize("k", [0, 50])
def test_all_of_several_slates_are_not_each_of_all(
    generation: Generation, answer: Answer, k: int
) -> None:
    costs = known(answer=0.01)  # 100 items and 2 slates: with the margin 1.53 s
    budget = Budget(time.monotonic() + 2.5)
    _, left_out = rank(generation, answer, costs, budget, SlateRules(), k=k)
    assert left_out == ()
    assert rank(generation, answer, costs, Budget(time.monotonic() + 1), SlateRules(), k=k)[1]


def test_one_user_with_many_candidates_does_not_widen_the_others(
    generation: Generation, answer: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    value = generation.value
    assert value is not None
    monkeypatch.setattr(value_module, "CANDIDATES_A_RUN", 100)
    run, scored = value._session.run, []

    def counting(arrays: Mapping[str, Any]) -> Any:
        scored.append(arrays["candidates"].shape[:2])
        return run(arrays)

    monkeypatch.setattr(value._session, "run", counting)
    num_users, counts = 12, [1, 90, 2, 1, 0, 1, 40, 1, 1, 1, 2, 1]
    rng = np.random.default_rng(3)
    rows = np.full((num_users, 90), -1)
    for i, count in enumerate(counts):
        rows[i, :count] = rng.integers(0, 580, count)
    scores = rng.normal(size=rows.shape).astype(np.float32)
    readers, interests = answer.readers, np.stack([answer.vectors[0]] * num_users)
    history = [readers[0].rows[: i % 3] for i in range(num_users)]
    events = [readers[0].events[: i % 3] for i in range(num_users)]
    times = [readers[0].times[: i % 3] for i in range(num_users)]
    now = np.full(num_users, answer.now[0])

    def chances(users: slice) -> np.ndarray:
        return value.chances(
            history[users],
            events[users],
            times[users],
            [""] * len(history[users]),
            interests[users],
            now=now[users],
            candidates=rows[users],
            scores=scores[users],
        )

    together = chances(slice(None))
    assert sum(users * width for users, width in scored) <= 1.5 * sum(counts)
    for i, count in enumerate(counts):
        alone = chances(slice(i, i + 1))
        np.testing.assert_allclose(together[i, :count], alone[0, :count], atol=1e-6)


def test_work_ends_when_the_caller_goes(
    generation: Generation, answer: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(value_module, "CANDIDATES_A_RUN", 50)  # a run for each of the two users
    asked: list[None] = []

    def goes_after_the_first_run() -> bool:
        asked.append(None)
        return len(asked) < 3

    with pytest.raises(Cancelled):
        rank(
            generation,
            answer,
            new_costs(),
            Budget(is_wanted=goes_after_the_first_run),
            SlateRules(),
        )
    assert len(asked) == 3


def test_neighbours_are_not_counted_as_one_users_search(
    generation: Generation, state: Path
) -> None:
    store, costs = SqliteStore(Database(store_path(state))), new_costs()
    requests: list[Request] = [
        SimilarRequest(item_ids=[item_id(row) for row in range(250)], k=200),
        RetrieveRequest(queries=[UserQuery("user-011")], k=5),  # of 2 interests
    ]
    began = time.perf_counter()
    Pipeline(Catalogue(generation), store, costs).answer(requests)
    assert 0 < costs.find.of(252) <= 1.51 * (time.perf_counter() - began)
    store.database.close()


def test_a_large_batch_is_ranked_in_parts_to_the_same_slates(
    generation: Generation, answer: Answer, monkeypatch: pytest.MonkeyPatch
) -> None:
    slate = SlateRules(diversity=0.3, kinds=(KindShare("live", 1.0),))
    assert answer.candidates is not None
    given = (answer.catalogue, answer.candidates, answer.readers, answer.vectors)
    wish = Wish(k=50, weights={}, slate=slate)

    def ranked() -> Slates:
        ranker = Ranker(new_costs(), diversity=0.0)
        return ranker.rank(*given, wish, now=answer.now, budget=Budget())

    whole = ranked()
    monkeypatch.setattr(parts_module, "CANDIDATES_A_TURN", 50)
    assert list(parts_module.parts(answer.candidates.counts.tolist())) == [(0, 1), (1, 2)]
    parts = ranked()
    assert parts.candidates.rows.tolist() == whole.candidates.rows.tolist()
    assert parts.candidates.counts.tolist() == whole.candidates.counts.tolist()
    for name in ("values", "chances", "retrieval_ranks", "value_ranks", "reasons"):
        np.testing.assert_allclose(getattr(parts, name), getattr(whole, name), atol=1e-6)
    assert list(parts.errors) == list(whole.errors)
    assert [error.index for error in parts.errors] == [0, 1]


def test_parts_hold_whole_queries() -> None:
    assert list(parts_module.parts([8000, 200, 9000, 0, 0, 1])) == [(0, 1), (1, 2), (2, 3), (3, 6)]
    assert list(parts_module.parts([0, 0])) == [(0, 2)]
