"""What an evaluation costs: seconds on MovieLens-1M, and memory for 100 thousand × 1 million.

    python benchmarks/evaluation.py ML-1M-RUN

ML-1M-RUN is a run that was trained on MovieLens-1M (benchmarks/quality/ml1m.py leaves one). The
large one is made up: random histories of a catalogue whose items follow a power law, towers with
random weights; what is measured does not depend on what they know. Each part runs in a process of
its own.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from results import write_result

USERS, ITEMS, EVENTS = 100_000, 1_000_000, 30


def main() -> None:
    """Measure both and write the result; with a second argument, one of them."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("part", nargs="?", choices=["small", "all-baselines", "large"])
    args = parser.parse_args()
    if args.part == "large":
        found = large()
    elif args.part:
        found = small(args.run, everything=args.part == "all-baselines")
    else:
        report({part: measured(args.run, part) for part in ("small", "all-baselines", "large")})
        return
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({**found, "peak_mb": peak}))


def measured(run: Path, part: str) -> dict[str, float]:
    """What a process of its own prints for one part."""
    done = subprocess.run(
        [sys.executable, __file__, str(run), part], check=True, stdout=subprocess.PIPE, text=True
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    print(part, found)
    return found


def small(run: Path, *, everything: bool) -> dict[str, float]:
    """Evaluate a run, opened already; baselines are fitted in the measured time."""
    from training.baselines import BASELINES
    from training.evaluate import evaluate_run
    from training.run import load_best, open_run

    opened = open_run(run)
    model, _ = load_best(opened)
    names = list(BASELINES) if everything else ["popularity"]
    started = time.perf_counter()
    found = evaluate_run(opened, model, baselines=names)
    return {
        "seconds": time.perf_counter() - started,
        "users": found.protocol["num_users"],
        "items": found.protocol["num_items"],
    }


def large() -> dict[str, float]:
    """Evaluate made-up towers and popularity on a made-up log."""
    import torch

    from model.schema import Event, Schema
    from model.towers import TwoTower
    from training.baselines import Popularity
    from training.config import RunConfig
    from training.dataset import Interactions
    from training.evaluate import evaluate
    from training.splits import split_events
    from training.step_loss import ItemInputs
    from training.taste_circles import taste_circles
    from training.tower_ranker import TowerRanker, item_vectors

    rng = np.random.default_rng(0)
    num = USERS * EVENTS
    data = Interactions(
        Schema(name="large", time="order", events={"watch": Event(role="engagement")}),
        np.arange(0, num + 1, EVENTS),
        (ITEMS * rng.random(num) ** 3).astype(np.int32),
        np.ones(num, np.int32),
        np.zeros(num, np.int64),
        np.ones(num, np.float32),
        np.zeros(num, np.int8),
        ITEMS,
    )
    config = RunConfig(content=False, max_history=EVENTS)
    tower = config.tower(
        num_items=ITEMS,
        num_events=1,
        item_features=(),
        profile_features=(),
        has_order=True,
        has_times=False,
    )
    torch.manual_seed(0)
    model = TwoTower(tower).eval()
    items = ItemInputs({}, torch.arange(1, ITEMS + 1), torch.device("cpu"))
    started = time.perf_counter()
    split = split_events(data, config)
    questions = split.questions("test")
    circles = taste_circles(split.training, seed=0)
    rankers = [
        TowerRanker(model, item_vectors(items, model), questions, profiles={}),
        Popularity.fit(split.training, None, seed=0),  # type: ignore[arg-type]  # reads no items
    ]
    found = evaluate(
        questions,
        rankers,
        ks=(10, 50),
        popularity=split.training.popularity(),
        seen="filter",
        circles=circles,
    )
    return {"seconds": time.perf_counter() - started, "users": len(found.users), "items": ITEMS}


def report(parts: dict[str, dict[str, float]]) -> None:
    """Write results/evaluation."""
    titles = {
        "small": "MovieLens-1M: towers and popularity",
        "all-baselines": "MovieLens-1M: towers and every baseline, fitting included",
        "large": "made up: towers and popularity",
    }
    rows = [["", "users × items", "seconds", "peak memory of the process, MB"]]
    for part, found in parts.items():
        size = f"{found['users']:,.0f} × {found['items']:,.0f}"
        rows.append([titles[part], size, f"{found['seconds']:.1f}", f"{found['peak_mb']:,.0f}"])
    write_result(
        "evaluation",
        title="What an evaluation costs",
        figures={
            f"{part}/{name}": value
            for part, found in parts.items()
            for name, value in found.items()
        },
        table=rows,
        notes=(
            "Recall, HR, NDCG and MRR at 10 and 50, buckets, coverage, discovery with its circles "
            "of taste, over every user and every item. Memory is that of the whole process, "
            "libraries, weights and vectors included. The large catalogue's id table and vectors "
            "are 256 MB each."
        ),
        command="python benchmarks/evaluation.py ML-1M-RUN",
    )


if __name__ == "__main__":
    main()
