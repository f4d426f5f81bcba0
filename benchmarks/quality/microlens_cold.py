"""New items: what content towers find of items that have no event, beside TF-IDF kNN and ids alone.

    python benchmarks/quality/microlens_cold.py MICROLENS-FOLDER BEAUTY-FOLDER --work DIR

MICROLENS-FOLDER, BEAUTY-FOLDER: see `penchant import microlens` and `penchant import amazon` (with
reviews by the day). On MicroLens the split leaves one out; on Beauty it is by time, so that whole
products are new. The sweep of id dropout and of new items' share is read on validation; the
recipe that ships is then trained with three seeds, beside three of ids alone, and test is read
once. Started again with the same DIR, it goes on where it stopped. `--sweep RESULT` takes the
sweep's rows from an earlier result instead, and says so.
"""

import argparse
import json
from pathlib import Path
from statistics import mean
from typing import Any

from trained import Trained, imported, trained, write_result

from training.baselines import fit_baselines
from training.evaluate import SEED, Evaluation, evaluate

SEEDS = (17, 18, 19)
DROPOUTS = (0.3, 0.1, 0.0, 0.6)
SHARES = (0.0, 0.1, 0.25, 0.4)
NO_IDS = {"content": False, "id_dropout": 0}
BY_TIME = ("--split", "time", "--holdout-days", 60)
NEW = "new items"


def sweep(dataset: Path, work: Path, options: tuple[object, ...]) -> list[list[str]]:
    """Id dropout × share of new items, on validation."""
    rows = []
    for dropout in DROPOUTS:
        if dropout == shipped("id_dropout"):
            made = trained(dataset, seeded(work, "fresh", SEEDS[0]), "fresh", {}, *options)
        else:
            settings = {"id_dropout": dropout}
            made = trained(dataset, work / f"dropout-{dropout}", "fresh", settings, *options)
        asked = made.questions("validation")
        rankers = [made.ranker(asked, str(s), new_item_share=s) for s in SHARES]
        found = judge(made, asked, rankers)
        for share in SHARES:
            new, old, everything = recalls(found, str(share))
            chosen = (dropout, share) == (shipped("id_dropout"), shipped("new_item_share"))
            mark = " (ships)" if chosen else ""
            rows.append([f"{dropout}", f"{share}{mark}", *map(shown, (new, old, everything))])
            print(*rows[-1], flush=True)
    return rows


def swept_before(result: Path) -> list[list[str]]:
    """The rows of the sweep in an earlier result."""
    rows = []
    for key, recalls_of in json.loads(result.read_text())["figures"].items():
        if key.startswith("share sweep/"):
            _, dropout, share = key.split("/")
            chosen = float(dropout) == shipped("id_dropout")
            ships = chosen and float(share) == shipped("new_item_share")
            rows.append([dropout, share + " (ships)" * ships, *map(shown, recalls_of)])
    return rows


def seeded(work: Path, name: str, seed: int) -> Path:
    """The folder of one of the final runs."""
    return work / f"{name}-{seed}"


def shipped(name: str) -> float:
    """A field of the recipe."""
    from training.recipes import fresh

    return float(getattr(fresh(), name))


def judge(made: Trained, asked: Any, rankers: list[Any]) -> Evaluation:
    """Rank all items for all users."""
    popularity = made.run.split.training.popularity()
    seen = made.run.config.seen
    return evaluate(asked, rankers, ks=(10, 50), popularity=popularity, seen=seen)


def recalls(found: Evaluation, ranker: str) -> tuple[float, float, float]:
    """recall@50 on targets without an event, on those with, and on all."""
    buckets = found.buckets[ranker]
    old = [b for name, b in buckets.items() if name in ("head", "torso", "tail")]
    count = sum(b["num_targets"] for b in old)
    warm = sum(b["recall@50"] * b["num_targets"] for b in old) / count
    new = buckets[NEW]["recall@50"] if NEW in buckets else float("nan")
    return new, warm, found.metrics[ranker]["recall@50"]


def shown(value: float) -> str:
    """Four digits."""
    return f"{value:.4f}"


