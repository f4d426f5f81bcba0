"""A value model that learns from candidates: which there are, what it learns, what it refuses."""

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from model.errors import ConfigError
from model.schema import TimeKind
from tests.training.tiny import TINY, Silent
from tests.training.value.carts import write_carts
from training.checkpoint import load_checkpoint, save_checkpoint
from training.config import RunConfig
from training.distributed import join
from training.evaluate import DistinctItems, evaluate_run
from training.run import Run, load_best, open_run, start_run
from training.splits import filtered
from training.tower_ranker import TowerRanker, item_vectors
from training.value.candidates import ListMaker
from training.value.config import ValueRunConfig
from training.value.evaluate import evaluate_value
from training.value.from_candidates import fit_and_choose
from training.value.inputs import item_arrays
from training.value.item_stats import count_stats
from training.value.ranker import reranker_of
from training.value.stored import WEIGHTS, load_value
from training.value.train import ValueReport, train_value

TOWERS = replace(TINY, targets=("order",), seen="converted", epochs=1)
CONFIG = ValueRunConfig(
    candidates=6, engaged=20, dim=16, max_history=30, hidden=(32, 16), epochs=8, patience=8
)


def run_on(dataset: Path, path: Path, config: RunConfig = TOWERS) -> Run:
    start_run(dataset, path, config, rank=join("cpu"), reporter=Silent())
    return open_run(path)


@dataclass(frozen=True)
class Shop:
    run: Run
    report: ValueReport


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    folder = tmp_path_factory.mktemp("shop")
    run = run_on(write_carts(folder / "dataset"), folder / "run")
    return Shop(run, train_value(run, load_best(run)[0], CONFIG))


def test_a_list_is_what_is_found_and_what_was_engaged_with(shop: Shop) -> None:
    run = shop.run
    model = load_best(run)[0]
    questions = run.split.questions("test", seen="converted")
    data = questions.histories
    towers = TowerRanker(model, item_vectors(run.items, model), questions, profiles=run.profiles)
    maker = ListMaker.of(
        towers, questions, kin=(), created=None, profiles=run.profiles, retrieved=6, engaged=9
    )
    users = questions.users[5:25]
    gone = DistinctItems(filtered(data, "converted")).of(users)
    lists = maker.lists(users, excluded=gone, heads=())
    found = towers.find(data, users, 6, excluded=gone)
    for i, user in enumerate(users):
        span = slice(data.starts[user], data.starts[user + 1])
        ordered = set(data.items[span][data.events[span] == 3].tolist())
        newest = dict.fromkeys(data.items[span][::-1].tolist())
        left = [item for item in newest if item not in ordered][:9]
        retrieved = found.rows[i].tolist()
        listed = lists.items[lists.starts[i] : lists.starts[i + 1]].tolist()
        assert listed == retrieved + [item for item in left if item not in retrieved]
        scores = (towers.vectors[listed] @ found.interests[i].T).max(axis=1)
        own = lists.scores[lists.starts[i] : lists.starts[i + 1]]
        np.testing.assert_allclose(own, scores, atol=1e-5)
    whole = DistinctItems(data).of(users)
    filtered_lists = maker.lists(users, excluded=whole, heads=())
    assert np.diff(filtered_lists.starts).tolist() == [6] * len(users)  # nothing seen is added


def test_labels_are_what_validation_asks_for(shop: Shop) -> None:
    run, model = shop.run, load_best(shop.run)[0]
    items = item_arrays(run, model, count_stats(run.split.training, None))
    fit, choose, notes = fit_and_choose(run, model, items, CONFIG, progress=lambda d, what: None)
    questions = run.split.questions("validation", seen="converted")
    assert sorted([*fit.users, *choose.users]) == questions.users.tolist() and notes == []
    assert 10 < choose.num_owners < 40 and [head.name for head in fit.heads] == ["order"]
    asked = dict(zip(questions.users.tolist(), questions.targets.tolist(), strict=True))
    for lists in (fit, choose):
        wanted = np.array([asked[user] for user in lists.users])[lists.owners]
        np.testing.assert_array_equal(lists.labels[:, 0], lists.items == wanted)
    facts = shop.report.value.facts["parts"]
    assert facts["fit"]["positives"] == {"order": int(fit.labels.sum())}
    assert facts["choose"]["users"] == choose.num_owners
    again = fit_and_choose(run, model, items, CONFIG, progress=lambda d, what: None)[1]
    np.testing.assert_array_equal(again.users, choose.users)


