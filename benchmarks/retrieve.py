"""What a `Retrieve` costs: 100 out of 50 thousand items, one worker on one core.

    python benchmarks/retrieve.py --work DIR

The first start makes a world of 50 thousand items, trains towers on it for a minute and exports a
bundle (kept in DIR). Then, in one run: the server on core 0 and h2load (Debian package
nghttp2-client) on core 1, at concurrency 1 and 32; an empty gRPC server that returns the same
bytes, measured the same way; and the raw cost of encoder and search in a loop on one core, batch
of one. Every request names a stored user with 50 events; nothing is cached between requests.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnxruntime
from commands import ENVIRONMENT, penchant
from results import write_result
from serving_load import (
    SERVER_CORE,
    framed,
    load,
    long_history,
    pinned,
    serve_command,
)

from interest.v1 import retrieval_service_pb2 as pb
from model.ann import open_index
from model.bundle import Bundle, open_bundle
from model.encode import pad_histories

K, ITEMS, HISTORY = 100, 50_000, 50
RPC = "Retrieve"
SERVERS = (
    ("penchant", "Penchant `Retrieve`", ""),
    ("empty", "empty gRPC server", "empty_server_"),
    ("empty aio", "empty grpc.aio server", "empty_aio_server_"),
)
"""Name in the runs, name in the table, and what its figures begin with."""


def prepare(work: Path) -> None:
    """Simulate, train, export and load users, once."""
    if (work / "state" / "store.db").exists():
        return
    penchant("simulate", work / "world", "--users", 3000, "--items", ITEMS, "--days", 60)
    penchant("train", work / "world", "--out", work / "run", "--recipe", "demo", "--max-minutes", 1)
    penchant("export", work / "run", "--bundle", work / "bundle", "--snapshot", work / "snapshot")
    penchant("load-users", work / "snapshot", "--state", work / "state")


def raw_costs(
    bundle: Bundle, history: dict[str, Any], *, rounds: int, pause: float
) -> tuple[float, float]:
    """Milliseconds of one run of the encoder and of one exact search, batch of one, one thread.

    pause: seconds of sleep before each, as a server has between requests.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        str(bundle.user_tower_path), options, providers=["CPUExecutionProvider"]
    )
    rows = bundle.items.rows_of(history["item_ids"])
    events = np.array([bundle.event_codes[name] for name in history["events"]])
    times = np.array([int(t.timestamp() * 1e6) for t in history["timestamps"]])
    batch = pad_histories(
        [rows], [events], [times], now=int(times[-1]), max_history=bundle.max_history
    )
    given = {
        "history": bundle.vectors[batch.rows],
        "events": batch.events,
        "gaps": batch.gaps,
        "mask": batch.mask,
        "idle": batch.idle,
    }
    for node in session.get_inputs():
        if node.name.startswith("profile."):
            shape = [1, *(1 for _ in node.shape[1:])] if len(node.shape) == 1 else [1, 2]
            dtype = np.float32 if node.type == "tensor(float)" else np.int32
            given[node.name] = np.zeros(shape[: len(node.shape)], dtype)
    wanted = {node.name for node in session.get_inputs()}
    given = {name: value for name, value in given.items() if name in wanted}
    index = open_index(bundle.index_path)
    encode, search = [], []
    for _ in range(rounds):
        if pause:
            time.sleep(pause)
        started = time.perf_counter()
        (interests,) = session.run(None, given)
        middle = time.perf_counter()
        index.search(interests.reshape(-1, bundle.dim), K)
        encode.append(middle - started)
        search.append(time.perf_counter() - middle)
    return median(encode) * 1000, median(search) * 1000


def measure_raw(work: Path, *, pause: float = 0.0) -> tuple[float, float]:
    """raw_costs in a process of its own, pinned to the server's core, one thread."""
    command = [sys.executable, __file__, "--raw", str(pause), "--work", str(work)]
    done = subprocess.run(
        ["taskset", "-c", str(SERVER_CORE), *command],
        check=True,
        capture_output=True,
        text=True,
        env={**ENVIRONMENT, "OMP_NUM_THREADS": "1"},
    )
    encode, search = done.stdout.split()[-2:]
    return float(encode), float(search)


