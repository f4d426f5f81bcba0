"""`penchant train-value` and `penchant evaluate-value`: what a user will do at what is shown.

Only arguments, progress and printing; what is done is in training/value/.
"""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from model.errors import ConfigError
from training.terminal import progress_bar, say, suggest

Moved = Annotated[
    Path | None, typer.Option("--dataset", help="Where the dataset is now, if it moved.")
]


def train_value(
    run: Annotated[Path, typer.Argument(help="A run folder, made by `penchant train`.")],
    seed: Annotated[int | None, typer.Option(help="Another seed than the default.")] = None,
    epochs: Annotated[int | None, typer.Option(help="At most so many epochs.")] = None,
    max_history: Annotated[
        int | None, typer.Option(help="The most events of a history that are read, the newest.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the run's value model.")
    ] = False,
    dataset: Moved = None,
) -> None:
    """Train the value model on the frozen towers of a run, into RUN/value.

    It learns from the logged exposures of the validation part but its last day, and stops by that
    day. The towers must have been trained with --split time, or on a published split.

    Example: penchant train-value runs/my-shop
    """
    from training.memory import keep_freed_memory

    keep_freed_memory()  # before torch takes its first block
    from training.run import load_best, open_run
    from training.value.config import ValueRunConfig
    from training.value.report import heads_table
    from training.value.stored import REPORT, has_value
    from training.value.train import train_value as start

    given: dict[str, Any] = {"seed": seed, "epochs": epochs, "max_history": max_history}
    config = replace(
        ValueRunConfig(), **{name: value for name, value in given.items() if value is not None}
    )
    opened = open_run(run, dataset=dataset)
    if has_value(opened) and not overwrite:
        raise ConfigError(f"{run} has a value model already. Replace it with --overwrite.")
    model, _ = load_best(opened)
    try:
        with progress_bar("train-value") as progress:
            report = start(opened, model, config, progress=progress)
    except KeyboardInterrupt:
        say("Interrupted: no value model was written, and one that was there is as it was.")
        raise
    for note in report.notes:
        say(f"note: {note}", style="yellow")
    facts = report.value.facts
    fitted = facts["parts"]["fit"]
    say(
        f"{fitted['exposures']:,} exposures of {fitted['users']:,} users to fit; best epoch "
        f"{facts['best_epoch']}, {facts['seconds'] / 60:.1f} minutes"
    )
    say(heads_table(facts["choosing_day"], title="The choosing day"))
    say(f"JSON: {run / REPORT}")
    suggest(
        f"penchant evaluate-value {run}, or penchant export {run} --bundle BUNDLE "
        "--snapshot SNAPSHOT"
    )


def evaluate_value(
    run: Annotated[Path, typer.Argument(help="A run folder with a value model.")],
    dataset: Moved = None,
) -> None:
    """Judge the value model by the exposures of the test part, beside the order of retrieval.

    Read it once, when all choices are made. Intervals (95 %) are those of resampled users.

    Example: penchant evaluate-value runs/my-shop
    """
    from training.run import load_best, open_run
    from training.value.evaluate import evaluate_value as evaluate
    from training.value.evaluate import write_test
    from training.value.report import heads_table
    from training.value.stored import TEST, load_value

    opened = open_run(run, dataset=dataset)
    value = load_value(opened)
    model, _ = load_best(opened)
    with progress_bar("evaluate-value") as progress:
        found = evaluate(opened, model, value, progress=progress)
    write_test(opened, found)
    say(heads_table(found["heads"], title="The test part"))
    say(f"JSON: {run / TEST}")
