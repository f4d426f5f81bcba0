"""What is left out where time is short, in which order, and that it is said."""

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from model.bundle import open_bundle
from serving.domain import Budget, RetrieveRequest, SlateRules, UserQuery
from serving.errors import Cancelled, DeadlineExceeded
from serving.generation import Generation
from serving.index.ivf_index import IvfIndex
from serving.pipeline import Answer, Pipeline
from serving.rank.costs import Cost, Costs, new_costs
from serving.rank.ranker import Ranker, Wish
from serving.store.base import store_path
from serving.store.sqlite import SqliteStore

VARIED = SlateRules(diversity=0.5)


@pytest.fixture(scope="module")
def generation(value_bundle: Path) -> Generation:
    return Generation(open_bundle(value_bundle))


@pytest.fixture(scope="module")
def answer(generation: Generation, state: Path) -> Iterator[Answer]:
    store = SqliteStore(store_path(state))
    request = RetrieveRequest(queries=[UserQuery("user-011"), UserQuery("user-012")], k=50)
    (found,) = Pipeline(generation, store).answer([request])
    assert isinstance(found, Answer)
    yield found
    store.close()


def known(**seconds: float) -> Costs:
    """Costs with so many seconds a unit, as if measured."""
    costs = new_costs()
    for name, value in seconds.items():
        getattr(costs, name).observe(1, value)
    return costs


def rank(
    generation: Generation, answer: Answer, costs: Costs, budget: Budget, slate: SlateRules
) -> tuple[list[int], tuple[str, ...]]:
    assert answer.candidates is not None
    slates = Ranker(generation, costs, diversity=0.0).rank(
        answer.candidates,
        answer.readers,
        answer.vectors,
        Wish(k=10, weights={}, slate=slate),
        now=answer.now,
        budget=budget,
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


def test_what_was_not_asked_for_is_not_left_out(generation: Generation, answer: Answer) -> None:
    costs = known(value=0.1, arrange=10.0)
    budget = Budget(time.monotonic() + 10)
    assert rank(generation, answer, costs, budget, SlateRules())[1] == ("value_model",)


def test_nothing_is_begun_after_the_deadline_or_for_nobody(
    generation: Generation, answer: Answer
) -> None:
    ranker = Ranker(generation, new_costs(), diversity=0.0)
    assert answer.candidates is not None
    given = (answer.candidates, answer.readers, answer.vectors, Wish(k=3, weights={}, slate=VARIED))
    with pytest.raises(Cancelled):
        ranker.rank(*given, now=answer.now, budget=Budget(is_wanted=lambda: False))
    ranker._turn.acquire()  # another call is being ranked
    with pytest.raises(DeadlineExceeded):
        ranker.rank(*given, now=answer.now, budget=Budget(time.monotonic() + 0.05))
    ranker._turn.release()
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
    store = SqliteStore(store_path(state))
    soon = Budget(time.monotonic() + 5)
    requests = [
        RetrieveRequest(queries=[UserQuery("user-011")], k=5, budget=soon),
        RetrieveRequest(queries=[UserQuery("user-011")], k=5),
    ]
    hurried, other = Pipeline(generation, store, known(find=10.0)).answer(requests)
    assert isinstance(hurried, Answer) and isinstance(other, Answer)
    assert (hurried.left_out, other.left_out, Quick.calls) == (("probes",), (), 1)
    hurried, other = Pipeline(generation, store, known(find=0.001)).answer(requests)
    assert isinstance(hurried, Answer) and hurried.left_out == () and Quick.calls == 1
    gone = RetrieveRequest(
        queries=[UserQuery("user-011")], k=5, budget=Budget(is_wanted=lambda: False)
    )
    (refused,) = Pipeline(generation, store).answer([gone])
    assert isinstance(refused, Cancelled)
    store.close()


def test_only_lists_can_be_read_less(generation: Generation) -> None:
    assert generation.quick_index is None and not isinstance(generation.index, IvfIndex)
