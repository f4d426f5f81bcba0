"""What a `Recommend` costs: 500 of 500 thousand items ranked, 50 shown, one worker on one core.

    python benchmarks/recommend.py --work DIR [--rounds 25]

The first start makes a world of 500 thousand items, trains towers and value model on it for minutes
and exports a bundle (kept in DIR). Then, in one run and in turns: `Recommend` and `Retrieve` of a
stored user with 50 events, the server on core 0 and h2load on core 1, at concurrency 1 and 32; an
empty gRPC server that returns the same bytes; and the raw cost of user tower, index and value model
in a loop on core 0. No answer is cached. Beside it a slate of 100 out of 500 by maximal marginal
relevance, value model and a slate with every rule together, and two workers on both cores with the
load beside them.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import grpc
import numpy as np
from commands import ENVIRONMENT, penchant
from results import write_result
from serving_load import (
    LOAD_CORE,
    SERVER_CORE,
    Load,
    framed,
    load,
    long_history,
    pinned,
    serve_command,
)

from interest.v1 import retrieval_service_pb2 as pb
from interest.v1 import retrieval_service_pb2_grpc as rpc
from model.bundle import open_bundle
from serving.generation import Generation
from serving.rank.compose import Rules, compose
from serving.rank.floors import Floor
from serving.rank.places import Group
from serving.rank.slate import arrange

ITEMS, HISTORY, CANDIDATES, SHOWN, K = 500_000, 50, 500, 50, 100
TRAIN = ("--recipe", "demo", "--split", "time", "--max-minutes", 2)
"""What a value model learns from must lie behind the towers' training."""
MOST = {"Recommend": 1.5, "Retrieve": 1.4}
"""The ratios that are asked for."""
RAW = ("tower", "search", "search 500", "value", "slate", "ranked")
MOST_RANKED_MS = 8.0
"""What value model and slate together may take, p99: caps, floors and diversity by DPP, each with
what it costs in value, which is a slate of its own."""
BURSTS = {"Recommend": 150, "Retrieve": 300}
"""Calls of one burst, of a second or less."""
_FIRST = np.zeros(1, np.int64)


def prepare(work: Path, *, items: int = ITEMS, value: bool = True) -> None:
    """Simulate, train, export and load users; what is there is not made again. value: with a value
    model."""
    if not (work / "world" / "dataset.toml").exists():
        penchant("simulate", work / "world", "--users", 3000, "--items", items, "--days", 60)
    run = work / "run"
    if not (work / "bundle").exists():
        if not (run / "run.json").exists():
            penchant("train", work / "world", "--out", run, *TRAIN)
        if value:
            penchant("train-value", run)
        penchant("export", run, "--bundle", work / "bundle", "--snapshot", work / "snapshot")
    if not (work / "state" / "store.db").exists():
        penchant("load-users", work / "snapshot", "--state", work / "state")


class RawCosts:
    """Each network and search alone, batch of one, one thread."""

    def __init__(self, work: Path) -> None:
        self._generation = Generation(open_bundle(work / "bundle"))
        history = long_history(work, HISTORY)
        self._rows = self._generation.rows_of(history["item_ids"])
        self._events = self._generation.event_codes_of(history["events"])
        self._times = np.array([int(t.timestamp() * 1e6) for t in history["timestamps"]])

    def measure(self, runs: int) -> dict[str, list[float]]:
        """Milliseconds of each, run by run, in a `Retrieve` and a `Recommend` by turns: a search
        right after another of the same vector would find its lists in the processor's caches."""
        generation, now = self._generation, self._times[-1:]
        given = ([self._rows], [self._events], [self._times], [""])
        assert generation.value is not None
        spent: dict[str, list[float]] = {name: [] for name in RAW}

        def lap(name: str) -> None:
            nonlocal begun
            ended = time.perf_counter()
            spent[name].append(ended - begun)
            begun = ended

        for _ in range(runs):
            for wanted in (K, CANDIDATES):
                begun = time.perf_counter()
                interests = generation.tower.interests(*given, now=now, objectives=_FIRST)
                lap("tower")
                flat = interests.reshape(-1, generation.bundle.dim)
                found, scores = generation.index.search(flat, wanted)
                lap("search" if wanted == K else "search 500")
            chances = generation.value.chances(
                *given,
                interests,
                now=now,
                candidates=found[:1],
                scores=scores[:1],
                codes_of=lambda column, rows: generation.codes_of(column)[rows],
                created_of=lambda rows: generation.created[rows],
            )
            lap("value")
            values, vectors = chances[0].sum(axis=1), generation.vectors[found[0]]
            begun = time.perf_counter()
            arrange(values, 100, vectors=vectors, diversity=0.3)
            lap("slate")
            rules = self._rules(found[0], vectors)
            begun = time.perf_counter()
            compose(values, 100, rules)
            lap("ranked")
            spent["ranked"][-1] += spent["value"][-1]
        return {name: (1000 * np.array(times)).tolist() for name, times in spent.items()}

    def _rules(self, rows: np.ndarray[Any, Any], vectors: np.ndarray[Any, Any]) -> Rules:
        """All at once: two caps, three floors that overlap, diversity by DPP."""
        generation = self._generation
        creators, circles = (
            generation.codes_of(name)[rows].astype(np.int32) for name in ("creator", "circle")
        )
        small, newest = (
            generation.small("creator", 0.5),
            np.argsort(generation.created[rows])[-100:],
        )
        return Rules(
            vectors=vectors,
            diversity=0.3,
            method="dpp",
            caps=(Group(creators, 20), Group(circles, 40)),
            floors=(
                Floor(np.isin(np.arange(len(rows)), newest), 15, "exposure_floor"),
                Floor((creators >= 0) & small[creators], 10, "exposure_floor"),
            ),
            shares=(Floor(generation.kind_mask("video")[rows], 20),),
        )


