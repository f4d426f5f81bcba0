"""`penchant inspect`: what a dataset holds and what is odd about it.

Only arguments, progress and printing; what is counted and looked for is in training/inspection/.
"""

from pathlib import Path
from typing import Annotated

import typer

from training.terminal import console, progress_bar, say, suggest


def inspect(
    dataset: Annotated[Path, typer.Argument(help="A dataset folder (docs/dataset.md).")],
    html: Annotated[
        Path | None, typer.Option(help="Write a page with plots to this file as well.")
    ] = None,
) -> None:
    """Tell what a dataset holds, and what of it is suspicious: where, how much, what to do.

    Example: penchant inspect data/my-shop --html inspect.html
    """
    from training.inspection.dataset import inspect_dataset
    from training.inspection.report import report

    if html is not None:
        html.parent.mkdir(parents=True, exist_ok=True)  # now rather than after minutes of reading
    with progress_bar("inspect") as progress:
        found = inspect_dataset(dataset, progress=progress)
    for part in report(found):
        console.print(part)
    if html is None:
        suggest(f"penchant inspect {dataset} --html FILE, for the same with plots")
        return
    from training.html import write_page
    from training.inspection.page import inspection_page

    write_page(inspection_page(found), html)
    say(f"Page: {html}")
