"""`penchant embed`: the vectors of all items or users, to Parquet.

Only arguments, progress and printing; what is done is in training/embed_files.py.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from model.errors import ConfigError
from training.terminal import rows_bar, say

if TYPE_CHECKING:
    from training.embed_files import Embedded

embedders = typer.Typer(
    help="Write the vectors of all items or all users to Parquet, with every core. Goes on where "
    "it was interrupted.",
    no_args_is_help=True,
)

BundleFolder = Annotated[Path, typer.Argument(help="A bundle, made by `penchant export`.")]
Out = Annotated[Path, typer.Option(help="The folder for part-*.parquet and manifest.json.")]
Workers = Annotated[
    int | None, typer.Option(min=1, help="Processes; as many as there are cores if left out.")
]
PartRows = Annotated[
    int | None,
    typer.Option(min=1, help="Rows of one Parquet file; a 64th of the table if left out."),
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Remove the embeddings that are there; begin anew.")
]


@embedders.command()
def items(
    bundle: BundleFolder,
    dataset: Annotated[Path, typer.Option(help="The dataset whose items.parquet is embedded.")],
    out: Out,
    workers: Workers = None,
    part_rows: PartRows = None,
    overwrite: Overwrite = False,
) -> None:
    """The vector of every item of a dataset, items that the bundle does not have included.

    Example: penchant embed items out/bundle --dataset data/my-shop --out out/items
    """
    from training.embed_files import embed_items

    with _bar(out) as progress:
        done = embed_items(
            bundle,
            dataset,
            out,
            workers=workers,
            part_rows=part_rows,
            overwrite=overwrite,
            progress=progress,
        )
    _tell(done, out, "items")


@embedders.command()
def users(
    bundle: BundleFolder,
    snapshot: Annotated[Path, typer.Option(help="The snapshot whose users are embedded.")],
    out: Out,
    at: Annotated[
        str | None,
        typer.Option(
            help="As at this time (ISO 8601, UTC unless it says otherwise): later events do not "
            "count. The time of the snapshot's last event if left out."
        ),
    ] = None,
    objective: Annotated[
        str | None, typer.Option(help="One of the bundle's objectives; its first if left out.")
    ] = None,
    workers: Workers = None,
    part_rows: PartRows = None,
    overwrite: Overwrite = False,
) -> None:
    """The interests of every user of a snapshot, as a request at one moment would have them.

    Example: penchant embed users out/bundle --snapshot out/snapshot --out out/users
    """
    from training.embed_files import embed_users

    with _bar(out) as progress:
        done = embed_users(
            bundle,
            snapshot,
            out,
            at=_moment(at),
            objective=objective,
            workers=workers,
            part_rows=part_rows,
            overwrite=overwrite,
            progress=progress,
        )
    _tell(done, out, "users")


@contextmanager
def _bar(out: Path) -> Iterator[Callable[[int, int], None]]:
    """A progress bar; Ctrl-C says how to go on."""
    from training.parts import command_to_finish

    try:
        with rows_bar("embed") as progress:
            yield progress
    except KeyboardInterrupt:
        command = command_to_finish(out)
        if command is not None:
            say(f"Interrupted. The parts that are written are kept; go on with: {command}")
        raise


def _moment(at: str | None) -> datetime | None:
    """The time that --at names."""
    if at is None:
        return None
    try:
        moment = datetime.fromisoformat(at)
    except ValueError:
        raise ConfigError(
            f"--at: {at!r} is no time; write one such as 2026-03-31 or 2026-03-31T20:15:00+08:00."
        ) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _tell(done: "Embedded", out: Path, what: str) -> None:
    """What was written, and what may be a mistake."""
    for note in done.notes:
        say(f"note: {note}", style="yellow")
    if done.written is None:
        say(f"{out} is finished already; nothing was done. --overwrite begins anew.")
        return
    num_rows, kept, seconds = done.written.num_rows, done.written.num_kept, done.written.seconds
    before = f", {kept:,} of them by an earlier run" if kept else ""
    say(
        f"{num_rows:,} {what} in {out}{before}; {(num_rows - kept) / seconds:,.0f} a second. "
        f"Read them with: polars.read_parquet('{out}/part-*.parquet')"
    )
