"""Does the value model order what was shown better than retrieval, and than boosted trees?

    penchant import kuairand KUAIRAND data/kuairand
    penchant train data/kuairand --out runs/kuairand --recipe behaviours --target long_view
    penchant train-value runs/kuairand
    python benchmarks/value_model.py runs/kuairand

LightGBM (extra `[peers]`) reads what the value model reads, as a table: the candidate's and the
user's features, the retrieval score, the item statistics, and of the history how many events of
each kind it has and how the candidate's retrieval vector resembles those of its items. It has a
model a head, once with the log loss and once with LambdaRank over what one user was shown, for the
value model has a loss of both kinds. Settings and the number of trees are chosen on the same
choosing day, by the log loss and by NDCG. Then all are asked for the test part, once.
"""

import argparse
import itertools
import time
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import numpy.typing as npt
from request_side import CANDIDATES, request_milliseconds
from results import FOLDER, write_result

from model.config import FeatureSpec
from training.dataset import read_items_table
from training.run import Run, load_best, open_run
from training.value.created import created_at
from training.value.evaluate import RETRIEVAL, SAMPLES, VALUE, rank_heads
from training.value.exposures import ExposureLog
from training.value.fit import predict
from training.value.inputs import ItemArrays, ShownExamples, item_arrays, make_examples
from training.value.kin import kin_codes
from training.value.stored import StoredValue, load_value

Float32 = npt.NDArray[np.float32]

LIGHTGBM, LAMBDARANK = "lightgbm", "lambdarank"
PEERS = (LIGHTGBM, LAMBDARANK)
GRID = {"num_leaves": (15, 31, 63), "min_data_in_leaf": (50, 200), "cat_smooth": (10.0, 50.0)}
FIXED = {
    "learning_rate": 0.04,
    "feature_fraction": 0.5,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "num_threads": 1,
    "seed": 17,
    "verbosity": -1,
}
MAX_TREES, PATIENCE = 1500, 50
WHOLE_LIST = 1000
AT_ONCE = "at once"
SHOWN_METRICS = ("auc", "gauc", "slate_auc", "ndcg")


