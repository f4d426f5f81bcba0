"""Six public datasets: what the shipped recipes reach beside every baseline, full ranking.

    python benchmarks/datasets.py DATA-FOLDER --work DIR

DATA-FOLDER holds the folders that SETS names, each in a layout that its importer reads
(docs/importers.md). Started again with the same DIR, it goes on where it stopped; `--only NAME`
(repeat) does some, and the result has the sets that are done. Test is read once, by the last step.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from commands import penchant
from results import write_result


@dataclass(frozen=True, slots=True)
class Set:
    """How one dataset is imported and trained on."""

    title: str
    folder: str
    importer: str
    recipe: str
    options: tuple[str, ...] = ()
    """Of `penchant train`."""
    minutes: int = 60


BOUGHT = ("--target", "buy", "--seen", "converted")
SETS = {
    "ml1m": Set("MovieLens-1M, leave-one-out", "ml-1m", "movielens", "movielens"),
    "beauty": Set("Amazon Beauty, leave-one-out", "amazon-beauty", "amazon", "sparse"),
    "microlens": Set("MicroLens-50k, leave-one-out", "microlens-50k", "microlens", "fresh"),
    "mule": Set("Taobao (MULE), buys, as published", "taobao-mb-mule", "mule", "bags", BOUGHT),
    # Its targets' own views and carts are absent: what was never seen is asked for. So validation
    # asks for the last event that was new to the user; the last buy nearly always follows a view.
    "retailrocket": Set(
        "Retailrocket, buys, as published", "retailrocket-mb", "retailrocket", "behaviours"
    ),
    "kuairand": Set(
        "KuaiRand-Pure (partial), long views, as published",
        "kuairand-pure-partial",
        "kuairand",
        "behaviours",
        ("--target", "long_view"),
    ),
}
METRICS = ("hr@10", "ndcg@10", "recall@50", "discovery@50", "coverage@50")


def main() -> None:
    """Import, train and evaluate each set, then write the result."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--work", type=Path, required=True, help="where datasets and runs are kept")
    parser.add_argument("--only", action="append", choices=list(SETS), help="this set alone")
    args = parser.parse_args()
    for name in args.only or SETS:
        run_set(SETS[name], args.data, args.work / name)
    write(args.work)


def run_set(chosen: Set, data: Path, work: Path) -> None:
    """Bring one set as far as its test.json; nothing that is there is done again."""
    dataset, run = work / "dataset", work / "run"
    if (run / "test.json").exists():
        return
    if not dataset.exists():
        penchant("import", chosen.importer, data / chosen.folder, dataset)
    resume = ["--resume"] if (run / "run.json").exists() else []
    limits = ["--max-minutes", chosen.minutes]
    given = ["--recipe", chosen.recipe, *chosen.options, *limits, *resume]
    penchant("train", dataset, "--out", run, *given)
    penchant("evaluate", run)


def write(work: Path) -> None:
    """One table over all sets that are done."""
    figures: dict[str, Any] = {}
    rows = [["", *METRICS, "towers better by (ndcg@10)", "epochs of at most", "minutes"]]
    for name, chosen in SETS.items():
        run = work / name / "run"
        if not (run / "test.json").exists():
            continue
        result = json.loads((run / "test.json").read_text())
        lines = (run / "metrics.jsonl").read_text().splitlines()
        minutes, epochs = (json.loads(lines[-1])[name] for name in ("minutes", "epoch"))
        most = json.loads((run / "run.json").read_text())["config"]["epochs"]
        protocol = result["protocol"]
        counts = f"{protocol['num_users']:,} users × {protocol['num_items']:,} items"
        rows.append([f"**{chosen.title}** ({counts})", *[""] * (len(METRICS) + 3)])
        for ranker, metrics in result["metrics"].items():
            label = f"towers, recipe `{chosen.recipe}`" if ranker == "towers" else ranker
            gap = result["differences"].get(ranker, {}).get("ndcg@10")
            rows.append(
                [
                    label,
                    *(f"{metrics[m]:.4f}" if m in metrics else "–" for m in METRICS),
                    f"{gap['mean']:+.4f} ({gap['low']:+.4f} to {gap['high']:+.4f})" if gap else "",
                    *(
                        (f"{epochs} of {most}", f"{minutes:.0f}")
                        if ranker == "towers"
                        else ("", "")
                    ),
                ]
            )
            figures |= {f"{name}/{ranker}/{m}": metrics[m] for m in METRICS if m in metrics}
        new = result["buckets"]["towers"].get("new items")
        if new:
            figures[f"{name}/towers/new items/recall@50"] = new["recall@50"]
        figures |= {f"{name}/minutes": minutes, f"{name}/epochs": epochs}
    write_result(
        "datasets",
        title="Six public datasets: the shipped recipes beside every baseline",
        figures=figures,
        table=rows,
        notes=(
            "Test split, full ranking, one seed; the epoch was chosen on validation. Differences "
            "are paired over users, with 95 % bootstrap intervals. Of Taobao, what the user bought "
            "before is not listed, what was only viewed or carted is; elsewhere nothing of the "
            "history is listed. Baselines that a set does not allow (no times, no "
            "titles, no conversions) are absent. Fewer epochs than the recipe's: validation no "
            "longer improved, or the run was stopped. Minutes are of training and validation on "
            "one core of a machine that was doing other things too. Sets are run one at a time: "
            "Beauty's rows are the newest, the others are of commit 205024f."
        ),
        command="python benchmarks/datasets.py DATA-FOLDER --work DIR",
    )


if __name__ == "__main__":
    main()
