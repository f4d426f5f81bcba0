"""MovieLens-1M, leave-one-out, full ranking: what the `movielens` recipe reaches, and how fast.

    python benchmarks/quality/ml1m.py ML-1M-FOLDER --work DIR

ML-1M-FOLDER holds the original files or the ordered sequences (docs/dataset.md). Started again with
the same DIR, it goes on where it stopped. The test split is read once, by the last step.
"""

import argparse
import json
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))

from commands import penchant
from results import write_result

PUBLISHED = (
    ("SASRec (BCE, 1 negative)", 0.2392, 0.1259),
    ("gSASRec", 0.3003, 0.1726),
    ("HSTU", 0.3097, 0.1720),
    ("HSTU-large", 0.3294, 0.1893),
)
"""HR@10 and NDCG@10 as read in the READMEs of gSASRec-pytorch and generative-recommenders."""


def main() -> None:
    """Import, train with the recipe, evaluate on test, write the result."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("--work", type=Path, required=True, help="where dataset and run are kept")
    args = parser.parse_args()
    dataset, run = args.work / "dataset", args.work / "run"
    if not dataset.exists():
        penchant("import", "movielens", args.source, dataset)
    resume = ["--resume"] if (run / "run.json").exists() else []
    penchant("train", dataset, "--out", run, "--recipe", "movielens", *resume)
    penchant("evaluate", run, "--k", "10", "--k", "50", "--baseline", "popularity")
    result = json.loads((run / "test.json").read_text())
    epochs = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    minutes = epochs[-1]["minutes"]
    model, popularity = result["metrics"]["towers"], result["metrics"]["popularity"]
    figures = {
        "hr@10": model["hr@10"],
        "ndcg@10": model["ndcg@10"],
        "mrr@10": model["mrr@10"],
        "hr@50": model["hr@50"],
        "minutes": minutes,
        "epochs": len(epochs),
        "popularity hr@10": popularity["hr@10"],
        "popularity ndcg@10": popularity["ndcg@10"],
    }

    def row(name: str, metrics: dict[str, float], minutes: str) -> list[str]:
        shown = [f"{metrics[metric]:.4f}" for metric in ("hr@10", "ndcg@10", "hr@50")]
        return [name, *shown, minutes]

    published = [[f"{n} (published)", f"{h:.4f}", f"{d:.4f}", "", ""] for n, h, d in PUBLISHED]
    rows = [
        ["", "HR@10", "NDCG@10", "HR@50", "minutes on this machine"],
        row("**Penchant, recipe `movielens`**", model, f"{minutes:.1f}"),
        row("popularity", popularity, ""),
        *published,
    ]
    write_result(
        "ml1m",
        title="MovieLens-1M, leave-one-out, test split, full ranking",
        figures=figures,
        table=rows,
        notes=(
            f"{result['protocol']['num_users']:,} users, each target ranked among all "
            f"{result['protocol']['num_items']:,} movies; movies the user has rated are filtered "
            f"out. The epoch was chosen on validation ({len(epochs)} epochs run); minutes count "
            "training and validation. Published figures are other people's, from their READMEs, "
            "and not measured here; HSTU's are on 3,706 items sorted by timestamp."
        ),
        command="python benchmarks/quality/ml1m.py ML-1M-FOLDER --work DIR",
    )


if __name__ == "__main__":
    main()
