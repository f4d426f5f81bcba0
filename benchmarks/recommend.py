"""What a `Recommend` costs: 500 of 500 thousand items ranked, 50 shown, one worker on one core.

    python benchmarks/recommend.py --work DIR [--rounds 3]

The first start makes a world of 500 thousand items, trains towers and value model on it for minutes
and exports a bundle (kept in DIR). Then, in one run and in turns: `Recommend` and `Retrieve` of a
stored user with 50 events, the server on core 0 and h2load on core 1, at concurrency 1 and 32; an
empty gRPC server that returns the same bytes; and the raw cost of user tower, index and value model
in a loop on core 0. No answer is cached. Beside it a slate of 100 out of 500 by maximal marginal
relevance, and two workers on both cores with the load beside them.
"""

import argparse
import subprocess
import sys
import time
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
from serving.rank.slate import arrange

ITEMS, HISTORY, CANDIDATES, SHOWN, K = 500_000, 50, 500, 50, 100
TRAIN = ("--recipe", "demo", "--split", "time", "--max-minutes", 2)
"""What a value model learns from must lie behind the towers' training."""
MOST = {"Recommend": 1.5, "Retrieve": 1.4}
"""The ratios that are asked for."""


def prepare(work: Path) -> None:
    """Simulate, train, export and load users; what is there is not made again."""
    if not (work / "world" / "dataset.toml").exists():
        penchant("simulate", work / "world", "--users", 3000, "--items", ITEMS, "--days", 60)
    run = work / "run"
    if not (work / "bundle").exists():
        if not (run / "run.json").exists():
            penchant("train", work / "world", "--out", run, *TRAIN)
        penchant("train-value", run)
        penchant("export", run, "--bundle", work / "bundle", "--snapshot", work / "snapshot")
    if not (work / "state" / "store.db").exists():
        penchant("load-users", work / "snapshot", "--state", work / "state")


def raw_costs(work: Path, rounds: int) -> dict[str, float]:
    """Milliseconds of each network and search alone, batch of one, one thread."""
    generation = Generation(open_bundle(work / "bundle"))
    history = long_history(work, HISTORY)
    rows = generation.rows_of(history["item_ids"])
    events = generation.event_codes_of(history["events"])
    times = np.array([int(t.timestamp() * 1e6) for t in history["timestamps"]])
    now, value = times[-1:], generation.value
    assert value is not None
    spent: dict[str, list[float]] = {"tower": [], "search": [], "search 500": [], "value": []}
    slates: list[float] = []
    for _ in range(rounds):
        begun = time.perf_counter()
        interests = generation.tower.interests(
            [rows], [events], [times], [""], now=now, objectives=np.zeros(1, np.int64)
        )
        spent["tower"].append(time.perf_counter() - begun)
        flat = interests.reshape(-1, generation.bundle.dim)
        begun = time.perf_counter()
        generation.index.search(flat, K)
        spent["search"].append(time.perf_counter() - begun)
        begun = time.perf_counter()
        found, scores = generation.index.search(flat, CANDIDATES)
        spent["search 500"].append(time.perf_counter() - begun)
        begun = time.perf_counter()
        chances = value.chances(
            [rows],
            [events],
            [times],
            [""],
            interests,
            now=now,
            candidates=found[:1],
            scores=scores[:1],
        )
        spent["value"].append(time.perf_counter() - begun)
        values, vectors = chances[0].sum(axis=1), generation.vectors[found[0]]
        begun = time.perf_counter()
        arrange(values, 100, vectors=vectors, diversity=0.3)
        slates.append(time.perf_counter() - begun)
    return {name: median(values) * 1000 for name, values in {**spent, "slate": slates}.items()}


