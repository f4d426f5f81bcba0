"""The index for millions beside hnswlib, usearch and FAISS's HNSW, at the same recall.

    python benchmarks/ann.py --work DIR [--items 1000000] [--build-only]

Makes vectors like those of trained towers (benchmarks/trained_like.py says how), builds our index
as `penchant export` does and each peer's graphs (benchmarks/ann_peers.py), and keeps all of it in
DIR: a start that was broken off goes on where it was, and --build-only ends there. Then, pinned to
one core, one thread, one query at a time: each peer is asked with more and more candidates (ef)
until its recall@100 is 0.99, and the fastest of its graphs that gets there is measured, in turns
with ours. Then the same with rows allowed at random and by clusters. Needs the extra [peers].
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # before numpy's library is used for the first time

import faiss
import numpy as np
import numpy.typing as npt
from ann_peers import PEERS, VARIANTS, Graph, Mask, build_graph
from results import write_result
from trained_like import HOW, trained_like

from model.ann import open_index
from model.ivf import Setting
from serving.index.base import Bitmap
from serving.index.ivf_index import IvfIndex
from training.index import write_tuned_index

K, TARGET = 100, 0.99
EFS = (100, 150, 200, 300, 400, 600, 800, 1200, 1600, 2400, 3200, 4800, 6400)
SHARES = (0.5, 0.1, 0.01, 0.001)
CLUSTERS = 1000
TOO_SLOW = 100.0
"""Milliseconds a query beyond which a sweep is given up."""

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]
Search = Callable[[Float32], Int64]


@dataclass(frozen=True)
class Found:
    """A peer's graph and setting for one question, and what it is worth."""

    variant: str
    ef: int
    recall: float
    search: Search


def main() -> None:
    """Build, measure, write the result."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--work", type=Path, required=True, help="where everything is kept")
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=400, help="a measurement; filtered: a 4th")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--graphs", type=int, default=len(VARIANTS), help="of each peer, the most promising first"
    )
    parser.add_argument("--build-only", action="store_true", help="leave the timing for later")
    arguments = parser.parse_args()
    faiss.omp_set_num_threads(1)
    work, num_items = arguments.work, arguments.items
    vectors, queries = trained_like(work, num_items)
    vectors = np.asarray(vectors)
    graphs = work / f"graphs-{num_items}"
    graphs.mkdir(exist_ok=True)
    about = build_ours(graphs, vectors, queries)
    variants = VARIANTS[: arguments.graphs]
    for space, degree in variants:
        for name in PEERS:
            build_graph(name, space, degree, vectors, graph_path(graphs, name, space, degree))
    if arguments.build_only:
        return
    os.sched_setaffinity(0, {0})
    setting = Setting(about["probes"], about["fetch"])
    ours = IvfIndex(open_index(graphs / "penchant.faiss"), vectors, setting)
    # Queries with even numbers built and tuned ours; what is measured, it has not seen.
    unseen = np.ascontiguousarray(queries[1::2][: arguments.queries])
    bench = Bench(ours, vectors, graphs, variants, about, arguments.rounds)
    rows = [bench.row("all", None, unseen)]
    for label, mask in masks(vectors):
        rows.append(bench.row(label, mask, unseen[: max(len(unseen) // 4, 1)]))
    some = np.random.default_rng(3).choice(len(vectors), len(unseen), replace=False)
    similar = bench.recall_of_ours(vectors[some])
    report(rows, bench, similar, len(unseen))


def build_ours(folder: Path, vectors: Float32, queries: Float32) -> dict[str, Any]:
    """Our index as export writes it; what the manifest would say of it."""
    said = folder / "penchant.json"
    if not said.exists():
        about = write_tuned_index(folder / "penchant.faiss", vectors, queries)
        said.write_text(json.dumps(about))
    about = json.loads(said.read_text())
    return dict(about)


def graph_path(folder: Path, name: str, space: str, degree: int) -> Path:
    """Where a peer's graph is kept."""
    return folder / f"{name.replace(' ', '-')}-{space}-{degree}.index"


