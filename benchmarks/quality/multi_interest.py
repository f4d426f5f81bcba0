"""Several interests a user: does M > 1 pay? M of 1, 2, 4, 8 on two datasets.

    python benchmarks/quality/multi_interest.py ML-1M-FOLDER KUAIRAND-FOLDER --work DIR

The folders are as `penchant import movielens` and `penchant import kuairand` read them. Each run
has the recipe of its dataset, another M and the same epochs. recall@50 and discovery@50 on test,
merged by quota (each interest holds its share of the list) and by plain max; and the mean cosine
between a user's interests: near 1, they have collapsed into one. Started again with the same DIR,
it goes on where it stopped.
"""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from trained import Trained, imported, trained, write_result

from training.evaluate import SEED, evaluate
from training.taste_circles import taste_circles

NUMBERS = (1, 2, 4, 8)
SAMPLED = {"loss": "sampled", "num_uniform": 1024, "num_in_batch": 0, "evaluate_every": 2}
"""MovieLens with its full softmax learns more a minute only after the first half hour."""
METRICS = ("recall@50", "discovery@50", "ndcg@10", "coverage@50")


def between(made: Trained, asked: Any) -> float:
    """Mean cosine over users and pairs of their interests; of 2,000 users."""
    sample = asked.sample(2000, seed=SEED)
    vectors = made.ranker(sample, "towers").ranker.interests(sample.histories, sample.users)
    vectors = vectors / np.linalg.norm(vectors, axis=2, keepdims=True)
    cosines = np.einsum("bmd,bnd->bmn", vectors, vectors)
    num = cosines.shape[1]
    if num == 1:
        return float("nan")
    return float((cosines.sum(axis=(1, 2)) - num).mean() / (num * (num - 1)))


def main() -> None:
    """Train every M on both datasets, read test, write the result."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("ml1m", type=Path)
    parser.add_argument("kuairand", type=Path)
    parser.add_argument("--work", type=Path, required=True, help="where datasets and runs are kept")
    parser.add_argument("--epochs", type=int, default=6, help="of each run")
    args = parser.parse_args()
    sets = {
        "MovieLens-1M, leave-one-out": (
            "movielens",
            args.ml1m,
            "movielens",
            SAMPLED,
            (),
        ),
        "KuaiRand-Pure (partial), long views": (
            "kuairand",
            args.kuairand,
            "behaviours",
            {},
            ("--target", "long_view"),
        ),
    }
    figures: dict[str, Any] = {}
    rows = [["", *METRICS, "mean cosine between interests", "epochs"]]
    for title, (importer, source, recipe, settings, options) in sets.items():
        dataset = imported(importer, source, args.work / importer)
        rows.append([f"**{title}**", *[""] * (len(METRICS) + 2)])
        for num in NUMBERS:
            made = trained(
                dataset,
                args.work / f"{importer}-{num}",
                recipe,
                {**settings, "num_interests": num, "epochs": args.epochs},
                *options,
            )
            asked, training = made.questions("test"), made.run.split.training
            ways = ("quota", "max") if num > 1 else ("quota",)
            found = evaluate(
                asked,
                [made.ranker(asked, how, how=how) for how in ways],  # type: ignore[arg-type]
                ks=(10, 50),
                popularity=training.popularity(),
                seen=made.run.config.seen,
                circles=taste_circles(training, seed=SEED),
            )
            cosine = between(made, asked)
            for how in ways:
                metrics = found.metrics[how]
                label = f"M = {num}" + (f", merged by {how}" if num > 1 else "")
                rows.append(
                    [
                        label,
                        *(f"{metrics[m]:.4f}" for m in METRICS),
                        "" if num == 1 else f"{cosine:.3f}",
                        str(made.epochs),
                    ]
                )
                figures |= {f"{importer}/{num}/{how}/{m}": metrics[m] for m in METRICS}
            if num > 1:
                figures[f"{importer}/{num}/cosine"] = cosine
    write_result(
        "multi_interest",
        title="Several interests a user",
        figures=figures,
        table=rows,
        notes=(
            f"Test, full ranking, one seed, {args.epochs} epochs a run; the epoch that is read was "
            "chosen on validation. With M = 1 there is nothing to merge."
        ),
        command=(
            "python benchmarks/quality/multi_interest.py ML-1M-FOLDER KUAIRAND-FOLDER --work DIR"
        ),
    )


if __name__ == "__main__":
    main()
