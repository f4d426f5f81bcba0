"""What heads share in the value model: one bottom, experts (MMoE), or experts of their own (PLE).

    penchant import kuairand KUAIRAND data/kuairand
    penchant train data/kuairand --out runs/kuairand --recipe behaviours --target long_view
    python benchmarks/value_bottoms.py runs/kuairand

Each is fitted on the same exposures with the same seeds and judged by the same test part; so is the
shared bottom without what it reads of kin (a candidate's circle, creator and so on), and without
the line that makes chances true. Reported by head, as the mean of the seeds: slate AUC (who would
be shown what, all asked at one moment), AUC, and the expected calibration error, with the spread
between seeds; and what one request takes.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from request_side import CANDIDATES, request_milliseconds
from results import write_result

from model.value import ValueNetwork
from training.dataset import read_items_table
from training.run import Run, load_best, open_run
from training.value.calibration import reliability
from training.value.config import ValueRunConfig
from training.value.created import created_at
from training.value.exposures import ExposureLog
from training.value.fit import fit_network, predict
from training.value.inputs import ItemArrays, ShownExamples, item_arrays, make_examples
from training.value.item_stats import ItemStats, count_stats
from training.value.kin import kin_codes, kin_columns
from training.value.metrics import Ranking
from training.value.train import network_config

VARIANTS: dict[str, dict[str, Any]] = {
    "shared bottom": {},
    "MMoE, 4 experts": {"bottom": "mmoe"},
    "PLE, 4 shared experts": {"bottom": "ple"},
    "shared bottom, without kin": {"num_kin": 0},
}
METRICS = ("slate_auc", "auc", "ece", "ece before")


def main() -> None:
    """Fit every variant with every seed, write the result."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[17, 18])
    options = parser.parse_args()
    run = open_run(options.run)
    model, _ = load_best(run)
    log = ExposureLog(run)
    before = log.read("before")
    stats = count_stats(run.split.training, before)
    items = item_arrays(run, model, stats)
    table = read_items_table(run.dataset)
    kin = kin_columns(table, run.data.schema, most=ValueRunConfig().num_kin)
    codes = kin_codes(table, kin, vectors=items.vectors.numpy(), seed=run.config.seed)
    created = created_at(run, table)
    shown = {part: log.read(part) for part in ("fit", "choose", "test")}
    learned = [
        place
        for place in range(len(shown["fit"].heads))
        if 0 < shown["fit"].labels[:, place].sum() < len(shown["fit"].labels)
    ]
    names = tuple(shown["fit"].heads[place].name for place in learned)
    shown = {part: one.with_heads(names) for part, one in shown.items()}
    shown["slates"] = shown["test"].at_once()
    examples = {
        part: make_examples(run, model, one, items.vectors, kin=codes, created=created)
        for part, one in shown.items()
    }
    figures: dict[str, Any] = {}
    spent: dict[str, list[float]] = {}
    for variant, settings in VARIANTS.items():
        for seed in options.seeds:
            config = replace(ValueRunConfig(), seed=seed, **settings)
            found, seconds = fitted(run, config, examples, items, stats, kin, created is not None)
            spent.setdefault(variant, []).append(seconds)
            for key, value in found.items():
                figures.setdefault(f"{variant}/{key}", []).append(value)
            print(variant, seed, f"{seconds:.0f} s", found, flush=True)
    report(names, examples["test"], figures, spent, kin)


def fitted(
    run: Run,
    config: ValueRunConfig,
    examples: dict[str, ShownExamples],
    items: ItemArrays,
    stats: ItemStats,
    kin: tuple[str, ...],
    reads_age: bool,
) -> tuple[dict[str, float], float]:
    """HEAD/METRIC on the test part, and the seconds of fitting."""
    if not config.num_kin:
        kin = ()
        examples = {part: replace(one, kin=None) for part, one in examples.items()}
    torch.manual_seed(config.seed)
    heads = tuple(head.name for head in examples["fit"].heads)
    network = ValueNetwork(network_config(run, config, heads, stats, kin=kin, reads_age=reads_age))
    began = time.perf_counter()
    fit = fit_network(
        network,
        items,
        examples["fit"],
        examples["choose"],
        config,
        progress=lambda done, what: None,
    )
    seconds = time.perf_counter() - began
    found = {"request_ms": request_milliseconds(network)}
    asked, at_once = (
        predict(network, items, examples[part], max_history=config.max_history)
        for part in ("test", "slates")
    )
    test = examples["test"]
    for place, head in enumerate(heads):
        known = test.known[:, place]
        labels, logits = test.labels[known, place], asked[known, place]
        ranking = Ranking(
            test.owners[known],
            labels,
            logits,
            test.num_owners,
            slate_scores=at_once[known, place],
        ).measure()
        line = fit.lines[place]
        bent = (logits - line.shift) / line.slope
        for name, value in (
            ("slate_auc", ranking["slate_auc"]),
            ("auc", ranking["auc"]),
            ("ece", error(logits, labels)),
            ("ece before", error(bent, labels)),
        ):
            found[f"{head}/{name}"] = value
    return found, seconds


def error(logits: npt.NDArray[np.floating], labels: npt.NDArray[np.bool_]) -> float:
    """The expected calibration error."""
    found = reliability(1 / (1 + np.exp(-logits.astype(np.float64))), labels)
    assert found is not None
    return found.error


def report(
    heads: tuple[str, ...],
    test: ShownExamples,
    figures: dict[str, Any],
    spent: dict[str, list[float]],
    kin: tuple[str, ...],
) -> None:
    """Write the result."""
    rows = [["head", "", *METRICS]]
    for place, head in enumerate(heads):
        positives = int((test.labels[:, place] & test.known[:, place]).sum())
        for variant in VARIANTS:
            cells = []
            for metric in METRICS:
                values = figures[f"{variant}/{head}/{metric}"]
                spread = f" ±{np.ptp(values) / 2:.4f}" if len(values) > 1 else ""
                cells.append(f"{np.mean(values):.4f}{spread}")
            first = variant == next(iter(VARIANTS))
            rows.append([f"{head} ({positives:,})" if first else "", variant, *cells])
    requests = {
        variant: float(np.mean(figures.pop(f"{variant}/request_ms"))) for variant in VARIANTS
    }
    figures |= {f"{variant}/request_ms": value for variant, value in requests.items()}
    minutes = {variant: float(np.mean(seconds)) / 60 for variant, seconds in spent.items()}
    figures |= {f"{variant}/minutes": value for variant, value in minutes.items()}
    write_result(
        "value_bottoms",
        title="What the heads of the value model share",
        figures=figures,
        table=rows,
        notes=(
            f"Test part, {len(test.scores):,} exposures; in parentheses those that came true. Mean "
            f"of {len(next(iter(spent.values())))} seeds, ± half of their range. ece before: "
            "without the line that is fitted on the choosing day. Kin: "
            f"{', '.join(kin) or 'none'}. Minutes of a fit on one core: "
            + ", ".join(f"{variant} {value:.1f}" for variant, value in minutes.items())
            + f". Milliseconds of a request, one user with {CANDIDATES} candidates, on one core: "
            + ", ".join(f"{variant} {value:.2f}" for variant, value in requests.items())
            + "."
        ),
        command="python benchmarks/value_bottoms.py KUAIRAND-RUN",
    )


if __name__ == "__main__":
    main()
