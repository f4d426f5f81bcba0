"""How the offline commands speak to people: one console, lines that can be copied, next steps."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

console = Console()


def suggest(next_step: str) -> None:
    """Name the next command, unless a script already runs it (PENCHANT_SUGGEST=no)."""
    if os.environ.get("PENCHANT_SUGGEST") != "no":
        say(f"Next: {next_step}")


def say(what: object, style: str | None = None) -> None:
    """Print for people; a command stays on one line, so that it can be copied.

    what: text, taken literally (names may look like rich's markup), or anything that rich shows.
    """
    shown = Text(what) if isinstance(what, str) else what
    console.print(shown, style=style, highlight=False, soft_wrap=isinstance(what, str))


@contextmanager
def progress_bar(title: str) -> Iterator[Callable[[float, str], None]]:
    """A bar for one long job; yields progress(done 0..1, what is going on)."""
    with Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.fields[what]}", markup=False),
        TimeElapsedColumn(),
        console=console,
    ) as bar:
        task = bar.add_task(title, total=1.0, what="")

        def progress(done: float, what: str) -> None:
            bar.update(task, completed=done, what=what)

        yield progress
        bar.update(task, completed=1.0, what="done")


class _Speed(ProgressColumn):
    """Rows a second, over the last half minute or so."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.0f} rows/s" if speed else "")


@contextmanager
def rows_bar(title: str) -> Iterator[Callable[[int, int], None]]:
    """A bar for rows that are made; yields progress(rows done, rows in all).

    Rows that the first call counts as done were there before, and count for no speed.
    """
    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.completed:,.0f} of {task.total:,.0f}"),
        _Speed(),
        TimeRemainingColumn(),
        console=console,
    )

    def progress(done: int, total: int) -> None:
        if not bar.tasks:
            bar.add_task(title, total=total, completed=done)
            bar.start()
        bar.update(bar.tasks[0].id, completed=done)

    try:
        yield progress
    finally:
        if bar.tasks:
            bar.stop()
