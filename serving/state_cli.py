"""What is done with a state folder on the command line, also while it is served: export-events,
backup, restore."""

from pathlib import Path
from typing import Annotated

import typer

from model.errors import ConfigError
from serving.cli import Store, required_state
from serving.store.base import SQLITE

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)

State = Annotated[Path, typer.Option(help="Folder of live state; a server may be running on it.")]


@app.callback()
def commands() -> None:
    """Export, back up and restore a state folder."""


@app.command("export-events")
def export_events(
    out: Annotated[
        Path,
        typer.Argument(help="A dataset folder to add to, or a new folder for events/ alone."),
    ],
    state: Annotated[
        Path | None,
        typer.Option(
            help="Folder of live state; a server may be running on it. Not needed with a shared "
            "--store."
        ),
    ] = None,
    store: Store = SQLITE,
    trim: Annotated[
        bool,
        typer.Option("--trim", help="Delete from the store what the dataset has, once it is safe."),
    ] = False,
    part_rows: Annotated[int, typer.Option(help="Events of one partition at most.")] = 1_000_000,
) -> None:
    """Write the events that servers were told as partitions of a dataset: events/part-live-*.

    The next run goes on where the last one stopped, and one that was killed is taken up by the
    next: nothing is lost, nothing comes twice. Then [bold]penchant train[/bold] the dataset.

    Example: [bold]penchant export-events data/shop --state state[/bold]
    """
    import contextlib

    from serving.store import export
    from serving.store.choice import open_store
    from serving.store.database import Database

    if part_rows < 1:
        raise ConfigError(f"part_rows = {part_rows} is not allowed; allowed: 1 or more")
    opened = open_store(store, lambda: Database(_store_of(required_state(state))), allows_loss=True)
    with contextlib.closing(opened):
        done = export.export_events(opened.events, out, part_rows=part_rows)
        print(
            f"{done.num_events:,} events in {done.num_parts:,} new partitions of {out / 'events'}"
        )
        for name, num in done.left_out.items():
            print(f"Left out: {num:,} values of {name}; this dataset has no such column.")
        if done.num_foreign:
            print(
                f"{done.num_foreign:,} events name an item that items.parquet lacks: add it "
                "there before you train."
            )
        if trim and done.left_out:
            raise ConfigError(
                "--trim would lose what was left out; export once more into a new folder"
            )
        if trim:
            num = export.trim_log(opened.events, out)
            print(f"{num:,} events trimmed from {opened.name}")


@app.command()
def backup(
    out: Annotated[Path, typer.Argument(help="The folder to make; it must not exist yet.")],
    state: State,
) -> None:
    """Copy the state of one moment into a folder, checked and with its checksum.

    A store in Redis is not in the state folder: back it up by its own means (docs/live.md).
    Servers may go on writing meanwhile. The folder appears whole or not at all.

    Example: [bold]penchant backup backups/monday --state state[/bold]
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    from serving.store.backup import back_up

    bar = Progress(
        TextColumn("copying"), BarColumn(), TimeRemainingColumn(), console=Console(stderr=True)
    )
    with bar:
        task = bar.add_task("", total=None)
        made = back_up(
            state, out, progress=lambda done, total: bar.update(task, completed=done, total=total)
        )
    print(
        f"{made.num_users:,} users, {made.num_items:,} live items and {made.num_logged:,} events "
        f"to export, {made.num_bytes / 1e6:,.1f} MB, in {out}"
    )


@app.command()
def restore(
    backup: Annotated[Path, typer.Argument(help="A folder that penchant backup made.")],
    state: Annotated[Path, typer.Option(help="The state folder to make; no server runs on it.")],
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the state that is there.")
    ] = False,
) -> None:
    """Make a state folder of a backup, after verifying it.

    Who was deleted after the backup was made is there again: delete them again.

    Example: [bold]penchant restore backups/monday --state state[/bold]
    """
    from serving.store import backup as backups

    made = backups.restore(backup, state, overwrite=overwrite)
    print(
        f"{made.num_users:,} users and {made.num_items:,} live items as of "
        f"{made.created:%Y-%m-%d %H:%M} UTC, in {state}"
    )


def _store_of(state: Path) -> Path:
    """The store of a state folder. Raises ConfigError where there is none."""
    from serving.store.base import store_path

    path = store_path(state)
    if not path.exists():
        raise ConfigError(f"there is no store in {state}; give the --state folder of a server")
    return path