def measure_raw(work: Path) -> dict[str, float]:
    """raw_costs in a process of its own, pinned to the server's core."""
    done = subprocess.run(
        [
            *("taskset", "-c", str(SERVER_CORE)),
            *(sys.executable, __file__, "--raw", "--work", str(work)),
        ],
        check=True,
        capture_output=True,
        text=True,
        env={**ENVIRONMENT, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
    )
    lines = [line.split("=") for line in done.stdout.splitlines() if "=" in line]
    return {name: float(value) for name, value in lines}


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
    parser.add_argument("--requests", type=int, default=1500, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--prepare-only", action="store_true")
    parser.add_argument("--raw", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.raw:
        for name, value in raw_costs(args.work, 300).items():
            print(f"{name}={value}")
        return
    prepare(args.work)
    if args.prepare_only:
        return
    user = long_history(args.work, HISTORY)["user_id"]
    requests = {
        "Recommend": pb.RecommendRequest(
            queries=[{"user_id": user}], k=SHOWN, num_candidates=CANDIDATES
        ),
        "Retrieve": pb.RetrieveRequest(queries=[{"user_id": user}], k=K),
    }
    runs: dict[str, list[dict[str, float]]] = {}
    raw: list[dict[str, float]] = []
    for _ in range(args.rounds):
        for name, request in requests.items():
            payload, answer = args.work / f"{name}.bin", args.work / f"{name}.answer"
            payload.write_bytes(framed(request.SerializeToString()))
            with pinned(serve_command(args.work)) as address:
                answer.write_bytes(one_answer(address, name, request))
                measure(runs, name, "penchant", address, payload, args.requests)
            empty = [sys.executable, str(Path(__file__).parent / "empty_server.py"), str(answer)]
            empty += ["--recommend"] if name == "Recommend" else []
            with pinned(empty) as address:
                measure(runs, name, "empty", address, payload, args.requests)
        raw.append(measure_raw(args.work))
    payload = args.work / "Recommend.bin"
    for workers in (1, 2):
        serve = serve_command(args.work, "--workers", workers)
        with pinned(serve, (SERVER_CORE, LOAD_CORE)) as address:
            for _ in range(args.rounds):
                found = load(address, "Recommend", payload, concurrency=32, requests=args.requests)
                runs.setdefault(f"workers {workers}", []).append(found)
    report(runs, raw)


def measure(
    runs: dict[str, list[dict[str, float]]],
    name: str,
    who: str,
    address: str,
    payload: Path,
    requests: int,
) -> None:
    """One server at both concurrencies."""
    for concurrency in (1, 32):
        load(address, name, payload, concurrency=concurrency, requests=200)  # warm
        found = load(address, name, payload, concurrency=concurrency, requests=requests)
        runs.setdefault(f"{name} {who} {concurrency}", []).append(found)


def report(runs: dict[str, list[dict[str, float]]], raw: list[dict[str, float]]) -> None:
    """Medians over rounds, and the ratio of each round."""
    middle = {key: median(one[key] for one in raw) for key in raw[0]}
    figures: dict[str, Any] = {
        f"raw_{key.replace(' ', '_')}_ms": round(value, 3) for key, value in middle.items()
    }
    table = [["", "requests a second", "p50 ms", "p99 ms", "cost, ms", "ratio", "asked for"]]
    for name, most in MOST.items():
        parts = ("tower", "search 500", "value") if name == "Recommend" else ("tower", "search")
        for concurrency in (1, 32):
            costs: dict[str, list[float]] = {}
            for who in ("penchant", "empty"):
                rounds = runs[f"{name} {who} {concurrency}"]
                # Alone, a request costs its time; together, its share of the core.
                costs[who] = [
                    r["mean_ms"] if concurrency == 1 else 1000 / r["requests_per_second"]
                    for r in rounds
                ]
                found = {key: median(r[key] for r in rounds) for key in rounds[0]}
                prefix = f"{name.lower()}{'' if who == 'penchant' else '_empty'}"
                for key, value in found.items():
                    figures[f"{prefix}/{key}@{concurrency}"] = round(value, 3)
                row = [
                    f"`{name}`, {who} server, concurrency {concurrency}",
                    f"{found['requests_per_second']:,.0f}",
                    *(f"{found[key]:.2f}" for key in ("p50_ms", "p99_ms")),
                    f"{median(costs[who]):.3f}",
                ]
                table.append([*row, "", ""])
            ratios = [
                own / (nothing + sum(one[part] for part in parts))
                for own, nothing, one in zip(costs["penchant"], costs["empty"], raw, strict=True)
            ]
            figures[f"{name.lower()}/ratio@{concurrency}"] = round(median(ratios), 3)
            figures[f"{name.lower()}/ratios@{concurrency}"] = [round(r, 3) for r in ratios]
            table[-2][-2:] = [f"**{median(ratios):.2f}**", f"at most {most}"]
    for key, label in {
        "tower": "user tower, alone",
        "search": f"search, {K}, alone",
        "search 500": f"search, {CANDIDATES}, alone",
        "value": f"value model, {CANDIDATES} candidates, alone",
    }.items():
        table.append([label, "", "", "", f"{middle[key]:.3f}", "", ""])
    table.append(
        [
            "slate of 100 of 500, MMR, alone",
            "",
            "",
            "",
            f"{middle['slate']:.3f}",
            "",
            "at most 1 ms",
        ]
    )
    rates = [
        median(run["requests_per_second"] for run in runs[f"workers {workers}"])
        for workers in (1, 2)
    ]
    figures |= {"workers_1_rps": round(rates[0], 1), "workers_2_rps": round(rates[1], 1)}
    figures["scaling"] = round(rates[1] / rates[0], 2)
    for workers, rate in zip((1, 2), rates, strict=True):
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
            f"alone in a loop, batch of one, one thread, same core), median of {len(raw)} rounds. "
            "Cost: at concurrency 1 the mean latency, at 32 the inverse of calls a second. Server "
            "on one core, h2load on the other, but for the last rows, where all share two cores: "
            f"two workers answered {rates[1] / rates[0]:.2f} times the calls of one."
        ),
        command="python benchmarks/recommend.py --work DIR",
    )


if __name__ == "__main__":
    main()