def final(
    dataset: Path, work: Path, title: str, key: str, options: tuple[object, ...]
) -> tuple[list[list[str]], dict[str, Any]]:
    """Three seeds of the recipe and of ids alone, and the baselines, on test."""
    runs = {
        "Penchant, recipe `fresh`": [
            trained(dataset, seeded(work, "fresh", s), "fresh", {}, *options, "--seed", s)
            for s in SEEDS
        ],
        "ids alone, same recipe": [
            trained(dataset, seeded(work, "ids", s), "fresh", NO_IDS, *options, "--seed", s)
            for s in SEEDS
        ],
    }
    first = next(iter(runs.values()))[0]
    asked, training = first.questions("test"), first.run.split.training
    rankers = [
        made.ranker(asked, f"{name}/{seed}")
        for name, each in runs.items()
        for seed, made in zip(SEEDS, each, strict=True)
    ]
    names = ("popularity", "item-knn", "title-knn")
    baselines, _ = fit_baselines(names, training, first.run.read_items(), seed=SEED)
    found = judge(first, asked, [*rankers, *baselines])
    chance = 50 / first.run.data.num_items
    num_new = found.buckets["popularity"][NEW]["num_targets"]
    figures: dict[str, Any] = {f"{key}/random/new": chance, f"{key}/new_targets": num_new}
    rows = [[f"**{title}**, {num_new:,} new targets of {len(asked.targets):,}", "", "", "", ""]]
    for name in runs:
        each = [recalls(found, f"{name}/{seed}") for seed in SEEDS]
        cells = [
            f"{mean(column):.4f} ({min(column):.4f} to {max(column):.4f})"
            for column in zip(*each, strict=True)
        ]
        minutes = mean(made.minutes for made in runs[name])
        rows.append([name, *cells, f"{minutes:.0f}"])
        label = "ids" if name.startswith("ids") else "fresh"
        for what, column in zip(("new", "warm", "all"), zip(*each, strict=True), strict=True):
            figures[f"{key}/{label}/{what}"] = list(column)
    for name in names:
        values = recalls(found, name)
        rows.append([name, *map(shown, values), ""])
        figures |= {
            f"{key}/{name}/{w}": v for w, v in zip(("new", "warm", "all"), values, strict=True)
        }
    rows.append(["random", shown(chance), shown(chance), shown(chance), ""])
    ours = mean(figures[f"{key}/fresh/new"])
    figures[f"{key}/ratio_to_title_knn"] = ours / figures[f"{key}/title-knn/new"]
    figures[f"{key}/ratio_to_random"] = ours / chance
    return rows, figures


def main() -> None:
    """Sweep on validation, train what ships, read test, write the result."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("microlens", type=Path)
    parser.add_argument("beauty", type=Path)
    parser.add_argument("--work", type=Path, required=True, help="where datasets and runs are kept")
    parser.add_argument("--sweep", type=Path, help="an earlier result, for the rows of the sweep")
    args = parser.parse_args()
    videos = imported("microlens", args.microlens, args.work / "microlens")
    goods = imported("amazon", args.beauty, args.work / "beauty", "--time", "day")
    swept = swept_before(args.sweep) if args.sweep else sweep(videos, args.work / "videos", ())
    of_videos, figures = final(
        videos, args.work / "videos", "MicroLens-50k, leave-one-out", "microlens", ()
    )
    of_goods, more = final(goods, args.work / "goods", "Amazon Beauty, by time", "beauty", BY_TIME)
    figures |= more
    header = ["recall@50, test", "new items", "warm items", "all", "minutes a run"]
    validation = ["MicroLens, validation: id dropout", "share of new items"]
    rows = [*of_videos, *of_goods, [f"**{validation[0]}**", f"**{validation[1]}**", "", "", ""]]
    for dropout, share, new, warm, everything in swept:
        rows.append([f"{dropout}, share {share}", new, warm, everything, ""])
        key = f"share sweep/{dropout}/{share.split()[0]}"
        figures[key] = [float(new), float(warm), float(everything)]
    write_result(
        "microlens_cold",
        title="Items without an event: content towers beside TF-IDF kNN and ids alone",
        figures=figures,
        table=[header, *rows],
        notes=(
            "Full ranking among all items; new: no training event names the target. Mean of three "
            "seeds with the least and greatest. "
            f"MicroLens, new items: {figures['microlens/ratio_to_title_knn']:.2f} times title-kNN, "
            f"{figures['microlens/ratio_to_random']:.0f} times random. Id dropout and the share "
            "of new items were chosen on validation."
            + (" The rows of the sweep are of an earlier run." if args.sweep else "")
        ),
        command=(
            "python benchmarks/quality/microlens_cold.py MICROLENS-FOLDER BEAUTY-FOLDER --work DIR"
            + (" --sweep EARLIER-RESULT" if args.sweep else "")
        ),
    )


if __name__ == "__main__":
    main()
