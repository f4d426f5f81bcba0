"""The offline commands: simulate, validate, train, export; the others are in *_cli.py.

Only arguments, progress and printing; what each command does is in the module it names. torch is
imported inside the commands that need it, so that `--help` is quick.
"""

import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from model.errors import ConfigError
from training.attribution_cli import attribute
from training.closed_loop_cli import run_loop
from training.embed_cli import embedders
from training.evaluate_cli import evaluate
from training.import_cli import importers
from training.inspect_cli import inspect
from training.loop_policies import ALONE, SERVED
from training.recipes import RECIPES, find_recipe
from training.settings import with_settings
from training.terminal import console, progress_bar, say, suggest
from training.value_cli import evaluate_value, train_value
from training.world.config import WorldConfig

_WORLD = WorldConfig()
_LOOP = "Closed loop"
app = typer.Typer(help="From logs to a bundle.", no_args_is_help=True, add_completion=False)
app.add_typer(importers, name="import")
app.add_typer(embedders, name="embed")
app.command()(attribute)
app.command()(evaluate)
app.command()(train_value)
app.command()(evaluate_value)
app.command()(inspect)


Dataset = Annotated[Path, typer.Argument(help="A dataset folder (docs/dataset.md).")]
RunFolder = Annotated[Path, typer.Argument(help="A run folder, made by `penchant train`.")]
Moved = Annotated[
    Path | None, typer.Option("--dataset", help="Where the dataset is now, if it moved.")
]
Device = Annotated[
    Literal["auto", "cpu", "cuda"], typer.Option(help="auto: CUDA where there is a GPU.")
]


@app.command()
def simulate(
    context: typer.Context,
    out: Annotated[
        Path, typer.Argument(help="The folder to make: a dataset, or with --policy a closed loop.")
    ],
    seed: Annotated[int, typer.Option(help="Another seed, another world.")] = _WORLD.seed,
    users: Annotated[int, typer.Option(help="How many people.")] = _WORLD.num_users,
    items: Annotated[int, typer.Option(help="How many items of all kinds.")] = _WORLD.num_items,
    days: Annotated[
        int, typer.Option(help="How many days of events; with --policy, before the loop.")
    ] = _WORLD.num_days,
    null: Annotated[
        bool, typer.Option("--null", help="The null world: no content causes any order.")
    ] = False,
    world: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=VALUE",
            help="Another value for a parameter of the world, such as taste=2 "
            "(training/world/config.py says what each does); repeat for several.",
        ),
    ] = None,
    policy: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Then let this policy fill the feeds, and measure what becomes of people, makers "
            f"and orders; repeat to compare. Without a server: "
            f"{', '.join(ALONE)}. Answered by a real one: {', '.join(SERVED)}.",
            rich_help_panel=_LOOP,
        ),
    ] = None,
    loop_days: Annotated[
        int, typer.Option(help="Days under each policy.", rich_help_panel=_LOOP)
    ] = 10,
    retrain_every: Annotated[
        int,
        typer.Option(
            help="Days after which a server exports its events, trains, and activates the new "
            "bundle; 0: never.",
            rich_help_panel=_LOOP,
        ),
    ] = 5,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="Another value for a field of the recipe with which servers train, such as "
            "epochs=6; repeat for several.",
            rich_help_panel=_LOOP,
        ),
    ] = None,
) -> None:
    """Make a dataset: a small synthetic interest economy, with what is really true beside it.

    With --policy, OUT becomes a closed loop (docs/closed-loop.md): a warm-up,
    then the same people on the same days under each policy. A policy that is
    done is kept: the same command after Ctrl-C, or with more policies, goes on.
    Most of the time is the training of server policies: begin with one, in a
    small world, and with --retrain-every 0.

    Example: penchant simulate demo-data/world --seed 7
    Example: penchant simulate loop --policy popularity --policy interest
    """
    config = replace(_WORLD, seed=seed, num_users=users, num_items=items, num_days=days)
    if null:
        config = replace(config, stirring=0.0)
    config = with_settings(config, world or (), option="--world")
    if policy:
        run_loop(
            config,
            out,
            policy,
            loop_days=loop_days,
            retrain_every=retrain_every,
            settings=settings or (),
            open_server=context.obj,
        )
        return
    if settings:
        raise ConfigError("--set is for the servers of a closed loop; give a --policy, too.")
    from training.world.simulate import simulate as run

    with progress_bar("simulate") as progress:
        run(config, out, progress=progress)
    say(f"{out} is a dataset now.")
    suggest(f"penchant train {out} --out RUN")


@app.command()
def validate(dataset: Dataset) -> None:
    """Check a dataset against its contract; the first fault is named by file, column and row.

    Example: penchant validate data/ml-1m
    """
    from training.validate import validate_dataset

    with progress_bar("validate") as progress:
        summary = validate_dataset(dataset, progress=progress)
    say(
        f"{summary.name}: {summary.num_users:,} users, {summary.num_items:,} items, "
        f"{summary.num_events:,} events, time = {summary.time!r}",
    )
    for name, count in summary.events_by_name.items():
        say(f"  {name:16s} {count:>12,}")
    for warning in summary.warnings:
        say(f"  note: {warning}", style="yellow")
    say("The dataset keeps its contract.")


