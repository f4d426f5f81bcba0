"""A value model that learned from candidates: a server shows what an evaluation ranked."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from model.bundle import open_bundle
from penchant import Client
from tests.serving.processes import penchant, serve
from tests.training.tiny import TINY, Silent
from tests.training.value.carts import write_carts
from training.dataset import load_user_ids
from training.distributed import join
from training.evaluate import DistinctItems
from training.run import load_best, open_run, start_run
from training.splits import filtered
from training.tower_ranker import TowerRanker, item_vectors
from training.value.ranker import reranker_of

K = 15


def run(*arguments: object) -> str:
    """Run `penchant` with these arguments; it must succeed. Returns what it printed."""
    done = penchant(*map(str, arguments), timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_server_shows_what_an_evaluation_ranks(tmp_path: Path) -> None:
    """The list of each user at the moment of the test question, asked for with `time_us`."""
    path, bundle, snapshot = (tmp_path / name for name in ("run", "bundle", "snapshot"))
    config = replace(TINY, targets=("order",), seen="converted", epochs=2, max_history=30)
    dataset = write_carts(tmp_path / "dataset", num_users=60)
    start_run(dataset, path, config, rank=join("cpu"), reporter=Silent())
    refused = penchant("train-value", str(path))
    assert refused.returncode == 2 and "--candidates" in refused.stdout + refused.stderr
    said = run("train-value", path, "--candidates", 20, "--epochs", 3)
    assert "candidates of" in said and "The users who choose" in said
    assert "towers + value model" in run("evaluate", path, "--baseline", "relisting")
    judged = penchant("evaluate-value", str(path))
    assert judged.returncode == 2 and "judged by whole lists" in judged.stdout + judged.stderr
    run("export", path, "--bundle", bundle, "--snapshot", snapshot)
    run("load-users", snapshot, "--state", tmp_path / "state")
    written = open_bundle(bundle)
    assert written.value is not None and written.value.candidates is not None
    rule = written.value.candidates
    assert (rule.retrieved, rule.engaged, rule.seen) == (20, 200, "converted")
    assert "towers + value model" in written.manifest.body["metrics"]["metrics"]

    opened = open_run(path)
    model, reranker = load_best(opened)[0], reranker_of(opened)
    assert reranker is not None
    questions = opened.split.questions("test", seen="converted")
    towers = TowerRanker(
        model, item_vectors(opened.items, model), questions, profiles=opened.profiles
    )
    users, data = questions.users[::7], questions.histories
    gone = DistinctItems(filtered(data, "converted")).of(users)
    expected = reranker(towers, questions).top(data, users, K, excluded=gone)
    names = opened.read_items()["item_id"].to_pylist()
    user_ids = load_user_ids(opened.arrays)
    num_engaged = 0
    with (
        serve(bundle, tmp_path / "state", tmp_path / "log") as served,
        Client(served.address) as client,
    ):
        for user, rows in zip(users, expected, strict=True):
            last = data.starts[user + 1] - 1
            idle = questions.idle[np.searchsorted(questions.users, user)]
            moment = int(data.times[last]) + round(float(idle) * 1e6)
            # The test purchase is at that moment, and known only from then on.
            shown = client.recommend(user_ids[user], k=K, time_us=moment - 1)
            assert shown.source.left_out == ()
            assert shown.item_ids == [names[row] for row in rows]
            num_engaged += int((shown.retrieval_ranks >= 20).sum())
    assert num_engaged > 0
