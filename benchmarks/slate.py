"""What a slate costs: 100 of 500 candidates by each method, on one core, beside plain numpy.

    taskset -c 0 python benchmarks/slate.py [--rounds 400]

Each is measured in turns with a naive reference that gives the same slate, written the way that the
method's definition reads. Needs no bundle and no server.
"""

import argparse
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from results import write_result

from serving.rank.dpp import RIDGE
from serving.rank.floors import Floor
from serving.rank.places import Group
from serving.rank.slate import arrange

CANDIDATES, DIM, K, DIVERSITY = 500, 64, 100, 0.3
Float32 = npt.NDArray[np.float32]
Run = Callable[[], Sequence[int]]


def scaled(values: Float32) -> Float32:
    """Values from 0 to 1."""
    found: Float32 = (values - values.min()) / np.ptp(values)
    return found


def naive_mmr(values: Float32, unit: Float32) -> list[int]:
    """Maximal marginal relevance: all cosines to all items above, again for each place."""
    worth, chosen = scaled(values) * np.float32(1 - DIVERSITY), list[int]()
    for _ in range(K):
        score = worth
        if chosen:
            score = worth - np.float32(DIVERSITY) * np.maximum((unit @ unit[chosen].T).max(1), 0)
        score = score.copy()
        score[chosen] = -np.inf
        chosen.append(int(score.argmax()))
    return chosen


def naive_dpp(values: Float32, unit: Float32) -> list[int]:
    """Greedy determinants by Chen et al.'s algorithm 1, on the whole kernel in float64."""
    worth = scaled(values).astype(np.float64) * (1 - DIVERSITY)
    kernel = (1 - RIDGE) * unit.astype(np.float64) @ unit.T + RIDGE * np.eye(len(values))
    rows = np.zeros((K, len(values)))
    left, chosen = np.ones(len(values)), list[int]()
    for place in range(K):
        score = worth + DIVERSITY * np.log(np.maximum(left, 1e-12))
        score[chosen] = -np.inf
        best = int(score.argmax())
        row = (kernel[best] - rows[:place, best] @ rows[:place]) / left[best] ** 0.5
        rows[place] = row
        left = left - row**2
        chosen.append(best)
    return chosen


def naive_rules(values: Float32, caps: Sequence[Group], floors: Sequence[Floor]) -> list[int]:
    """Caps and floors that do not overlap, with masks over all candidates at each place."""
    chosen: list[int] = []
    for place in range(K):
        allowed = np.ones(len(values), bool)
        allowed[chosen] = False
        for cap in caps:
            counts = np.bincount(cap.codes[chosen], minlength=int(cap.codes.max()) + 1)
            allowed &= counts[cap.codes] < cap.most
        needs = [
            min(
                max(floor.least - int(floor.members[chosen].sum()), 0),
                int((floor.members & allowed).sum()),
            )
            for floor in floors
        ]
        if 0 < sum(needs) >= K - place:
            wanted = [f.members for f, need in zip(floors, needs, strict=True) if need]
            allowed &= np.logical_or.reduce(wanted)
        chosen.append(int(np.where(allowed, values, -np.inf).argmax()))
    return chosen