def main() -> None:
    """Prepare, measure in rounds, write the result."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--work", type=Path, required=True, help="where the bundle is kept")
    parser.add_argument("--requests", type=int, default=4000, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--raw", type=float, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.raw is not None:
        bundle = open_bundle(args.work / "bundle")
        print(*raw_costs(bundle, long_history(args.work, HISTORY), rounds=1000, pause=args.raw))
        return
    prepare(args.work)
    user = long_history(args.work, HISTORY)["user_id"]
    request = pb.RetrieveRequest(queries=[{"user_id": user}], k=K)
    body = request.SerializeToString()
    payload, answer = args.work / "request.bin", args.work / "answer.bin"
    payload.write_bytes(framed(body))
    serve = serve_command(args.work)
    empty = [sys.executable, str(Path(__file__).parent / "empty_server.py"), str(answer)]
    runs: dict[str, list[dict[str, float]]] = {}
    raw: list[tuple[float, float]] = []
    paced: list[tuple[float, float]] = []
    for number in range(args.rounds):
        with pinned(serve) as address:
            if number == 0:
                answer.write_bytes(one_answer(address, request))
            for concurrency in (1, 32):
                load(address, RPC, payload, concurrency=concurrency, requests=300)  # warm
                runs.setdefault(f"penchant, {concurrency}", []).append(
                    load(
                        address, RPC, payload, concurrency=concurrency, requests=args.requests
                    ).figures()
                )
        for name, command in (("empty", empty), ("empty aio", [*empty, "--aio"])):
            with pinned(command) as address:
                for concurrency in (1, 32):
                    load(address, RPC, payload, concurrency=concurrency, requests=300)
                    runs.setdefault(f"{name}, {concurrency}", []).append(
                        load(
                            address, RPC, payload, concurrency=concurrency, requests=args.requests
                        ).figures()
                    )
        raw.append(measure_raw(args.work))
        paced.append(measure_raw(args.work, pause=runs["empty, 1"][-1]["mean_ms"] / 1000))
    report(runs, raw, paced, len(answer.read_bytes()))


def one_answer(address: str, request: Any) -> bytes:
    """The server's answer to the request that is measured; checked to be a full one."""
    import grpc

    from interest.v1 import retrieval_service_pb2_grpc as rpc

    with grpc.insecure_channel(address) as channel:
        found = rpc.RetrievalServiceStub(channel).Retrieve(request, timeout=5)
    if len(found.candidates.item_ids) != K or found.cold[0] or found.history_lengths[0] != HISTORY:
        raise SystemExit(f"not the answer that was to be measured: {found}")
    data: bytes = found.SerializeToString()
    return data


def report(
    runs: dict[str, list[dict[str, float]]],
    raw: list[tuple[float, float]],
    paced: list[tuple[float, float]],
    answer_bytes: int,
) -> None:
    """Median over rounds of everything, and the ratio of each round."""
    encode, search = (median(values) for values in zip(*raw, strict=True))
    figures: dict[str, Any] = {"raw_encoder_ms": encode, "raw_search_ms": search}
    table = [["", "requests a second", "p50 ms", "p99 ms", "cost a request, ms"]]
    for concurrency in (1, 32):
        cost: dict[str, list[float]] = {}
        for name, label, prefix in SERVERS:
            rounds = runs[f"{name}, {concurrency}"]
            # Alone, a request costs its time; together, its share of the core.
            cost[name] = [
                r["mean_ms"] if concurrency == 1 else 1000 / r["requests_per_second"]
                for r in rounds
            ]
            middle = {key: median(r[key] for r in rounds) for key in rounds[0]}
            table.append(
                [
                    f"{label}, concurrency {concurrency}",
                    f"{middle['requests_per_second']:,.0f}",
                    f"{middle['p50_ms']:.2f}",
                    f"{middle['p99_ms']:.2f}",
                    f"{median(cost[name]):.3f}",
                ]
            )
            for key, value in middle.items():
                figures[f"{prefix}{key}@{concurrency}"] = round(value, 3)
        ratios = [
            own / (nothing + sum(work))
            for own, nothing, work in zip(cost["penchant"], cost["empty"], raw, strict=True)
        ]
        figures[f"ratio@{concurrency}"] = round(median(ratios), 3)
        figures[f"ratios@{concurrency}"] = [round(ratio, 3) for ratio in ratios]
    table.append(["raw encoder + exact search, a loop", "", "", "", f"{encode + search:.3f}"])
    slow = median(sum(work) for work in paced)
    figures["raw_paced_ms"] = round(slow, 3)
    alone = [run["mean_ms"] for run in runs["penchant, 1"]]
    nothing = [run["mean_ms"] for run in runs["empty, 1"]]
    figures["ratio_to_paced@1"] = round(median(alone) / (median(nothing) + slow), 3)
    table.append(["the same, with a pause before each call", "", "", "", f"{slow:.3f}"])
    for concurrency in (1, 32):
        ratio = f"**{figures[f'ratio@{concurrency}']:.2f}**"
        label = f"**ratio at concurrency {concurrency}** (at most 1.6)"
        table.append([label, "", "", "", ratio])
    ratio = f"{figures['ratio_to_paced@1']:.2f}"
    table.append(["ratio at concurrency 1 to the loop with pauses", "", "", "", ratio])
    write_result(
        "retrieve",
        title="Retrieve: 100 of 50 thousand items, one worker on one core",
        figures=figures,
        table=table,
        notes=(
            f"Exact search over {ITEMS:,} items, vectors and user tower trained, a {HISTORY}-event "
            "history read from the store and its interests computed in every request; no cache. "
            "Ratio: the cost of a request over (empty server + raw encoder + raw search), median "
            f"of {len(raw)} rounds. Raw: encoder {encode:.3f} ms, search {search:.3f} "
            f"ms, batch of one, one thread, same core. The answer has {answer_bytes:,} bytes. "
            "Cost: at concurrency 1 the mean latency, at 32 the inverse of requests a second. "
            "Server on one core, h2load on the other. At concurrency 1 the server's core halts "
            "between requests, and what runs after a halt is slower: the raw loop with a pause of "
            "the empty server's time before each call, on the same core, is in the table as well. "
            "The rounds differ much (`ratios@1` in the JSON): the raw loop alone took from "
            f"{min(map(sum, raw)):.2f} to {max(map(sum, raw)):.2f} ms."
        ),
        command="python benchmarks/retrieve.py --work DIR",
    )


if __name__ == "__main__":
    main()
