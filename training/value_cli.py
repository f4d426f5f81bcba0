"""`penchant train-value` and `penchant evaluate-value`: what a user will do at what is shown.

Only arguments, progress and printing; what is done is in training/value/.
"""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from model.config import require
from model.errors import ConfigError
from training.terminal import progress_bar, say, suggest

Moved = Annotated[
    Path | None, typer.Option("--dataset", help="Where the dataset is now, if it moved.")
]


def train_value(
    run: Annotated[Path, typer.Argument(help="A run folder, made by `penchant train`.")],
    candidates: Annotated[
        int | None,
        typer.Option(
            help="Learn from so many candidates of retrieval a user, and what the user engaged "
            "with, instead of exposures."
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Another seed than the default.")] = None,
    epochs: Annotated[int | None, typer.Option(help="At most so many epochs.")] = None,
    max_history: Annotated[
        int | None, typer.Option(help="The most events of a history that are read, the newest.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="Any other setting (docs/value-model.md), such as bottom=ple. May be repeated.",
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the run's value model.")
    ] = False,
    dataset: Moved = None,
) -> None:
    """Train the value model on the frozen towers of a run, into RUN/value.

    It learns from the logged exposures of the validation part but its last day, and stops by that
    day. The towers must have been trained with --split time, or on a published split.

    With --candidates it learns from what might have been shown: for each user whom validation asks,
    the best of retrieval and what the user engaged with and did not convert on. Nothing needs to be
    logged, any split will do, and a fifth of the users say when to stop.

    Example: penchant train-value runs/my-shop --set bottom=ple
    Or: penchant train-value runs/my-shop --candidates 100
    """
    from training.memory import keep_freed_memory

    keep_freed_memory()  # before torch takes its first block
    from training.run import load_best, open_run
    from training.settings import with_settings
    from training.value.config import ValueRunConfig
    from training.value.report import heads_table
    from training.value.stored import REPORT, has_value
    from training.value.train import train_value as start

    if candidates is not None:
        require(candidates >= 1, "--candidates", candidates, "1 or more")
    given: dict[str, Any] = {
        "candidates": candidates,
        "seed": seed,
        "epochs": epochs,
        "max_history": max_history,
    }
    config = replace(
        ValueRunConfig(), **{name: value for name, value in given.items() if value is not None}
    )
    config = with_settings(config, settings or ())
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
    fitted, kind = facts["parts"]["fit"], "candidates" if candidates else "exposures"
    say(
        f"{fitted[kind]:,} {kind} of {fitted['users']:,} users to fit; best epoch "
        f"{facts['best_epoch']}, {facts['seconds'] / 60:.1f} minutes"
    )
    if candidates:
        say(
            f"what validation asks for is among the candidates of {_share(fitted):.1%} of these, "
            f"and of {_share(facts['parts']['choose']):.1%} of the users who choose"
        )
    title = "The users who choose" if candidates else "The choosing day"
    say(heads_table(facts["choosing_day"], title=title))
    say(f"JSON: {run / REPORT}")
    judge = "evaluate" if candidates else "evaluate-value"
    suggest(f"penchant {judge} {run}, or penchant export {run} --bundle BUNDLE --snapshot SNAPSHOT")


def _share(part: dict[str, Any]) -> float:
    """Of how many users the answer is among the candidates."""
    return float(part["users_whose_answer_is_among_them"] / part["users"])


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
    for way, heads in found["shown_as"].items():
        say(heads_table(heads, title=f"What was shown as {way} alone"))
    say(f"JSON: {run / TEST}")
