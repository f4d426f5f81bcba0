"""The main job, end to end: logs in, towers, a bundle and a snapshot out, a server that answers.

Every step is the `penchant` command in a process of its own, as a user would run it.
"""

import json
import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from penchant import Client
from serving.domain import AnyOf
from tests.serving.processes import ROOT, penchant, serve

ML_1M = Path(os.environ.get("PENCHANT_DATA", ROOT.parent / "shared" / "data")) / "ml-1m"


def run(*arguments: object, timeout: float = 280) -> str:
    """Run `penchant` with these arguments; it must succeed. Returns what it printed."""
    done = penchant(*map(str, arguments), timeout=timeout)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def export(folder: Path, run_folder: Path) -> str:
    """Export a run and load its users; returns what `penchant export` printed."""
    bundle, snapshot = folder / "bundle", folder / "snapshot"
    printed = run("export", run_folder, "--bundle", bundle, "--snapshot", snapshot)
    run("load-users", snapshot, "--state", folder / "state")
    return printed


def test_a_world_becomes_answers(tmp_path: Path) -> None:
    """Without any download: simulate, train, evaluate, export, serve, query."""
    dataset, runs = tmp_path / "world", tmp_path / "run"
    run("simulate", dataset, "--users", 300, "--items", 800, "--days", 14, "--seed", 3)
    run("validate", dataset)
    run("train", dataset, "--out", runs, "--recipe", "demo", "--device", "cpu")
    run("evaluate", runs, "--k", 10, "--k", 50)
    result = json.loads((runs / "test.json").read_text())
    metrics = result["metrics"]
    assert metrics["towers"]["hr@50"] > metrics["popularity"]["hr@50"]
    assert "max abs error" in export(tmp_path, runs)

    histories = pq.read_table(tmp_path / "snapshot" / "histories.parquet").to_pylist()
    user = max(histories, key=lambda row: len(row["item_ids"]))
    items = pq.read_table(dataset / "items.parquet").to_pylist()
    kinds = {item["item_id"]: item["kind"] for item in items}
    with (
        serve(
            tmp_path / "bundle", tmp_path / "state", tmp_path / "log", "--workers", "2"
        ) as served,
        Client(served.address) as client,
    ):
        found = client.retrieve(user["user_id"], k=30, exclude_seen=True)
        assert len(set(found.item_ids)) == 30
        assert not found.cold[0]
        assert not set(found.item_ids) & set(user["item_ids"])
        products = client.retrieve(user["user_id"], k=30, filters=[AnyOf("kind", ("product",))])
        assert {kinds[item] for item in products.item_ids} == {"product"}
        assert client.retrieve("nobody-knows", k=5).cold[0]
        table = penchant("query", user["user_id"], "--address", served.address)
    assert table.returncode == 0, table.stderr
    assert "circle" in table.stdout and "interest" in table.stdout
    assert served.process.returncode == 0


@pytest.mark.skipif(not ML_1M.exists(), reason=f"MovieLens-1M is not at {ML_1M}")
def test_movielens_becomes_answers_that_fit_the_viewer(tmp_path: Path) -> None:
    """Real data, cut down to 800 viewers: what is found shares the genres of what was watched."""
    dataset, runs = tmp_path / "ml", tmp_path / "run"
    run("import", "movielens", ML_1M, dataset, "--max-users", 800)
    run(
        "train", dataset, "--out", runs, "--recipe", "movielens", "--max-minutes", 0.5,
        "--device", "cpu",
    )  # fmt: skip
    export(tmp_path, runs)
    items = pq.read_table(dataset / "items.parquet").to_pylist()
    genres = {item["item_id"]: set(item["genres"]) for item in items}
    titles = {item["item_id"]: item["title"] for item in items}
    viewers = pq.read_table(tmp_path / "snapshot" / "histories.parquet").to_pylist()[:60]
    with (
        serve(tmp_path / "bundle", tmp_path / "state", tmp_path / "log") as served,
        Client(served.address) as client,
    ):
        own, other = 0.0, 0.0
        for viewer, stranger in zip(viewers, reversed(viewers), strict=True):
            found = client.retrieve(viewer["user_id"], k=20, exclude_seen=True).item_ids
            own += overlap(viewer["item_ids"], found, genres)
            other += overlap(stranger["item_ids"], found, genres)
        assert own > 1.03 * other, (own, other)
        user = viewers[0]["user_id"]
        best = client.retrieve(user, k=1, exclude_seen=True).item_ids[0]
        table = penchant("query", user, "--address", served.address)
    assert table.returncode == 0, table.stderr
    assert titles[best] in table.stdout


def overlap(watched: list[str], found: list[str], genres: dict[str, set[str]]) -> float:
    """Mean share of a viewer's last 20 movies that share a genre with each found movie."""
    recent = [genres[item] for item in watched[-20:]]
    shares = [sum(bool(genres[item] & one) for one in recent) / len(recent) for item in found]
    return sum(shares) / len(shares)
