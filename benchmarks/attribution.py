"""Does attribution find the content that stirred an order, and none where nothing did?

    python benchmarks/attribution.py

Worlds of `penchant simulate` with the seeds 100 to 109, which nothing was tuned on: as they are;
null worlds, where as many orders come and no content causes any; and worlds whose orders come after
other delays than those that the model was built on. Every model sees the dataset alone; the judge
then opens the truth beside it. The rules (last touch, time decay, position) are the reference.
"""

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl
from results import FOLDER, write_result

from training.attribution.attribute import Attribution, attribute
from training.attribution.config import MODELS, AttributionConfig
from training.attribution.log import read_log
from training.dataset import load_interactions
from training.world.config import WorldConfig
from training.world.simulate import simulate

WORLDS = {
    "as it is": {},
    "null": {"stirring": 0.0},
    "other delays": {"delay_shape": 1.0, "delay_days": 1.5, "stir_half_life_days": 1.0},
}
CONTENT = ("video", "live", "article")
METRICS = {
    "stirred": "orders credited to content",
    "true_stirred": "orders that content stirred",
    "cards": "orders credited to cards of products",
    "true_cards": "orders of cards",
    "correlation": "correlation with the true orders, over content",
    "misplaced": "credit misplaced between contents, a stirred order",
    "on_true": "credit on the content that stirred the order",
    "on_needs": "credit given where nothing stirred",
}


def judge(found: Attribution, world: Path) -> dict[str, float]:
    """The figures of METRICS, by the truth of the world; none where it has no stirred order."""
    log, num = found.log, len(found.unattributed)
    causes = pl.read_parquet(world / "truth" / "orders.parquet")
    causes = pl.DataFrame({"event_id": log.orders.ids}).join(
        causes, on="event_id", how="left", maintain_order="left"
    )
    rows = {name: row for row, name in enumerate(log.items["item_id"])}
    cause = causes["cause"].to_numpy()
    true_item = np.array([rows.get(name, -1) for name in causes["content_item_id"]])
    item, order = log.episodes.item[found.touches.episode], found.touches.order
    is_content = log.items["kind"].is_in(CONTENT).to_numpy()
    by_content = found.credit * is_content[item]
    stirred, needs = cause == "stirred", cause == "need"
    size = log.items.height
    given = np.bincount(item, by_content, minlength=size)[is_content]
    due = np.bincount(true_item[stirred], minlength=size)[is_content]
    figures = {
        "stirred": by_content.sum() / num,
        "true_stirred": stirred.mean(),
        "cards": (found.credit.sum() - by_content.sum()) / num,
        "true_cards": (cause == "card").mean(),
        "on_needs": (1 - found.unattributed)[needs].mean(),
    }
    if stirred.any():
        on_true = np.bincount(order, found.credit * (item == true_item[order]), minlength=num)
        figures |= {
            "correlation": np.corrcoef(given, due)[0, 1],
            "misplaced": np.abs(given - due).sum() / stirred.sum(),
            "on_true": on_true[stirred].mean(),
        }
    return {name: float(value) for name, value in figures.items()}


def measure(world: Path, days: tuple[float, ...]) -> Iterator[tuple[str, dict[str, float]]]:
    """The figures and the seconds of every model on one world."""
    config = AttributionConfig()
    begun = time.perf_counter()
    interactions = load_interactions(world, world.with_suffix(".arrays"))
    log = read_log(world, config, interactions=interactions)
    read = time.perf_counter() - begun
    asked = [(model, days[0]) for model in MODELS] + [("removal", more) for more in days[1:]]
    for model, window in asked:
        begun = time.perf_counter()
        found = attribute(log, replace(config, model=model, days=window))
        seconds = {"read_seconds": read, "seconds": time.perf_counter() - begun}
        yield f"{model}, {window:g} days", judge(found, world) | seconds


def kept(path: Path | None) -> dict[str, dict[str, dict[str, float]]]:
    """The figures of the worlds that were measured before, by world, seed and days."""
    if path is None or not path.exists():
        return {}
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return {json.dumps(key): measured for key, measured in lines}


def main() -> None:
    """Simulate, attribute, judge, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(100, 110)))
    parser.add_argument("--days", type=float, nargs="+", default=[7.0])
    parser.add_argument("--kept", type=Path, help="worlds that were measured, to go on from")
    parser.add_argument("--results", type=Path, default=FOLDER, help="where the result goes")
    options = parser.parse_args()
    found: dict[str, dict[str, list[dict[str, float]]]] = {}
    for name, changes in WORLDS.items():
        for seed in options.seeds:
            key = [name, seed, list(options.days)]
            measured = kept(options.kept).get(json.dumps(key))
            if measured is None:
                with TemporaryDirectory() as folder:
                    world = Path(folder) / "world"
                    simulate(WorldConfig(seed=seed, **changes), world)
                    measured = dict(measure(world, tuple(options.days)))
                if options.kept is not None:
                    with options.kept.open("a") as file:
                        file.write(json.dumps([key, measured]) + "\n")
            for model, figures in measured.items():
                found.setdefault(name, {}).setdefault(model, []).append(figures)
                print(name, seed, model, figures, flush=True)
    figures = {
        f"{name}/{model}/{metric}": [round(one[metric], 4) for one in each]
        for name, models in found.items()
        for model, each in models.items()
        for metric in each[0]
    }
    table = [["world", "model", *METRICS.values()]]
    for name, models in found.items():
        for model, each in models.items():
            cells = []
            for metric in METRICS:
                values = [one[metric] for one in each if metric in one]
                spread = f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}" if values else "–"
                cells.append(spread)
            table.append([name, model, *cells])
    write_result(
        "attribution",
        title="Attribution against the truth",
        figures=figures,
        table=table,
        notes=f"Mean and standard deviation over the seeds {options.seeds}. "
        + __doc__.split("\n\n", 2)[2].replace("\n", " ").strip(),
        folder=options.results,
    )


if __name__ == "__main__":
    main()
