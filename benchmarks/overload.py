"""What a server that is asked for more than it can compute answers, by the callers' deadline.

    python benchmarks/overload.py --work DIR [--requests 3000]

DIR is that of benchmarks/recommend.py (500 thousand items, a value model). One worker on core 0;
h2load on core 1 keeps 64 `Recommend` calls under way (500 candidates ranked, 50 shown, diversity
0.3), which the core cannot answer within the deadline: what each answer left out is counted by the
server's own metrics. The reference is the same load without a deadline: nothing is left out, and
everybody waits.
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

CONCURRENCY = 64
DEADLINES_MS = (None, 400, 200, 100, 50, 25)
METRICS = "127.0.0.1:50991"
LATE = ("DEADLINE_EXCEEDED", "CANCELLED")
"""What a call that is out of time gets; the second where its stream is closed already."""
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


def measure(address: str, payload: Path, requests: int, deadline: int | None) -> dict[str, float]:
    """One closed loop of calls with a deadline."""
    before = counted()
    headers = [] if deadline is None else [f"grpc-timeout: {deadline}m"]
    found = load(
        address,
        "Recommend",
        payload,
        concurrency=CONCURRENCY,
        requests=requests,
        headers=headers,
    )
    after = counted()
    delta = {name: after[name] - before.get(name, 0.0) for name in after}
    if sum(delta.get(code, 0.0) for code in ("OK", *LATE)) != requests:
        raise SystemExit(f"not every call was answered, or refused in time: {delta}")
    ok = delta.get("OK", 0.0)
    shares = {f"without_{what}": delta.get(what, 0.0) / max(ok, 1.0) for what in LEFT_OUT}
    return {
        "in_time_per_second": found["requests_per_second"] * ok / requests,
        "in_time": ok / requests,
        **shares,
        "p50_ms": found["p50_ms"],
        "p99_ms": found["p99_ms"],
    }


def main() -> None:
    """Prepare, measure each deadline on one server, write the result."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--work", type=Path, required=True, help="that of benchmarks/recommend.py")
    parser.add_argument("--requests", type=int, default=3000, help="of each deadline")
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
    figures: dict[str, Any] = {}
    table = [
        [
            *("deadline", "in time", "in time, a second"),
            *("without diversity", "without value model", "fewer probes", "p50 ms", "p99 ms"),
        ]
    ]
    with pinned(serve_command(args.work, "--metrics-port", METRICS.split(":")[1])) as address:
        load(address, "Recommend", payload, concurrency=CONCURRENCY, requests=500)  # warm
        for deadline in DEADLINES_MS:
            found = measure(address, payload, args.requests, deadline)
            name = "none" if deadline is None else f"{deadline} ms"
            figures |= {f"{key}@{name.replace(' ', '_')}": round(v, 4) for key, v in found.items()}
            table.append(
                [
                    name,
                    f"{found['in_time']:.1%}",
                    f"{found['in_time_per_second']:,.0f}",
                    *(f"{found[f'without_{what}']:.1%}" for what in LEFT_OUT),
                    *(f"{found[key]:.1f}" for key in ("p50_ms", "p99_ms")),
                ]
            )
            print(" | ".join(table[-1]))
    write_result(
        "overload",
        title=f"{CONCURRENCY} `Recommend` calls at once on one core, by deadline",
        figures=figures,
        table=table,
        notes=(
            "Shares of what was left out are of the answers in time. Calls that were not in time "
            "ended with DEADLINE_EXCEEDED for their callers; no call got another error. Latencies "
            "are those of all calls, refused ones included."
        ),
        command="python benchmarks/overload.py --work DIR",
    )


if __name__ == "__main__":
    main()
