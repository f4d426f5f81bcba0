"""What is done with a state folder on the command line, also while it is served: export-events,
backup, restore."""

from pathlib import Path
from typing import Annotated

import typer

from model.errors import ConfigError

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
    state: State,
    trim: Annotated[
        bool,
        typer.Option("--trim", help="Delete from the state what the dataset has, once it is safe."),
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
    from serving.store.database import Database

    if part_rows < 1:
        raise ConfigError(f"part_rows = {part_rows} is not allowed; allowed: 1 or more")
    path = _store_of(state)
    with contextlib.closing(Database(path)) as database:
        done = export.export_events(database, out, part_rows=part_rows)
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
            num = export.trim_log(database, out)
            print(f"{num:,} events trimmed from {path}")


def _store_of(state: Path) -> Path:
    """The store of a state folder. Raises ConfigError where there is none."""
    from serving.store.base import store_path

    path = store_path(state)
    if not path.exists():
        raise ConfigError(f"there is no store in {state}; give the --state folder of a server")
    return path
