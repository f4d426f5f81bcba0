"""index.faiss as export writes it: by size, tuned and measured on users, and what that took."""

import json
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest

from model.ann import Float32, exact_search, open_index, recall_at
from model.ivf import build_ivf, parts, reading, search_ivf
from training import index as index_module
from training.index import sentence, write_tuned_index
from training.peak_memory import peak_memory


def made(num: int) -> tuple[Float32, Float32]:
    """Items in clusters, and users near them."""
    rng = np.random.default_rng(8)
    centers = rng.normal(size=(30, 32))
    items = centers[rng.integers(30, size=num)] + 0.4 * rng.normal(size=(num, 32))
    users = centers[rng.integers(30, size=400)] + 0.3 * rng.normal(size=(400, 32))
    return items.astype(np.float32), users.astype(np.float32)


def test_a_small_catalogue_gets_an_exact_index(tmp_path: Path) -> None:
    items, users = made(900)
    about = write_tuned_index(tmp_path / "index.faiss", items, users)
    assert about["kind"] == "exact" and about["metric"] == "inner_product"
    assert about["recall@100"] == 1.0 and about["measured_with"] == "users"
    assert about["tuning_seconds"] == 0 and about["build_seconds"] >= 0
    assert isinstance(open_index(tmp_path / "index.faiss"), faiss.IndexFlat)
    assert "index (exact): recall@100 1.0000 against exact search; built in" in sentence(about)


def test_a_large_one_gets_inverted_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "EXACT_ROWS", 15_000)
    items, users = made(20_000)
    said: list[str] = []
    about = write_tuned_index(tmp_path / "index.faiss", items, users, progress=said.append)
    assert said == ["build the index", "tune the index"]
    assert about == json.loads(json.dumps(about)), "it goes into the manifest"
    assert about["kind"] == "ivf" and about["recall@100"] >= 0.99
    opened = open_index(tmp_path / "index.faiss")
    assert parts(opened)[0].nlist > about["probes"]
    # What it says of itself holds, on the users that neither build nor tuning saw.
    how, others = reading(about["probes"]), users[np.random.default_rng(17).permutation(400)][1::2]
    rows, _ = search_ivf(opened, items, others, 100, fetch=about["fetch"], how=how)
    again = recall_at(rows, exact_search(others, items, 100)[0])
    assert again == pytest.approx(about["recall@100"], abs=1e-4)
    assert f"inverted lists, {about['probes']} read" in sentence(about)


def test_queries_of_every_interest_build_tune_and_measure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two interests a user, one after the other: neither half may be of the one alone."""
    monkeypatch.setattr(index_module, "EXACT_ROWS", 500)
    built_of: list[Float32] = []

    def watched(vectors: Float32, queries: Float32) -> Any:
        built_of.append(queries)
        return build_ivf(vectors, queries)

    monkeypatch.setattr(index_module, "build_ivf", watched)
    items, users = made(2000)
    for num_users in (200, 4000):
        both = np.tile(users, (10, 1))[: 2 * num_users].copy()
        both[::2, 0], both[1::2, 0] = 1, 2
        write_tuned_index(tmp_path / "index.faiss", items, both)
    for queries in built_of:
        assert 0.35 < (queries[:, 0] == 1).mean() < 0.65


def test_items_of_which_nothing_is_known_do_not_lower_the_recall(tmp_path: Path) -> None:
    """They share a vector; which of those that tie are listed is not the index's fault."""
    items, users = made(3000)
    items[500:2500] = items[500]
    about = write_tuned_index(tmp_path / "index.faiss", items, users + 0.5 * items[500])
    assert about["kind"] == "exact" and about["recall@100"] == 1.0


def test_lists_that_find_too_little_give_way_to_an_exact_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_module, "EXACT_ROWS", 500)
    rng = np.random.default_rng(0)
    items, users = rng.normal(size=(20_000, 64)), rng.normal(size=(300, 64)).astype(np.float32)
    items *= np.exp(2 * rng.normal(size=(20_000, 1)))  # a few long ones are among everyone's best
    about = write_tuned_index(tmp_path / "index.faiss", items.astype(np.float32), users)
    assert (about["kind"], about["recall@100"]) == ("exact", 1.0)
    assert isinstance(open_index(tmp_path / "index.faiss"), faiss.IndexFlat)
    lists = about["instead_of"]
    assert lists["kind"] == "ivf" and 0.9 < lists["recall@100"] < 0.99
    said = sentence(about)
    assert f"Warning: inverted lists found {lists['recall@100']:.4f} of the best 100" in said
    assert about == json.loads(json.dumps(about)), "it goes into the manifest"


def test_no_items_are_no_reason_to_fail(tmp_path: Path) -> None:
    items, users = made(10)
    about = write_tuned_index(tmp_path / "index.faiss", items[:0], users)
    assert about["recall@100"] == 1.0 and open_index(tmp_path / "index.faiss").ntotal == 0


@pytest.mark.parametrize("exact_rows", [500, 100_000])
def test_without_users_items_stand_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exact_rows: int
) -> None:
    monkeypatch.setattr(index_module, "EXACT_ROWS", exact_rows)
    items, users = made(2000)
    about = write_tuned_index(tmp_path / "index.faiss", items, users[:0])
    assert about["measured_with"] == "items" and about["recall@100"] > 0.98


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="this is no Linux")
def test_the_peak_is_that_of_the_work_alone() -> None:
    big = np.ones(40 << 20, np.uint8)  # a peak that is over before the work begins
    del big
    with peak_memory() as peak:
        held = np.ones(24 << 20, np.uint8)
        del held
        np.ones(8 << 20, np.uint8)
    assert peak.num_bytes is not None
    assert 23 << 20 < peak.num_bytes < 34 << 20


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="this is no Linux")
def test_the_memory_of_a_build_is_reported(tmp_path: Path) -> None:
    items, users = made(60_000)
    about = write_tuned_index(tmp_path / "index.faiss", items, users)
    # An exact index holds a copy of the vectors; measuring it, a block of scores.
    assert about["peak_memory_bytes"] > items.nbytes
    assert "MiB of memory at most" in sentence(about)
    assert "MiB" not in sentence({**about, "peak_memory_bytes": None})
