"""Where `interest` wins and where it loses: policies in a closed loop with real servers.

    python benchmarks/closed_loop.py --work DIR [--world 100] [--policy interest]

For each world a warm-up under the world's own policy, then the same days under each policy:
popularity, chance and the oracle in this process, the others as `penchant serve` (Recommend,
RecordEvents, UpsertItems, export-events, train, activate). Worlds: three seeds; the first of them
as the null world, where nothing shown causes an order; and as one that is otherwise than the
defaults (MISSPECIFIED). What is done in DIR is kept, so that worlds can be run one by one; the
result is of all that are done.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean

from commands import penchant
from results import ROOT, write_result

from training.closed_loop_run import POLICIES, read_measured
from training.html import draw_svg
from training.loop_policies import SERVED
from training.loop_report import curves, regret
from training.world.measures import Measured

SIZE = ("--users", 300, "--items", 1200, "--days", 12, "--loop-days", 8)
TRAINING = ("--set", "epochs=4")
MISSPECIFIED = {
    "latent_adjacency": 0,
    "focus": 0,
    "satiation": 0.3,
    "taste": 3,
    "stir_half_life_days": 1,
}
"""Latent interests anywhere, attention on everything at once, people who tire soon, who are led by
style more than by craft, and whom a good watch stirs for a day."""
NAMES = ("popularity", "random", *SERVED, "oracle")
MEASURES = (
    "orders", "stirred_orders", "to_come", "card_orders", "good_watches", "return", "discovered",
    "reached", "gini", "entropy", "tail", "new", "first_within_day", "tenth_within_3_days",
)  # fmt: skip
IMAGE = ROOT / "docs" / "images" / "closed-loop.svg"


def worlds() -> dict[str, list[object]]:
    """The arguments of each world, the most telling first."""
    other = [
        word for name, value in MISSPECIFIED.items() for word in ("--world", f"{name}={value}")
    ]
    return {
        "100": ["--seed", 100],
        "null": ["--seed", 100, "--null"],
        "101": ["--seed", 101],
        "misspecified": ["--seed", 100, *other],
        "102": ["--seed", 102],
    }


def done(work: Path) -> dict[str, dict[str, Measured]]:
    """World → policy → how it did, of what is done."""
    found = {}
    for world in worlds():
        one = {name: read_measured(work / world / POLICIES / name) for name in NAMES}
        whole = {name: measured for name, measured in one.items() if measured is not None}
        if whole:
            found[world] = whole
    return found


def main() -> None:
    """Run what was asked for, write the result of all that is there."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--work", type=Path, required=True, help="where the loops are kept")
    parser.add_argument("--world", action="append", choices=list(worlds()), help="these alone")
    parser.add_argument("--policy", action="append", choices=NAMES, help="these alone")
    parser.add_argument("--retrain-every", type=int, default=4, help="days; 0: never")
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    policies = [word for name in args.policy or NAMES for word in ("--policy", name)]
    for world in args.world or worlds():
        learning = (*TRAINING, "--retrain-every", args.retrain_every)
        penchant("simulate", args.work / world, *SIZE, *learning, *policies, *worlds()[world])
    if not (found := done(args.work)):
        raise SystemExit("No policy is done in any world yet.")
    write(found, args.retrain_every)


def write(found: Mapping[str, Mapping[str, Measured]], retrain_every: int) -> None:
    """The result's files, and the picture of the first world."""
    often = f"learn anew after {retrain_every}" if retrain_every else "keep their first bundle"
    table = [["world", "measure", *NAMES]]
    figures: dict[str, float] = {}
    for world, policies in found.items():
        for measure in MEASURES:
            values = [policies[name].total[measure] if name in policies else None for name in NAMES]
            table.append([world, measure, *map(shown, values)])
            figures |= {
                f"{world}/{name}/{measure}": round(value, 4)
                for name, value in zip(NAMES, values, strict=True)
                if value is not None
            }
        for measure, gaps in regret(policies).items():
            table.append([world, f"regret, {measure}", *(shown(gaps.get(name)) for name in NAMES)])
    usual = [one for world, one in found.items() if world.isdigit() and len(one) == len(NAMES)]
    for measure in MEASURES if len(usual) > 1 else ():
        means = [known([one[name].total[measure] for one in usual]) for name in NAMES]
        row = [shown(mean(one) if one else None) for one in means]
        table.append([f"mean of {len(usual)}", measure, *row])
    write_result(
        "closed_loop",
        title="A closed loop: policies with real servers in small worlds",
        figures=figures,
        table=table,
        notes=(
            "300 people, 1,200 items, 12 days of warm-up and 8 days under each policy; servers "
            f"{often}. Worlds by seed; null: nothing shown causes an order; "
            f"misspecified: {', '.join(f'{k} = {v}' for k, v in MISSPECIFIED.items())}. "
            f"{', '.join(found)} are done; – is not done, or nothing to tell. What each measure "
            "means: docs/closed-loop.md. The oracle knows the hidden state of everyone; it is the "
            "reference that no service can reach."
        ),
        command="python benchmarks/closed_loop.py --work DIR"
        + ("" if retrain_every == 4 else f" --retrain-every {retrain_every}"),
    )
    first = next(iter(found.values()))
    IMAGE.parent.mkdir(parents=True, exist_ok=True)
    IMAGE.write_text(
        draw_svg(
            lambda axes: curves(
                axes,
                found={name: one for name, one in first.items() if name != "oracle"},
                measure="good_watches",
            ),
            height=3.0,
        ),
        encoding="utf-8",
    )


def known(values: Sequence[float | None]) -> list[float]:
    """Those that are there."""
    return [value for value in values if value is not None]


def shown(value: float | None) -> str:
    """Counts whole, shares with three digits."""
    if value is None:
        return "–"
    return f"{value:.0f}" if value >= 100 or value == round(value) else f"{value:.3f}"


if __name__ == "__main__":
    main()