def answer_raw(work: Path) -> None:
    """A line of costs for each line that asks for some, until there are none."""
    os.sched_setaffinity(0, {SERVER_CORE})
    costs = RawCosts(work)
    costs.measure(50)  # warm
    for line in sys.stdin:
        print(json.dumps(costs.measure(int(line))), flush=True)


@contextmanager
def raw_process(work: Path) -> Iterator[Callable[[int], dict[str, list[float]]]]:
    """RawCosts.measure in a process of its own on the server's core, idle but when it is asked."""
    process = subprocess.Popen(
        [sys.executable, __file__, "--raw", "--work", str(work)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**ENVIRONMENT, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )
    assert process.stdin is not None and process.stdout is not None

    def ask(runs: int) -> dict[str, list[float]]:
        print(runs, file=process.stdin, flush=True)
        costs: dict[str, list[float]] = json.loads(process.stdout.readline())
        return costs

    try:
        yield ask
    finally:
        process.stdin.close()
        process.wait(30)


def one_answer(address: str, name: str, request: Any) -> bytes:
    """The server's answer, checked to be a whole one."""
    with grpc.insecure_channel(address) as channel:
        stub = rpc.RetrievalServiceStub(channel)
        found = (stub.Recommend if name == "Recommend" else stub.Retrieve)(request, timeout=10)
    wanted = SHOWN if name == "Recommend" else K
    if len(found.candidates.item_ids) != wanted or found.info.left_out or found.cold[0]:
        raise SystemExit(f"not the answer that was to be measured: {found}")
    data: bytes = found.SerializeToString()
    return data


def main() -> None:
    """Prepare, measure in rounds, write the result."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--work", type=Path, required=True, help="where the bundle is kept")
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--prepare-only", action="store_true")
    parser.add_argument("--raw", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.raw:
        answer_raw(args.work)
        return
    prepare(args.work)
    if not args.prepare_only:
        report(*measure(args.work, args.rounds), scaling(args.work))


def measure(work: Path, rounds: int) -> tuple[dict[str, list[Load]], list[dict[str, list[float]]]]:
    """Loads of each server by `RPC SERVER CONCURRENCY`, and the raw costs, round by round.

    All are up all the time and asked in turns, a second each: this machine's speed may change from
    one second to the next, and a ratio is of what was measured together.
    """
    user = long_history(work, HISTORY)["user_id"]
    requests = {
        "Recommend": pb.RecommendRequest(
            queries=[{"user_id": user}], k=SHOWN, num_candidates=CANDIDATES
        ),
        "Retrieve": pb.RetrieveRequest(queries=[{"user_id": user}], k=K),
    }
    runs: dict[str, list[Load]] = {}
    raw: list[dict[str, list[float]]] = []
    with ExitStack() as stack:
        ours = stack.enter_context(pinned(serve_command(work)))
        servers = []
        for name, request in requests.items():
            payload, answer = work / f"{name}.bin", work / f"{name}.answer"
            payload.write_bytes(framed(request.SerializeToString()))
            answer.write_bytes(one_answer(ours, name, request))
            script = Path(__file__).with_name("empty_server.py")
            empty = [sys.executable, str(script), str(answer)]
            empty += ["--recommend"] if name == "Recommend" else []
            at = stack.enter_context(pinned(empty))
            servers += [(name, "penchant", ours, payload), (name, "empty", at, payload)]
        costs = stack.enter_context(raw_process(work))
        for name, _, address, payload in servers:
            for concurrency in (1, 32):
                load(address, name, payload, concurrency=concurrency, requests=300)  # warm
        for _ in range(rounds):
            for concurrency in (1, 32):
                for name, who, address, payload in servers:
                    calls = BURSTS[name] * (5 if who == "empty" else 1) * (1 + concurrency // 32)
                    found = load(address, name, payload, concurrency=concurrency, requests=calls)
                    runs.setdefault(f"{name} {who} {concurrency}", []).append(found)
            raw.append(costs(150))
    return runs, raw


def scaling(work: Path) -> dict[int, float]:
    """Calls a second of one and of two workers that share both cores with the load, in turns."""
    cores = (SERVER_CORE, LOAD_CORE)
    with (
        pinned(serve_command(work, "--workers", 1), cores) as one,
        pinned(serve_command(work, "--workers", 2), cores) as two,
    ):
        rates: dict[int, list[float]] = {1: [], 2: []}
        for _ in range(6):
            for workers, address in ((1, one), (2, two)):
                found = load(
                    address, "Recommend", work / "Recommend.bin", concurrency=32, requests=600
                )
                rates[workers].append(found.requests_per_second)
    return {workers: median(found[1:]) for workers, found in rates.items()}  # the first warms


def report(
    runs: dict[str, list[Load]], spent: list[dict[str, list[float]]], rates: dict[int, float]
) -> None:
    """Medians over rounds, and the ratio of each round."""
    raw = [{key: float(np.mean(times)) for key, times in one.items()} for one in spent]
    ranked = np.percentile([time for one in spent for time in one["ranked"]], (50, 99)).tolist()
    middle = {key: median(one[key] for one in raw) for key in RAW}
    figures: dict[str, Any] = {
        f"raw_{key.replace(' ', '_')}_ms": round(value, 3) for key, value in middle.items()
    }
    table = [["", "requests a second", "p50 ms", "p99 ms", "cost, ms", "ratio", "asked for"]]
    for name, most in MOST.items():
        parts = ("tower", "search 500", "value") if name == "Recommend" else ("tower", "search")
        for concurrency in (1, 32):
            costs: dict[str, list[float]] = {}
            for who in ("penchant", "empty"):
                bursts = runs[f"{name} {who} {concurrency}"]
                # Alone, a request costs its time; together, its share of the core.
                costs[who] = [
                    float(one.spent_ms.mean())
                    if concurrency == 1
                    else 1000 / one.requests_per_second
                    for one in bursts
                ]
                whole = Load(
                    median(one.requests_per_second for one in bursts),
                    np.concatenate([one.spent_ms for one in bursts]),
                    np.concatenate([one.began for one in bursts]),
                ).figures()
                prefix = f"{name.lower()}{'' if who == 'penchant' else '_empty'}"
                for key, value in whole.items():
                    figures[f"{prefix}/{key}@{concurrency}"] = round(value, 3)
                row = [
                    f"`{name}`, {who} server, concurrency {concurrency}",
                    f"{whole['requests_per_second']:,.0f}",
                    *(f"{whole[key]:.2f}" for key in ("p50_ms", "p99_ms")),
                    f"{median(costs[who]):.3f}",
                ]
                table.append([*row, "", ""])
            ratios = [
                own / (nothing + sum(one[part] for part in parts))
                for own, nothing, one in zip(costs["penchant"], costs["empty"], raw, strict=True)
            ]
            low, middle_ratio, high = np.percentile(ratios, (25, 50, 75)).tolist()
            figures[f"{name.lower()}/ratio@{concurrency}"] = round(middle_ratio, 3)
            figures[f"{name.lower()}/ratios@{concurrency}"] = [round(r, 3) for r in ratios]
            table[-2][-2:] = [
                f"**{middle_ratio:.2f}** ({low:.2f} to {high:.2f})",
                f"at most {most}",
            ]
    for key, label in {
        "tower": "user tower, alone",
        "search": f"search, {K}, alone",
        "search 500": f"search, {CANDIDATES}, alone",
        "value": f"value model, {CANDIDATES} candidates, alone",
        "slate": "slate of 100 of 500, MMR, alone",
    }.items():
        asked = "at most 1 ms" if key == "slate" else ""
        table.append([label, "", "", "", f"{middle[key]:.3f}", "", asked])
    figures |= {"ranked_p50_ms": round(ranked[0], 3), "ranked_p99_ms": round(ranked[1], 3)}
    label = f"value model and slate of 100 of {CANDIDATES} with every rule, alone"
    times = [f"{one:.2f}" for one in ranked]
    mean = f"{middle['ranked']:.3f}"
    table.append([label, "", *times, mean, "", f"p99 at most {MOST_RANKED_MS:g} ms"])
    figures |= {f"workers_{workers}_rps": round(rate, 1) for workers, rate in rates.items()}
    figures["scaling"] = round(rates[2] / rates[1], 2)
    for workers, rate in rates.items():
        label = f"`Recommend`, concurrency 32, {workers} on two cores, the load beside them"
        table.append([label, f"{rate:,.0f}", "", "", "", "", ""])
    write_result(
        "recommend",
        title="Recommend: 500 of 500 thousand items ranked, 50 shown",
        figures=figures,
        table=table,
        notes=(
            f"{ITEMS:,} items; a {HISTORY}-event history read from the store for each call, towers "
            "and value model run for each call; no cache of answers. Ratio: a call's cost over "
            "(empty server that returns the same bytes + user tower + search + value model, each "
            "alone in a loop, batch of one, one thread, same core); all take turns, a second each, "
            f"and the ratio is the median of {len(raw)} rounds (in brackets: the quarters). "
            "Cost: at concurrency 1 the mean latency, at 32 the inverse of calls a second. Server "
            "on one core, h2load on the other, but for the last rows, where all share two cores: "
            f"two workers answered {rates[2] / rates[1]:.2f} times the calls of one."
        ),
        command="python benchmarks/recommend.py --work DIR",
    )


if __name__ == "__main__":
    main()