def masks(vectors: Float32) -> Iterator[tuple[str, npt.NDArray[np.bool_]]]:
    """Rows allowed at random, and whole clusters of rows, the last one in part."""
    rng = np.random.default_rng(1)
    for share in SHARES:
        yield f"{share:.1%} at random", rng.random(len(vectors)) < share
    num_clusters = min(CLUSTERS, len(vectors) // 100)
    kmeans = faiss.Kmeans(vectors.shape[1], num_clusters, niter=6, seed=2)
    kmeans.train(vectors[:: max(len(vectors) // (50 * num_clusters), 1)])
    owner = np.concatenate(
        [
            kmeans.index.search(vectors[start : start + (1 << 17)], 1)[1][:, 0]
            for start in range(0, len(vectors), 1 << 17)
        ]
    )
    rows = np.argsort(rng.permutation(num_clusters)[owner], kind="stable")
    for share in SHARES:
        mask = np.zeros(len(vectors), bool)
        mask[rows[: int(share * len(vectors))]] = True
        yield f"{share:.1%} by clusters", mask


class Bench:
    """Ours and the peers' graphs, asked the same questions in turns."""

    def __init__(
        self,
        ours: IvfIndex,
        vectors: Float32,
        folder: Path,
        variants: Sequence[tuple[str, int]],
        about: dict[str, Any],
        rounds: int,
    ) -> None:
        self.ours, self.vectors, self.about, self.rounds = ours, vectors, about, rounds
        self.graphs: dict[str, dict[str, Graph]] = {}
        self.seconds: dict[str, float] = {}
        for name, kind in PEERS.items():
            self.graphs[name] = {}
            for space, degree in variants:
                path = graph_path(folder, name, space, degree)
                dim = vectors.shape[1] + (space == "l2")
                variant = f"{space} M={degree}"
                self.graphs[name][variant] = kind(path, dim, space)
                seconds = float(path.with_suffix(".seconds").read_text())
                self.seconds[f"{name}, {variant}"] = seconds

    def row(
        self, label: str, mask: npt.NDArray[np.bool_] | None, queries: Float32
    ) -> dict[str, Any]:
        """Milliseconds and recall of everybody for one filter."""
        print(f"rows allowed: {label}", file=sys.stderr, flush=True)
        exact = self._exact(mask, queries)
        allowed = None if mask is None else Bitmap(mask)
        given = None if mask is None else Mask(mask)
        own = partial(self._ask_ours, allowed)
        searches: dict[str, Search] = {"penchant": own}
        cells: dict[str, Any] = {"penchant": {"recall": recall(own, queries, exact)}}
        for name in PEERS:
            if name == "usearch" and mask is not None:
                continue  # no filter in its Python interface
            best = self._sweep(name, given, queries, exact)
            searches[name] = best.search
            cells[name] = {"recall": best.recall, "variant": best.variant, "ef": best.ef}
        spent: dict[str, list[float]] = {name: [] for name in searches}
        for _ in range(self.rounds):
            for name, search in searches.items():
                spent[name].append(milliseconds(search, queries))
        for name, times in spent.items():
            cells[name]["ms"] = median(times)
        print(f"  {cells}", file=sys.stderr, flush=True)
        return {"label": label, "cells": cells}

    def recall_of_ours(self, queries: Float32) -> float:
        """Ours alone, unfiltered: with item vectors, what FindSimilar gets."""
        return recall(partial(self._ask_ours, None), queries, self._exact(None, queries))

    def _ask_ours(self, allowed: Bitmap | None, query: Float32) -> Int64:
        return self.ours.search(query, K, allowed=allowed)[0][0]

    def _exact(self, mask: npt.NDArray[np.bool_] | None, queries: Float32) -> Sequence[Int64]:
        rows = np.arange(len(self.vectors)) if mask is None else np.flatnonzero(mask)
        among = self.vectors if mask is None else self.vectors[rows]
        k = min(K, len(rows))
        found = faiss.knn(queries, among, k, metric=faiss.METRIC_INNER_PRODUCT)[1]
        return list(rows[found])

    def _sweep(
        self, name: str, mask: Mask | None, queries: Float32, exact: Sequence[Int64]
    ) -> Found:
        """The fastest graph and ef that reach TARGET; else what recalls most."""
        reached: list[tuple[float, Found]] = []
        best: Found | None = None
        for variant, graph in self.graphs[name].items():
            for ef in EFS:
                search = partial(_ask, graph, variant.startswith("l2"), ef, mask)
                some = slice(0, max(len(queries) // 4, 20))
                took = milliseconds(search, queries[some])
                found = Found(variant, ef, recall(search, queries, exact), search)
                if best is None or found.recall > best.recall:
                    best = found
                if found.recall >= TARGET:
                    reached.append((took, found))
                if found.recall >= TARGET or took > TOO_SLOW:
                    break
        assert best is not None
        return min(reached, key=lambda pair: pair[0])[1] if reached else best


def _ask(graph: Graph, longer: bool, ef: int, mask: Mask | None, query: Float32) -> Int64:
    if longer:
        query = np.concatenate([query, np.zeros((1, 1), np.float32)], axis=1)
    return graph.search(query, K, ef, mask)


def recall(search: Search, queries: Float32, exact: Sequence[Int64]) -> float:
    """Mean share of the true rows that are found."""
    shares = [
        np.isin(want, search(query)).mean()
        for query, want in zip(queries[:, np.newaxis], exact, strict=True)
    ]
    return float(np.mean(shares))


def milliseconds(search: Search, queries: Float32) -> float:
    """Median over the queries, one at a time."""
    spent = []
    for query in queries[:, np.newaxis]:
        started = time.perf_counter()
        search(query)
        spent.append(time.perf_counter() - started)
    return median(spent) * 1000


def report(rows: Sequence[dict[str, Any]], bench: Bench, similar: float, num_queries: int) -> None:
    """Write results/ann.md and .json; a smaller catalogue gets a name of its own."""
    names, num_items = ("penchant", *PEERS), len(bench.vectors)
    table = [["rows allowed", *(f"{name}, ms (recall@{K})" for name in names)]]
    figures: dict[str, Any] = {
        f"penchant_{name}": bench.about[name]
        for name in ("build_seconds", "tuning_seconds", "peak_memory_bytes", "probes", "fetch")
    }
    figures[f"penchant@similar items recall@{K}"] = round(similar, 5)
    figures |= {f"{name} build_seconds": spent for name, spent in bench.seconds.items()}
    for row in rows:
        cells = [row["label"]]
        for name in names:
            cell = row["cells"].get(name)
            if cell is None:
                cells.append("no filter in Python")
                continue
            mark = "" if cell["recall"] >= TARGET else " ⚠"
            cells.append(f"{cell['ms']:.3f} ({cell['recall']:.4f}){mark}")
            key = f"{name}@{row['label']}"
            figures[f"{key} ms"] = round(cell["ms"], 4)
            figures[f"{key} queries_per_second"] = round(1000 / cell["ms"], 1)
            figures[f"{key} recall@{K}"] = round(cell["recall"], 5)
            if "ef" in cell:
                figures[f"{key} setting"] = f"{cell['variant']}, ef {cell['ef']}"
        table.append(cells)
    about, first = bench.about, rows[0]["cells"]
    peak = about["peak_memory_bytes"]
    settings = "; ".join(
        f"{name} {first[name]['variant']}, ef {first[name]['ef']}"
        for name in PEERS
        if name in first
    )
    tried = ", ".join(next(iter(bench.graphs.values())))
    memory = "" if peak is None else f" and {peak / 2**20:,.0f} MiB of memory at its most"
    write_result(
        "ann" if num_items == 1_000_000 else f"ann_{num_items}",
        title=f"Approximate search: {K} of {num_items:,} items, one core, one query at a time",
        figures=figures,
        table=table,
        notes=(
            f"{HOW} Medians over {num_queries} queries (filtered: a quarter of them) that ours was "
            f"not tuned with, and over {bench.rounds} rounds in turns. ⚠: 0.99 was not reached "
            f"with ef up to {EFS[-1]} or {TOO_SLOW:.0f} ms a query; what recalls most is shown. "
            f"Ours: {about['probes']} lists and {about['fetch']} candidates a query, built in "
            f"{about['build_seconds']:.0f} s and tuned in {about['tuning_seconds']:.0f} s, with "
            f"recall@100 {about['recall@100']:.4f} measured then{memory}; asked for items similar "
            f"to items, its recall is {similar:.4f}. Peers, unfiltered: "
            f"{settings} (the best of {tried}, ef_construction 200; l2: with the additional number "
            "that makes vectors equally long; ip: inner products as they are). "
            "hnswlib's filter is a Python function that it calls for each candidate, FAISS's is a "
            "bitmap, as ours; usearch has none in Python. Seconds of each build are in the JSON."
        ),
        command=f"python benchmarks/ann.py --work DIR --items {num_items}",
    )


if __name__ == "__main__":
    main()