@app.command()
def train(
    dataset: Dataset,
    out: Annotated[Path, typer.Option(help="The run folder to make.")],
    recipe: Annotated[str, typer.Option(help=f"One of: {', '.join(RECIPES)}.")] = "default",
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the run's last checkpoint.")
    ] = False,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="Another value for a field of the recipe, such as dim=128; repeat for several "
            "(docs/training.md lists them).",
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Another seed than the recipe's.")] = None,
    max_minutes: Annotated[
        float | None, typer.Option(help="Stop after the epoch in which this passes.")
    ] = None,
    split: Annotated[
        Literal["auto", "leave-one-out", "time", "published"] | None,
        typer.Option(help="What is held out; auto: the dataset's own split, else leave-one-out."),
    ] = None,
    holdout_days: Annotated[
        float | None, typer.Option(help="With --split time: days of test, and of validation.")
    ] = None,
    objectives: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="Heads that learn from the days ahead, in one bundle, chosen at each request: "
            "interest,direct (all that people do, with credit for the orders it stirred; orders "
            "alone). Needs --split time (docs/training.md).",
        ),
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(help="An event that validation and test ask for; repeat for several."),
    ] = None,
    seen: Annotated[
        Literal["filter", "converted", "keep"] | None,
        typer.Option(
            help="What ranked lists leave out: all of a history, what was bought, or nothing."
        ),
    ] = None,
    device: Device = "auto",
) -> None:
    """Train the two towers. Stops by itself when validation no longer improves.

    Example: penchant train data/ml-1m --out runs/ml-1m --recipe movielens
    Several processes: torchrun --nproc-per-node 2 -m training.cli train ...
    """
    from training.memory import keep_freed_memory

    keep_freed_memory()  # before torch takes its first block
    from training.distributed import join
    from training.report import RunReporter
    from training.run import LAST, refuse_folder, start_run
    from training.validate import validate_dataset

    given: dict[str, Any] = {
        "seed": seed,
        "max_minutes": max_minutes,
        "split": split,
        "holdout_days": holdout_days,
        "objectives": None if objectives is None else tuple(objectives.split(",")),
        "targets": tuple(target) if target else None,
        "seen": seen,
    }
    config = replace(
        with_settings(find_recipe(recipe), settings or ()),
        **{name: value for name, value in given.items() if value is not None},
    )
    rank = join(device)
    if rank.leads:
        refuse_folder(out, resume=resume)
    if rank.leads:
        with progress_bar("validate") as progress:
            validate_dataset(dataset, progress=progress)
    out.mkdir(parents=True, exist_ok=True)
    try:
        with RunReporter(
            out, epochs=config.epochs, console=console, quiet=not rank.leads
        ) as reporter:
            ended = start_run(dataset, out, config, rank=rank, reporter=reporter, resume=resume)
    except KeyboardInterrupt:
        if rank.leads and (out / LAST).exists():
            given_again = [word for word in sys.argv[1:] if word != "--resume"]
            again = shlex.join(["penchant", *given_again, "--resume"])
            say(f"Interrupted. The last whole epoch is kept; go on with: {again}")
        raise
    if rank.leads:
        say(
            f"best validation NDCG@10 {ended.best_score:.4f} at epoch {ended.best_epoch}, "
            f"{ended.seconds / 60:.1f} minutes. Curves: tensorboard --logdir {out}/tensorboard",
        )
        suggest(
            f"penchant evaluate {out}, or "
            f"penchant export {out} --bundle BUNDLE --snapshot SNAPSHOT",
        )
    rank.close()


@app.command()
def export(
    run: RunFolder,
    bundle: Annotated[Path, typer.Option(help="The bundle folder to make.")],
    snapshot: Annotated[Path, typer.Option(help="The snapshot folder to make.")],
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace folders that are there.")
    ] = False,
    previous: Annotated[
        Path | None,
        typer.Option(
            help="The bundle before, whose circles keep their ids where their items stay together "
            "(docs/circles.md). Without it: the bundle that --overwrite replaces, if there is one."
        ),
    ] = None,
    dataset: Moved = None,
) -> None:
    """Write what a server needs: the bundle (models, vectors, index) and the snapshot (users).

    Examples: penchant export runs/ml-1m --bundle out/bundle --snapshot out/snapshot
    and, a week later: penchant export runs/new --bundle out/new --snapshot out/new-users
    --previous out/bundle
    """
    from training.circles.previous import read_previous, replaced
    from training.export import export_run
    from training.index import sentence
    from training.run import load_best, open_run

    opened = open_run(run, dataset=dataset)
    model, _ = load_best(opened)
    before = replaced(bundle) if previous is None and overwrite else None
    if previous is not None:
        before = read_previous(previous)
    try:
        with progress_bar("export") as progress:
            report = export_run(
                opened,
                model,
                bundle=bundle,
                snapshot=snapshot,
                replace=overwrite,
                previous=before,
                progress=progress,
            )
    except KeyboardInterrupt:
        say("Interrupted: no bundle was written, and one that was there is as it was.")
        raise
    say(
        f"{report.num_active:,} items in the index ({report.num_items:,} in all), "
        f"{report.num_circles} circles in {report.num_districts} districts, "
        f"{report.num_users:,} users\n" + "\n".join(report.circles) + "\n"
        f"max abs error, ONNX against torch: user tower {report.user_tower_error:.1e}, "
        f"item tower {report.item_tower_error:.1e} (at most 1e-4 passes)\n"
        + (f"{report.value_errors.sentence()}\n" if report.value_errors else "")
        + sentence(report.index),
    )
    suggest(
        f"penchant load-users {snapshot} --state STATE, then penchant serve {bundle} --state STATE"
    )


if __name__ == "__main__":
    app()
