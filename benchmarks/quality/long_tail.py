"""Head against tail: logQ strength, temperature and the mix of negatives, swept.

    python benchmarks/quality/long_tail.py MICROLENS-FOLDER --work DIR

MICROLENS-FOLDER is as `penchant import microlens` reads it. One knob at a time is turned around the
recipe `fresh`, each run with the same epochs, all judged on validation; the plot shows head recall
against tail recall, larger where the lists cover more of the catalogue. What ships must lie on the
Pareto front of the three. Started again with the same DIR, it goes on where it stopped.
"""

import argparse
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from trained import ROOT, imported, trained, write_result

from training.evaluate import evaluate
from training.recipes import fresh

PLOT = ROOT / "docs" / "images" / "long-tail.svg"
KNOBS: dict[str, list[dict[str, float]]] = {
    "logQ strength": [{"logq_correction": v} for v in (0.0, 0.5, 1.0)],
    "temperature": [{"temperature": v} for v in (0.05, 0.07, 0.1)],
    "negatives": [
        {"num_uniform": uniform, "num_in_batch": batch}
        for uniform, batch in ((3072, 0), (2048, 1024), (0, 3072))
    ],
}
GOOD = ("head", "tail", "coverage@50")
"""What the Pareto front is made of."""


def front(points: dict[str, dict[str, float]]) -> set[str]:
    """The points that no other is as good as in all of GOOD, and better in one; their names."""
    return {
        name
        for name, mine in points.items()
        if not any(
            all(other[g] >= mine[g] for g in GOOD) and any(other[g] > mine[g] for g in GOOD)
            for other in points.values()
        )
    }


def named(settings: dict[str, float]) -> str:
    """The settings in words, in the order of the recipe's fields."""
    recipe = fresh()
    full = {
        name: settings.get(name, getattr(recipe, name))
        for name in ("logq_correction", "temperature", "num_uniform", "num_in_batch")
    }
    return (
        f"logQ {full['logq_correction']:g}, temperature {full['temperature']:g}, "
        f"{full['num_uniform']} uniform + {full['num_in_batch']} in-batch"
    )


def plot(points: dict[str, dict[str, float]], knobs: dict[str, list[str]], ships: str) -> None:
    """Head recall against tail recall."""
    figure = Figure(figsize=(7.2, 4.4), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.add_subplot()
    for knob, names in knobs.items():
        line = sorted(
            (points[n]["head"], points[n]["tail"], points[n]["coverage@50"]) for n in names
        )
        head, tail, covered = zip(*line, strict=True)
        axes.plot(head, tail, linewidth=1, alpha=0.6)
        axes.scatter(head, tail, [220 * c**2 for c in covered], label=knob, alpha=0.8)
    axes.annotate(
        "ships",
        (points[ships]["head"], points[ships]["tail"]),
        xytext=(8, 8),
        textcoords="offset points",
    )
    axes.set_xlabel("recall@50, targets of the most popular tenth of items")
    axes.set_ylabel("recall@50, targets of the less popular half")
    axes.legend(title="turned (larger: more of the catalogue)")
    PLOT.parent.mkdir(exist_ok=True)
    figure.savefig(PLOT, format="svg", metadata={"Date": None})


def main() -> None:
    """Train every setting, judge on validation, draw, write the result."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("--work", type=Path, required=True, help="where dataset and runs are kept")
    parser.add_argument("--epochs", type=int, default=6, help="of each run")
    args = parser.parse_args()
    dataset = imported("microlens", args.source, args.work / "microlens")
    points: dict[str, dict[str, float]] = {}
    knobs: dict[str, list[str]] = {}
    for knob, values in KNOBS.items():
        for settings in values:
            name = named(settings)
            knobs.setdefault(knob, []).append(name)
            if name in points:  # the recipe itself is in every sweep
                continue
            folder = "-".join(f"{value:g}" for value in settings.values())
            label = next(iter(settings))
            made = trained(
                dataset,
                args.work / f"{label}-{folder}",
                "fresh",
                {**settings, "epochs": args.epochs},
            )
            asked = made.questions("validation")
            found = evaluate(
                asked,
                [made.ranker(asked, name)],
                ks=(10, 50),
                popularity=made.run.split.training.popularity(),
                seen=made.run.config.seen,
            )
            points[name] = {
                "hr@10": found.metrics[name]["hr@10"],
                "ndcg@10": found.metrics[name]["ndcg@10"],
                "recall@50": found.metrics[name]["recall@50"],
                **{b: found.buckets[name][b]["recall@50"] for b in ("head", "torso", "tail")},
                "coverage@50": found.metrics[name]["coverage@50"],
            }
    best, ships = front(points), named({})
    plot(points, knobs, ships)
    metrics = list(points[ships])
    rows = [["turned", "", *metrics, "on the front"]]
    for knob, names in knobs.items():
        rows += [
            [
                knob,
                f"**{name}**" if name == ships else name,
                *(f"{points[name][m]:.4f}" for m in metrics),
                "yes" if name in best else "",
            ]
            for name in names
        ]
    figures: dict[str, Any] = {
        f"{n}/{m}": v for n, point in points.items() for m, v in point.items()
    }
    figures["ships is on the front"] = ships in best
    write_result(
        "long_tail",
        title="Head against tail on MicroLens-50k",
        figures=figures,
        table=rows,
        notes=(
            f"Validation, full ranking, one seed, {args.epochs} epochs a run. "
            "head, torso, tail: recall@50 of targets among the most popular tenth of items, "
            "the next 40 %, the rest. Bold: what the recipe `fresh` ships, which is "
            f"{'on' if ships in best else 'NOT on'} the Pareto front of head, tail and coverage. "
            "Drawn in docs/images/long-tail.svg."
        ),
        command=(
            "python benchmarks/quality/long_tail.py MICROLENS-FOLDER --work DIR "
            f"--epochs {args.epochs}"
        ),
    )


if __name__ == "__main__":
    main()
