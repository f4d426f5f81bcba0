"""`penchant evaluate`: how good are the towers, beside the baselines, and is one run better?

Only arguments, progress and printing; what is measured and how is in training/evaluate.py,
training/splits.py and training/compare.py.
"""

from pathlib import Path
from typing import Annotated, Literal

import typer

from model.config import require
from model.errors import ConfigError
from training.terminal import progress_bar, say, suggest

BASELINES = "popularity, recency, item-knn, title-knn, als, relisting"


def evaluate(
    runs: Annotated[
        list[Path],
        typer.Argument(help="A run folder, made by `penchant train`; two with --compare."),
    ],
    compare: Annotated[
        bool,
        typer.Option("--compare", help="Compare the results of two evaluated runs, user by user."),
    ] = False,
    part: Annotated[
        Literal["test", "validation"], typer.Option(help="Which held-out part to ask for.")
    ] = "test",
    k: Annotated[list[int], typer.Option("--k", help="Cut-offs; repeat for several.")] = [10, 50],  # noqa: B006
    baseline: Annotated[
        list[str],
        typer.Option(
            "--baseline",
            help=f"Beside the towers: all, none, or some of {BASELINES}; repeat for several.",
        ),
    ] = ["all"],  # noqa: B006
    seen: Annotated[
        Literal["filter", "converted", "keep"] | None,
        typer.Option(
            help="What lists leave out: filter (all of a user's history), converted (what the user "
            "bought) or keep (nothing). As the run was trained if not given."
        ),
    ] = None,
    sample: Annotated[
        int | None,
        typer.Option(help="At most so many users, the same for every run; large logs need fewer."),
    ] = None,
    html: Annotated[
        Path | None, typer.Option(help="Where the page with plots goes; default RUN/PART.html.")
    ] = None,
    dataset: Annotated[
        Path | None, typer.Option("--dataset", help="Where the dataset is now, if it moved.")
    ] = None,
) -> None:
    """Rank the whole catalogue for every held-out user; baselines stand beside the towers.

    Where the run has a value model that learned from candidates, it ranks what the towers retrieve
    and what the user engaged with: the test table's first row, "towers + value model".

    Example: penchant evaluate runs/ml-1m --k 10 --k 50
    Then: penchant evaluate --compare runs/ml-1m runs/ml-1m-before
    """
    if compare:
        _compare(runs, part)
        return
    if len(runs) != 1:
        raise ConfigError(f"{len(runs)} runs were named; name one, or two with --compare.")
    for cut_off in k:
        require(cut_off >= 1, "--k", cut_off, "1 or more")
    require(sample is None or sample >= 1, "--sample", sample, "1 or more")
    from training.baselines import BASELINES
    from training.dataset import load_user_ids
    from training.evaluate import evaluate_run, write_evaluation
    from training.evaluation_report import evaluation_page, evaluation_tables
    from training.html import write_page
    from training.run import load_best, open_run
    from training.value.ranker import reranker_of

    run = runs[0]
    if html is not None:
        html.parent.mkdir(parents=True, exist_ok=True)  # now rather than after minutes of ranking
    names = [name for name in dict.fromkeys(baseline) if name != "none"]
    names = list(BASELINES) if "all" in names else names
    opened = open_run(run, dataset=dataset)
    model, _ = load_best(opened)
    with progress_bar("evaluate") as progress:
        found = evaluate_run(
            opened,
            model,
            part=part,
            ks=k,
            seen=seen,
            baselines=names,
            sample=sample,
            # Validation's answers are what it was fitted to.
            reranker=reranker_of(opened) if part == "test" else None,
            progress=progress,
        )
    result = run / f"{part}.json"
    write_evaluation(
        found,
        result,
        user_ids=load_user_ids(opened.arrays),
        item_ids=opened.read_items()["item_id"],
    )
    for table in evaluation_tables(found):
        say(table)
    for name, reason in found.protocol["not_allowed"].items():
        say(f"no {name}: {reason}", style="yellow")
    page = html or run / f"{part}.html"
    write_page(evaluation_page(found, title=f"{opened.data.schema.name}: {run.name}"), page)
    say(f"JSON: {result}   users: {result.with_suffix('.parquet')}   page: {page}")
    suggest(f"penchant evaluate --compare {run} ANOTHER-RUN")


def _compare(runs: list[Path], part: str) -> None:
    from training.compare import compare_results
    from training.evaluation_report import comparison_table

    if len(runs) != 2:
        raise ConfigError(f"--compare takes two runs, and {len(runs)} were named.")
    candidate, reference = runs
    found = compare_results(candidate / f"{part}.json", reference / f"{part}.json")
    say(comparison_table(found, candidate=str(candidate), reference=str(reference)))
