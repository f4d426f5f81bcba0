"""Amazon Beauty, leave-one-out, full ranking: the `sparse` recipe beside RecTools' models.

    python benchmarks/quality/beauty.py AMAZON-BEAUTY-FOLDER --work DIR [--rectools PYTHON]

AMAZON-BEAUTY-FOLDER holds the published sequences or reviews (docs/importers.md). PYTHON is one
with `pip install 'rectools[torch]'`; without it, the peers are left out. Each peer gets the size
and the early stopping of ours, and as many minutes or more, on one core. Started again with the
same DIR, it goes on where it stopped. The test split is read once, by the last step.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1]))

from commands import penchant
from peers import read_log, read_peer, run_peer, write_split
from results import write_result

from training.baselines import fit_baselines
from training.evaluate import SEED, evaluate
from training.run import load_best, open_run
from training.taste_circles import taste_circles
from training.tower_ranker import TowerRanker, item_vectors

PEERS = {
    "sasrec": "RecTools SASRec (full softmax)",
    "esasrec": "RecTools eSASRec (256 negatives)",
}
PUBLISHED = (
    ("SASRec", 0.0605, 0.0318, "S3-Rec repository"),
    ("S3-Rec", 0.0647, 0.0327, "S3-Rec repository"),
    ("TIGER", 0.0648, 0.0384, "second-hand"),
    ("SASRec, full cross-entropy", 0.0859, 0.0503, "second-hand"),
)
METRICS = ("recall@10", "ndcg@10", "recall@50", "discovery@50", "coverage@50")


def main() -> None:
    """Import, train ours, train the peers as long, evaluate all together, write the result."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("source", type=Path)
    parser.add_argument("--work", type=Path, required=True, help="where dataset and run are kept")
    parser.add_argument("--rectools", help="a Python that has rectools[torch]")
    parser.add_argument("--recipe", default="sparse")
    parser.add_argument("--peer-minutes", type=float, default=20.0, help="for each, at least")
    args = parser.parse_args()
    dataset, folder = args.work / "dataset", args.work / "run"
    if not dataset.exists():
        penchant("import", "amazon", args.source, dataset)
    resume = ["--resume"] if (folder / "run.json").exists() else []
    penchant("train", dataset, "--out", folder, "--recipe", args.recipe, *resume)
    epochs = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    minutes = epochs[-1]["minutes"]
    run = open_run(folder)
    spent = {"towers": f"{minutes:.0f}"}
    asked = []
    if args.rectools:
        given = max(minutes, args.peer_minutes)
        write_split(run, args.work / "peers", minutes=given, batch_size=128)
        for peer, name in PEERS.items():
            run_peer(args.rectools, args.work / "peers", peer)
            log = read_log(args.work / "peers", peer)
            spent[name] = f"{log[-1]['minutes']:.0f}"
            asked.append(read_peer(args.work / "peers", peer, run.split.training, name=name))
    model, _ = load_best(run)
    questions = run.split.questions("test", seen=run.config.seen)
    training = run.split.training
    names = ("popularity", "item-knn", "title-knn", "als")
    baselines, _ = fit_baselines(names, training, run.read_items(), seed=SEED)
    towers = TowerRanker(model, item_vectors(run.items, model), questions, profiles=run.profiles)
    found = evaluate(
        questions,
        [towers, *asked, *baselines],
        ks=(10, 50),
        popularity=training.popularity(),
        seen=run.config.seen,
        circles=taste_circles(training, seed=SEED),
    )
    gaps = found.differences(("ndcg@10",))
    figures: dict[str, Any] = {"minutes": minutes, "epochs": len(epochs), "seed": run.config.seed}
    table = [["", *METRICS, "towers better by (ndcg@10)", "minutes"]]
    for name, metrics in found.metrics.items():
        gap = gaps.get(name, {}).get("ndcg@10")
        table.append(
            [
                f"**Penchant, recipe `{args.recipe}`**" if name == "towers" else name,
                *(f"{metrics[m]:.4f}" for m in METRICS),
                f"{gap.mean:+.4f} ({gap.low:+.4f} to {gap.high:+.4f})" if gap else "",
                spent.get(name, ""),
            ]
        )
        prefix = "" if name == "towers" else f"{name} "
        figures |= {f"{prefix}{metric}": metrics[metric] for metric in METRICS}
    table += [
        [f"{name} (published, {where})", f"{recall:.4f}", f"{ndcg:.4f}", *[""] * 5]
        for name, recall, ndcg, where in PUBLISHED
    ]
    write_result(
        "beauty",
        title="Amazon Beauty, leave-one-out, test split, full ranking",
        figures=figures,
        table=table,
        notes=(
            f"{len(questions.users):,} users, each target ranked among all {run.data.num_items:,} "
            "items; items of the history are filtered out. One seed; the epoch was chosen on "
            "validation, for ours and for RecTools' models alike, which have the same d, blocks, "
            "heads and length and were trained for at least as many minutes on one core (or until "
            "validation no longer improved). Published figures were not measured here. Ours reads "
            "titles and attributes beside ids; RecTools' models read ids."
        ),
        command=(
            "python benchmarks/quality/beauty.py AMAZON-BEAUTY-FOLDER --work DIR --rectools PYTHON"
        ),
    )


if __name__ == "__main__":
    main()