def cases(seed: int) -> dict[str, tuple[Run, Run | None]]:
    """By name: ours, and the reference where the same is to come out."""
    rng = np.random.default_rng(seed)
    values = rng.random(CANDIDATES).astype(np.float32)
    # Clustered, as the candidates of a few interests are.
    centres = rng.normal(size=(12, DIM))
    vectors = centres[rng.integers(0, 12, CANDIDATES)] + rng.normal(size=(CANDIDATES, DIM))
    vectors = vectors.astype(np.float32)
    unit: Float32 = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    creators, circles = (rng.integers(0, n, CANDIDATES).astype(np.int32) for n in (200, 40))
    caps = [Group(creators, 2), Group(circles, 8)]
    kinds = rng.integers(0, 5, CANDIDATES)
    apart = [Floor(kinds == 0, 25), Floor(kinds == 1, 30)]
    new, small = rng.random(CANDIDATES) < 0.1, rng.random(CANDIDATES) < 0.2
    overlapping = [Floor(new, 20), Floor(small, 30)]

    def ours(**rules: Any) -> Run:
        return lambda: arrange(values, K, **rules).places.tolist()

    spread = {"vectors": vectors, "diversity": DIVERSITY}
    return {
        "MMR": (ours(**spread), lambda: naive_mmr(values, unit)),
        "DPP": (ours(**spread, method="dpp"), lambda: naive_dpp(values, unit)),
        "DPP, window of 10": (ours(**spread, method="dpp", window=10), None),
        "caps and floors": (
            ours(caps=caps, floors=apart),
            lambda: naive_rules(values, caps, apart),
        ),
        "caps and floors that overlap": (ours(caps=caps, floors=overlapping), None),
        "MMR with caps and floors": (ours(**spread, caps=caps, floors=apart), None),
        "DPP with caps and floors": (ours(**spread, method="dpp", caps=caps, floors=apart), None),
    }


ASKED = {"MMR": 1.0, "DPP": 2.5, "caps and floors": 0.5}


def main() -> None:
    """Check that ours and the reference agree, measure in turns, write the result."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=400)
    args = parser.parse_args()
    for seed in range(20):
        for name, (ours, naive) in cases(seed).items():
            # Sums in another order may swap two items that are worth the same but for rounding.
            if naive is not None and len(set(naive()) ^ set(ours())) > 2:
                raise SystemExit(f"{name}, seed {seed}: not the slate of the reference")
    spent: dict[str, list[float]] = {}
    for step in range(args.rounds + 20):
        for name, runs in cases(step % 20).items():
            for who, run in zip(("ours", "naive"), runs, strict=True):
                if run is None:
                    continue
                begun = time.process_time()
                run()
                if step >= 20:  # the first are for warming up
                    taken = 1000 * (time.process_time() - begun)
                    spent.setdefault(f"{name}/{who}", []).append(taken)
    report(spent)


def report(spent: dict[str, list[float]]) -> None:
    """Percentiles of each, ours beside the reference."""
    figures: dict[str, float] = {}
    table = [["100 of 500", "p50 ms", "p99 ms", "plain numpy, p50 ms", "asked for"]]
    for key, times in spent.items():
        name, _, who = key.partition("/")
        metric = name.lower().replace(",", "").replace(" ", "_")
        for percent in (50, 99):
            label = f"{metric}/{'' if who == 'ours' else 'naive_'}p{percent}_ms"
            figures[label] = round(float(np.percentile(times, percent)), 3)
        if who == "ours":
            naive = spent.get(f"{name}/naive")
            table.append(
                [
                    name,
                    *(f"{np.percentile(times, percent):.2f}" for percent in (50, 99)),
                    f"{np.median(naive):.2f}" if naive else "",
                    f"at most {ASKED[name]:g} ms" if name in ASKED else "",
                ]
            )
    write_result(
        "slate",
        title="Slates: 100 of 500 candidates of 64 numbers, one core",
        figures=figures,
        table=table,
        notes=(
            "Milliseconds of the core's time, so that what else runs beside it counts only as far "
            f"as it takes the caches away. Diversity {DIVERSITY}. Caps: 2 of a creator "
            "(200 of them), 8 of a circle (40). "
            "Floors: 25 and 30 of two kinds; overlapping: 20 new items (a tenth of the candidates) "
            "and 30 of small creators (a fifth). All take turns in one process, on 20 sets of "
            "candidates; before that, ours and the reference were checked to give the same slates "
            "on each set. "
            f"The machine's load then: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores."
        ),
        command="python benchmarks/slate.py",
    )


if __name__ == "__main__":
    main()