def main() -> None:
    """Measure and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--dataset", type=Path, help="where the dataset is now, if it moved")
    parser.add_argument("--part", choices=("choose", "test"), default="test")
    parser.add_argument("--heads", nargs="*", help="only these")
    parser.add_argument("--results", type=Path, default=FOLDER, help="where the result goes")
    options = parser.parse_args()
    if (options.part != "test" or options.heads) and options.results == FOLDER:
        parser.error("a part of the benchmark is not its result; name a folder with --results")
    run = open_run(options.run, dataset=options.dataset)
    model, _ = load_best(run)
    value = load_value(run)
    items = item_arrays(run, model, value.stats)
    log = ExposureLog(run)
    names = tuple(h.name for h in value.heads if not options.heads or h.name in options.heads)
    shown = {part: log.read(part).with_heads(names) for part in ("fit", "choose", options.part)}
    shown[AT_ONCE] = shown[options.part].at_once()
    config = value.network.config
    table = read_items_table(run.dataset)
    kin = kin_codes(table, config.kin, vectors=items.vectors.numpy(), seed=run.config.seed)
    created = created_at(run, table) if config.reads_age else None
    examples = {
        part: make_examples(run, model, exposures, items.vectors, kin=kin, created=created)
        for part, exposures in shown.items()
    }
    tables = {part: Table(run, value, items, found) for part, found in examples.items()}
    asked = examples[options.part]
    labels = asked.exposures.labels
    trees = {
        peer: (np.zeros(labels.shape, np.float32), np.zeros(labels.shape, np.float32))
        for peer in PEERS
    }
    settings: dict[str, str] = {}
    for (place, name), peer in itertools.product(enumerate(names), PEERS):
        started = time.perf_counter()
        booster, chosen = best_trees(peer, tables["fit"], tables["choose"], examples, place)
        for part, scores in zip((options.part, AT_ONCE), trees[peer], strict=True):
            scores[:, place] = booster.predict(tables[part].cells, raw_score=True)
        key = f"{name} ({peer})"
        settings[key] = f"{chosen}, {booster.best_iteration} trees"
        print(key, settings[key], f"{time.perf_counter() - started:.0f} s", flush=True)
    places = [[h.name for h in value.heads].index(name) for name in names]
    logits, slate_logits = (
        predict(value.network, items, examples[part], max_history=value.config.max_history)
        for part in (options.part, AT_ONCE)
    )
    found = rank_heads(
        logits[:, places],
        asked,
        slate_logits=slate_logits[:, places],
        slates=examples[AT_ONCE],
        others=trees,
    )
    heads = {
        name: rankings.with_intervals(samples=SAMPLES, seed=value.config.seed)
        for name, rankings in found.items()
    }
    milliseconds = request_milliseconds(value.network)
    write(run, value, options.part, heads, settings, milliseconds, options.results)


class Table:
    """Exposures as rows of numbers, the categories as their codes."""

    def __init__(
        self, run: Run, value: StoredValue, items: ItemArrays, examples: ShownExamples
    ) -> None:
        self.names: list[str] = []
        self.categories: list[str] = []
        self._columns: list[npt.NDArray[Any]] = []
        exposures = examples.exposures
        for spec in value.network.config.item_features:
            array = items.features[f"item.{spec.name}"].numpy()[exposures.items]
            self._add_feature(f"item_{spec.name}", spec, array)
        for spec in value.network.config.profile_features:
            array = examples.profiles[f"profile.{spec.name}"].numpy()[exposures.owners]
            self._add_feature(f"profile_{spec.name}", spec, array)
        for place, name in enumerate(value.stats.names):
            self._add(name.replace(".", "_"), value.stats.values[exposures.items, place])
        self._add("score", examples.scores)
        for code, event in enumerate(run.data.schema.history_events):
            self._add(f"past_{event}", examples.past[:, code])
        for array in (examples.kin, examples.age):
            if array is not None:
                for place in range(array.shape[1]):
                    self._add(f"extra_{len(self.names)}", array[:, place])
        self._add_history(run, value, items, examples)
        self.cells: Float32 = np.stack(self._columns, axis=1).astype(np.float32)

    def _add(self, name: str, values: npt.NDArray[Any]) -> None:
        self.names.append(name)
        self._columns.append(values)

    def _add_feature(self, name: str, spec: FeatureSpec, array: npt.NDArray[Any]) -> None:
        match spec.type:
            case "category":
                self.categories.append(name)
                self._add(name, array)
            case "number":
                self._add(name, np.where(array[:, 1] > 0, array[:, 0], np.nan))
            case "categories":
                for code in range(1, spec.size):
                    self._add(f"{name}_{code}", (array == code).any(axis=1))
            case _:  # of texts and vectors the retrieval vector is what counts
                pass

    def _add_history(
        self, run: Run, value: StoredValue, items: ItemArrays, examples: ShownExamples
    ) -> None:
        vectors = items.vectors.numpy()
        unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
        num = len(examples.scores)
        names = ("mean_product", "max_product", "mean_cosine", "max_cosine", "last_cosine")
        columns = {name: np.full(num, np.nan, np.float32) for name in names}
        counts = np.zeros((num, run.tower.num_events), np.float32)
        for start in range(0, num, 4096):
            chosen = np.arange(start, min(start + 4096, num))
            padded = examples.padded(chosen, max_history=value.config.max_history)
            mask, rows = padded.mask, np.maximum(padded.rows, 0)
            shown = examples.exposures.items[chosen]
            some, real = mask.any(axis=1), np.maximum(mask.sum(axis=1), 1)
            for kind, matrix in (("product", vectors), ("cosine", unit)):
                likeness = np.einsum("nld,nd->nl", matrix[rows], matrix[shown])
                mean = (likeness * mask).sum(axis=1) / real
                most = np.where(mask, likeness, -np.inf).max(axis=1)
                columns[f"mean_{kind}"][chosen] = np.where(some, mean, np.nan)
                columns[f"max_{kind}"][chosen] = np.where(some, most, np.nan)
                if kind == "cosine":
                    columns["last_cosine"][chosen] = np.where(some, likeness[:, -1], np.nan)
            for code in range(1, run.tower.num_events + 1):
                counts[chosen, code - 1] = ((padded.events == code) & mask).sum(axis=1)
        for name, column in columns.items():
            self._add(name, column)
        self._add("num_events", examples.lengths())
        for code in range(counts.shape[1]):
            self._add(f"num_events_{code + 1}", counts[:, code])


def best_trees(
    peer: str, fit: Table, choose: Table, examples: dict[str, ShownExamples], place: int
) -> tuple[lightgbm.Booster, str]:
    """The grid's best trees for one head, by the objective's metric on the choosing day."""
    ranks = peer != LIGHTGBM
    asked = {
        "objective": "lambdarank" if ranks else "binary",
        "metric": "ndcg" if ranks else "binary_logloss",
        "eval_at": [WHOLE_LIST],  # as in our NDCG, all of a list counts
    }

    def dataset(table: Table, part: str, reference: Any = None) -> lightgbm.Dataset:
        exposures = examples[part].exposures
        rows = np.flatnonzero(exposures.known[:, place])
        rows = rows[np.argsort(exposures.owners[rows], kind="stable")]  # a group lies together
        sizes = np.unique(exposures.owners[rows], return_counts=True)[1]
        return lightgbm.Dataset(
            table.cells[rows],
            exposures.labels[rows, place],
            group=sizes if ranks else None,
            feature_name=table.names,
            categorical_feature=table.categories,
            reference=reference,
            params={"verbosity": -1},
            free_raw_data=False,
        )

    best: tuple[float, lightgbm.Booster, str] | None = None
    for setting in itertools.product(*GRID.values()):
        chosen = dict(zip(GRID, setting, strict=True))
        learned = dataset(fit, "fit")
        booster = lightgbm.train(
            {**FIXED, **chosen, **asked},
            learned,
            MAX_TREES,
            [dataset(choose, "choose", learned)],
            callbacks=[lightgbm.early_stopping(PATIENCE, verbose=False)],
        )
        (found,) = booster.best_score["valid_0"].values()
        loss = -found if ranks else found
        if best is None or loss < best[0]:
            best = loss, booster, ", ".join(f"{n} {v:g}" for n, v in chosen.items())
    assert best is not None
    return best[1], best[2]


def write(
    run: Run,
    value: StoredValue,
    part: str,
    heads: dict[str, Any],
    settings: dict[str, str],
    milliseconds: float,
    folder: Path,
) -> None:
    """Write FOLDER/value_model.md and .json."""
    table = [["Head", "Positives", "Order", *(m.replace("_", " ").upper() for m in SHOWN_METRICS)]]
    figures: dict[str, Any] = {"request_side_ms": round(milliseconds, 2)}
    for name, head in heads.items():
        for order in (VALUE, *PEERS, RETRIEVAL):
            cells = []
            for metric in SHOWN_METRICS:
                own = head[order][metric]
                figures[f"{name}/{order}/{metric}"] = own["value"]
                cell = f"{own['value']:.4f}"
                if order != VALUE:
                    gap = head["value_above"][order][metric]
                    cell += f" ({gap['value']:+.4f}: {gap['low']:+.4f} to {gap['high']:+.4f})"
                    figures[f"{name}/above_{order}/{metric}"] = gap
                cells.append(cell)
            first = order == VALUE
            counts = f"{head['num_positives']:,} of {head['num_exposures']:,}"
            table.append([name if first else "", counts if first else "", order, *cells])
    parts = value.facts["parts"]
    write_result(
        "value_model",
        folder=folder,
        title=f"The value model on {run.data.schema.name}",
        command="python benchmarks/value_model.py KUAIRAND-RUN",
        figures=figures,
        table=table,
        notes=(
            f"The {part} part of the {run.split.kind} split. In parentheses: how far the value "
            f"model is above, with the 95 % interval of {SAMPLES} draws of users. AUC is over all "
            "exposures; GAUC and NDCG are over the users with both labels; slate AUC is GAUC with "
            "all of a user's exposures asked for at the first of them, as a reranker is. Fitted on "
            f"{parts['fit']['exposures']:,} exposures of {parts['fit']['users']:,} users, chosen "
            f"on {parts['choose']['exposures']:,} of the day after; best epoch "
            f"{value.facts['best_epoch']}, {value.facts['seconds'] / 60:.1f} minutes of training. "
            f"LightGBM {lightgbm.__version__}, with the log loss (lightgbm) and with LambdaRank "
            "over each user's exposures (lambdarank, whose scores compare within a user alone, so "
            "that its AUC says little): "
            + "; ".join(f"{name}: {setting}" for name, setting in settings.items())
            + f". The request side takes {milliseconds:.2f} ms on one thread for one user with "
            f"{value.config.max_history} events and {CANDIDATES} candidates."
        ),
    )


if __name__ == "__main__":
    main()
