"""What a server that is asked for more than it can compute answers in time.

    python benchmarks/overload.py --work DIR [--seconds 10]

DIR is that of benchmarks/recommend.py (500 thousand items, a value model). One worker on core 0 is
first asked as fast as it answers: that is its capacity. Then h2load on core 1 begins half of it,
all of it, and up to four times as many `Recommend` calls a second (500 candidates ranked, 50 shown,
diversity 0.3), each with a deadline of 100 ms, whether or not the earlier ones were answered. What
each answer left out is counted by the server's own metrics.
"""

import argparse
import re
import urllib.request
from pathlib import Path
from typing import Any

from recommend import CANDIDATES, SHOWN, prepare
from results import write_result
from serving_load import framed, load, long_history, pinned, serve_command

from interest.v1 import retrieval_service_pb2 as pb

CONCURRENCY = 32
DEADLINE_MS = 100
OFFERED = (0.5, 0.8, 1.0, 1.5, 2.0, 3.0, 4.0)
"""Calls begun, as multiples of the capacity."""
METRICS = "127.0.0.1:50991"
MOST_OPEN = 1024
"""Calls under way at most, so that h2load is not the one who waits."""
LATE = ("OVERLOADED", "DEADLINE_EXCEEDED", "CANCELLED")
"""What a call gets that could not be answered in time; the last where its stream is closed."""
LEFT_OUT = ("diversity", "value_model", "probes")


def counted() -> dict[str, float]:
    """Answers so far, by code, and degraded ones, by what was left out."""
    with urllib.request.urlopen(f"http://{METRICS}/metrics", timeout=5) as answer:
        page = answer.read().decode()
    found = re.findall(
        r'^penchant_(?:calls|degraded_answers)_total\{(?=[^}]*rpc="Recommend")'
        r'[^}]*(?:code|what)="(\w+)"[^}]*\} (\S+)$',
        page,
        re.MULTILINE,
    )
    return {name: float(value) for name, value in found}


def measure(address: str, payload: Path, rate: float, seconds: float) -> dict[str, float]:
    """So many calls a second, with a deadline."""
    before, requests = counted(), round(rate * seconds)
    found = load(
        address,
        "Recommend",
        payload,
        concurrency=MOST_OPEN,
        requests=requests,
        headers=[f"grpc-timeout: {DEADLINE_MS}m"],
        rate=rate,
    ).figures()
    after = counted()
    delta = {name: after[name] - before.get(name, 0.0) for name in after}
    # Calls whose time is over before Python hears of them are refused by gRPC, and not counted.
    if others := {name for name in delta if delta[name]} - {"OK", *LATE, *LEFT_OUT}:
        raise SystemExit(f"calls ended with {others}")
    ok = delta.get("OK", 0.0)
    return {
        "offered_per_second": found["requests_per_second"],
        "in_time_per_second": found["requests_per_second"] * ok / requests,
        **{f"without_{what}": delta.get(what, 0.0) / max(ok, 1.0) for what in LEFT_OUT},
        "p50_ms": found["p50_ms"],
        "p99_ms": found["p99_ms"],
    }


def main() -> None:
    """Prepare, measure capacity and each load on one server, write the result."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--work", type=Path, required=True, help="that of benchmarks/recommend.py")
    parser.add_argument("--seconds", type=float, default=10, help="of each load")
    args = parser.parse_args()
    prepare(args.work)
    request = pb.RecommendRequest(
        queries=[{"user_id": long_history(args.work, 50)["user_id"]}],
        k=SHOWN,
        num_candidates=CANDIDATES,
        slate=pb.Slate(diversity=0.3),
    )
    payload = args.work / "overload.bin"
    payload.write_bytes(framed(request.SerializeToString()))
    table = [
        [
            *("calls begun", "a second", "answered in time, a second", "without diversity"),
            *("without value model", "fewer probes", "p50 ms", "p99 ms"),
        ]
    ]
    with pinned(serve_command(args.work, "--metrics-port", METRICS.split(":")[1])) as address:
        load(address, "Recommend", payload, concurrency=CONCURRENCY, requests=500)  # warm
        closed = load(address, "Recommend", payload, concurrency=CONCURRENCY, requests=3000)
        capacity = closed.requests_per_second
        figures: dict[str, Any] = {"capacity_per_second": round(capacity, 1)}
        for offered in OFFERED:
            found = measure(address, payload, offered * capacity, args.seconds)
            figures |= {f"{key}@{offered:g}": round(v, 4) for key, v in found.items()}
            table.append(
                [
                    f"{offered:g} × capacity",
                    f"{found['offered_per_second']:,.0f}",
                    f"**{found['in_time_per_second']:,.0f}**",
                    *(f"{found[f'without_{what}']:.1%}" for what in LEFT_OUT),
                    *(f"{found[key]:.1f}" for key in ("p50_ms", "p99_ms")),
                ]
            )
            print(" | ".join(table[-1]))
    write_result(
        "overload",
        title=f"More `Recommend` calls than a core can answer, deadline {DEADLINE_MS} ms",
        figures=figures,
        table=table,
        notes=(
            f"Capacity: {capacity:,.0f} calls a second, measured in the same run with "
            f"{CONCURRENCY} calls under way and no deadline; nothing is left out then. Shares of "
            "what was left out are of the answers in time. All other calls "
            "were refused, with OVERLOADED at once or with DEADLINE_EXCEEDED; none got another "
            "error. Latencies are those of all calls, refused ones included."
        ),
        command="python benchmarks/overload.py --work DIR",
    )


if __name__ == "__main__":
    main()