def test_statistics_know_nothing_of_what_is_held_out(shop: Shop) -> None:
    run, stats = shop.run, shop.report.value.stats
    data, known = run.data, run.split.known["validation"]
    names = list(stats.names)
    assert names[:3] == ["converted.view", "converted.cart", "popularity"]
    for code, event in enumerate(("view", "cart", "order"), 1):
        rows = data.items[known & (data.events == code)]
        counted = np.log1p(np.bincount(rows, minlength=data.num_items))
        np.testing.assert_allclose(stats.values[:, names.index(f"count.{event}")], counted)
    # Of item 7: who viewed it before the questions, and who of these had ordered it by then.
    mine = known & (data.items == 7)
    viewers, buyers = (set(data.owners[mine & (data.events == code)]) for code in (1, 3))
    mean = stats.prior[0]
    rate = (len(viewers & buyers) + 20 * mean) / (len(viewers) + 20)
    assert stats.values[7, 0] == pytest.approx(rate, rel=1e-5)
    num_orders = (known & (data.events == 3)).sum()  # one a user, all of things they viewed
    assert mean == pytest.approx(num_orders / (known & (data.events == 1)).sum(), rel=1e-5)


def test_it_learns_that_what_is_in_the_cart_is_bought(shop: Shop) -> None:
    run, model = shop.run, load_best(shop.run)[0]
    found = evaluate_run(
        run, model, baselines=("relisting",), with_circles=False, reranker=reranker_of(run)
    )
    assert list(found.metrics) == ["towers + value model", "towers", "relisting"]
    value, towers = found.metrics["towers + value model"], found.metrics["towers"]
    # Two of three in the cart are left; who knows that alone finds 9 of 10 among the best 3 of 14.
    assert value["hr@10"] > 0.85 and value["ndcg@10"] > towers["ndcg@10"] + 0.2
    assert 1 <= shop.report.value.facts["best_epoch"] <= CONFIG.epochs
    chosen = shop.report.choosing["order"].to_json()
    assert chosen["value"]["ndcg"] > chosen["retrieval"]["ndcg"]


@pytest.mark.parametrize("time", ["none", "order", "day"])
def test_whatever_is_known_of_time(time: TimeKind, tmp_path: Path) -> None:
    dataset = write_carts(tmp_path / "dataset", time=time, num_users=40)
    run = run_on(dataset, tmp_path / "run")
    model = load_best(run)[0]
    train_value(run, model, replace(CONFIG, epochs=1))
    found = evaluate_run(run, model, baselines=(), with_circles=False, reranker=reranker_of(run))
    assert found.metrics["towers + value model"]["recall@50"] > 0.85


def test_it_is_judged_by_whole_lists(shop: Shop) -> None:
    with pytest.raises(ConfigError, match="judged by whole lists: penchant evaluate"):
        evaluate_value(shop.run, load_best(shop.run)[0], load_value(shop.run))


def test_what_cannot_be_learned_from_is_refused(tmp_path: Path) -> None:
    run = run_on(write_carts(tmp_path / "dataset", num_users=30), tmp_path / "run")
    model = load_best(run)[0]
    with pytest.raises(ConfigError, match=r"30 users, of whom 0 would choose"):
        train_value(run, model, replace(CONFIG, choosing_share=1e-9))
    with pytest.raises(ConfigError, match=r"no head can be learned.*Give more --candidates"):
        train_value(run, model, replace(CONFIG, candidates=1, engaged=0))
    assert not (run.path / "value").exists()


def test_another_version_of_the_network_is_named(shop: Shop, tmp_path: Path) -> None:
    path = tmp_path / "run"
    shutil.copytree(shop.run.path, path)
    tensors, body = load_checkpoint(path / WEIGHTS)
    name = "request_side.bottom.candidate.weight"
    save_checkpoint(path / WEIGHTS, {**tensors, name: tensors[name][:, :-3].contiguous()}, body)
    with pytest.raises(ConfigError, match=r"trained by another version of Penchant.*--overwrite"):
        load_value(open_run(path, dataset=shop.run.dataset))
    assert json.loads((path / "value" / "value.json").read_text())["config"]["candidates"] == 6
