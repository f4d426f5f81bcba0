"""`penchant import`: one subcommand a public dataset; each says which files it expects.

Only arguments, progress and printing; what is read and how is in training/importers/.
"""

from pathlib import Path
from typing import Annotated

import typer

from training.importers.writer import ImportReport
from training.terminal import console, say, suggest

importers = typer.Typer(
    help="Make a dataset out of a public one. Each subcommand says which files it expects.",
    no_args_is_help=True,
)

Out = Annotated[Path, typer.Argument(help="The dataset folder to make.")]


@importers.command()
def movielens(
    source: Annotated[
        Path,
        typer.Argument(
            help="The folder with ratings.dat (or the ordered sequences), movies.dat and users.dat."
        ),
    ],
    out: Out,
    max_users: Annotated[
        int | None, typer.Option(help="Take only the first so many users.")
    ] = None,
) -> None:
    """MovieLens-1M: the original layout with timestamps, or sequences in order without them.

    Example: penchant import movielens ml-1m data/ml-1m
    """
    from training.importers.movielens import import_movielens
    from training.report import progress_bar

    with progress_bar(console, "import") as progress:
        report = import_movielens(source, out, progress=progress, max_users=max_users)
    _tell(report)
    suggest(f"penchant train {out} --out RUN --recipe movielens")


def _tell(report: ImportReport) -> None:
    """What was written, and what was left out and why."""
    for title, counts in (("written", report.written), ("dropped", report.dropped)):
        for what, count in counts.items():
            say(f"{title:8s} {count:>12,} {what}")
    for note in report.notes:
        say(f"note     {note}")
    say(f"{report.out} is a dataset now.")
