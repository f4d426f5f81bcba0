"""`penchant import`: your own tables, or a public dataset; each subcommand says what it expects.

Only arguments, progress and printing; what is read and how is in training/importers/.
"""

import shlex
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

import typer

from training.importers.writer import ImportReport
from training.terminal import progress_bar, say, suggest

importers = typer.Typer(
    help="Make a dataset out of your own tables, or of a public one. Each subcommand says which "
    "files it expects.",
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

    with progress_bar("import") as progress:
        report = import_movielens(source, out, progress=progress, max_users=max_users)
    _tell(report)
    suggest(f"penchant train {out} --out RUN --recipe movielens")


@importers.command()
def kuairand(
    source: Annotated[
        Path,
        typer.Argument(help="The folder of KuaiRand-Pure, -1K or -27K, or its folder data."),
    ],
    out: Out,
) -> None:
    """KuaiRand: short videos as they were shown; clicks, long views, likes.

    Get a release from https://zenodo.org/records/10439422 and unpack it.
    Read are log_standard_*.csv, log_random_*.csv, user_features_*.csv and
    video_features_basic_*.csv. Each exposure becomes an event show, or
    random_show where the video was put in at random, and one more event for
    each thing that the user did at it.

    The partial layout is read too: train_user_sequences_last50.tsv,
    events_val.tsv, events_test.tsv, items.tsv and users.csv.

    Example: penchant import kuairand KuaiRand-Pure data/kuairand-pure
    """
    from training.importers.kuairand import import_kuairand

    with progress_bar("import") as progress:
        report = import_kuairand(source, out, progress=progress)
    _tell(report)
    suggest(f"penchant train {shlex.quote(str(out))} --out RUN")


@importers.command()
def taobao(
    source: Annotated[Path, typer.Argument(help="The folder with UserBehavior.csv.")],
    out: Out,
    first_day: Annotated[
        datetime,
        typer.Option(
            formats=["%Y-%m-%d"],
            help="Drop what was before this day, in China.",
            show_default="2017-11-25",
        ),
    ] = datetime(2017, 11, 25),
    last_day: Annotated[
        datetime,
        typer.Option(
            formats=["%Y-%m-%d"],
            help="Drop what was after this day, in China.",
            show_default="2017-12-03",
        ),
    ] = datetime(2017, 12, 3),
) -> None:
    """Taobao UserBehavior: views, carts, favourites, purchases of nine days.

    Get UserBehavior.csv.zip from https://tianchi.aliyun.com/dataset/649 and
    unpack it (3.6 GB, 100 million lines; they are streamed). Lines outside
    the nine days that the release covers are dropped and counted.

    The layout with held-out purchases is read too: interactions.tsv with
    test_buy.tsv.

    Example: penchant import taobao UserBehavior data/taobao
    """
    from training.importers.taobao import import_taobao

    with progress_bar("import") as progress:
        report = import_taobao(
            source,
            out,
            progress=progress,
            first_day=first_day.date(),
            last_day=last_day.date(),
        )
    _tell(report)
    suggest(f"penchant train {shlex.quote(str(out))} --out RUN")


@importers.command()
def mule(
    source: Annotated[
        Path,
        typer.Argument(help="The folder with view, cart, train, valid and test pairs."),
    ],
    out: Out,
) -> None:
    """MULE's Taobao split: who viewed, carted and bought what; no times.

    Get https://github.com/geonwooko/MULE: its folder data/taobao has
    view.txt, cart.txt, train.txt, valid.txt and test.txt. The same pairs as
    view.tsv, cart.tsv, buy_train.tsv, buy_valid.tsv and buy_test.tsv are
    read too. The published split is kept; purchases that it holds out are
    taken out of its training part, where they were left in.

    Example: penchant import mule MULE/data/taobao data/taobao-mule
    """
    from training.importers.mule import import_mule

    with progress_bar("import") as progress:
        report = import_mule(source, out, progress=progress)
    _tell(report)
    suggest(f"penchant train {shlex.quote(str(out))} --out RUN")


@importers.command()
def retailrocket(
    source: Annotated[Path, typer.Argument(help="The folder with events.csv.")],
    out: Out,
) -> None:
    """Retailrocket: views, carts and purchases of a web shop, with times.

    Get https://www.kaggle.com/datasets/retailrocket/ecommerce-dataset and
    unpack it. Read are events.csv, item_properties_part1.csv,
    item_properties_part2.csv and category_tree.csv.

    The layout with held-out purchases is read too: interactions.tsv with
    test_buy.tsv.

    Example: penchant import retailrocket retailrocket data/retailrocket
    """
    from training.importers.retailrocket import import_retailrocket

    with progress_bar("import") as progress:
        report = import_retailrocket(source, out, progress=progress)
    _tell(report)
    suggest(f"penchant train {shlex.quote(str(out))} --out RUN")


@importers.command()
def amazon(
    source: Annotated[
        Path,
        typer.Argument(help="The folder with the files of one category, or the file of reviews."),
    ],
    out: Out,
    time: Annotated[
        Literal["order", "day"] | None,
        typer.Option(
            help="Sequence files alone: 'order' keeps every event, 'day' those whose day is known, "
            "which splits by time need.",
            show_default="order",
        ),
    ] = None,
    min_events: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Reviews alone: drop users and items with fewer reviews, until none has (k-core).",
        ),
    ] = None,
) -> None:
    """Amazon reviews of 2014, 2018 or 2023, or the sequence files of papers.

    Get one category's reviews and its meta_ file, as they are (gzip), from
    https://amazon-reviews-2023.github.io, which links to the older releases:
    reviews_Beauty_5.json.gz (2014), Beauty_5.json.gz (2018) or
    All_Beauty.jsonl.gz (2023); the CSV files of ratings alone will do, too.
    Times are days up to 2018 and milliseconds in 2023.

    Sequence files are sequences_s3rec.txt, or Beauty.txt beside
    Beauty_item2attributes.json; interactions.tsv and items.tsv add days,
    titles and ASINs. They keep the order that papers split by.

    Example: penchant import amazon amazon-beauty data/beauty
    """
    from training.importers.amazon import import_amazon

    with progress_bar("import") as progress:
        report = import_amazon(source, out, time=time, min_events=min_events, progress=progress)
    _tell(report)
    suggest(f"penchant train {out} --out RUN")


@importers.command()
def microlens(
    source: Annotated[Path, typer.Argument(help="The folder with the pairs and the titles.")],
    out: Out,
) -> None:
    """MicroLens (50k, 100k, 1M): short videos, with their titles.

    Get MicroLens-100k_pairs.csv and MicroLens-100k_title_en.csv (or another
    size's) from https://recsys.westlake.edu.cn/, and tags_to_summary.csv for
    categories. MicroLens-100k_pairs.tsv will do in place of the pairs with
    times: then the order alone is known.

    Example: penchant import microlens MicroLens-100k-Dataset data/microlens
    """
    from training.importers.microlens import import_microlens

    with progress_bar("import") as progress:
        report = import_microlens(source, out, progress=progress)
    _tell(report)
    suggest(f"penchant train {out} --out RUN")


def _print_example(asked: bool) -> None:
    if asked:
        from training.importers.map_file import EXAMPLE

        typer.echo(EXAMPLE.read_text(encoding="utf-8"), nl=False)
        raise typer.Exit


@importers.command()
def table(
    map_file: Annotated[
        Path, typer.Argument(metavar="MAP.toml", help="The column map; --example prints one.")
    ],
    out: Out,
    example: Annotated[
        bool,
        typer.Option(
            "--example",
            help="Print a map with every field explained, to save and edit; then stop.",
            callback=_print_example,
            is_eager=True,
        ),
    ] = False,
) -> None:
    """Your own tables: CSV, TSV, Parquet or JSON lines, by a column map.

    The map says where events, items, users and links lie, which column is
    which, how times are written, and what becomes of rows that do not fit.
    Whatever it does not say is refused, with file and line; no time is made up.

    First:   penchant import table --example > shop.toml
    Then:    penchant import table shop.toml data/shop
    """
    from training.importers.tables import import_table

    with progress_bar("import") as progress:
        report = import_table(map_file, out, progress=progress)
    _tell(report)
    suggest(f"penchant train {out} --out RUN")


def _tell(report: ImportReport) -> None:
    """What was written, and what was left out and why."""
    for title, counts in (("written", report.written), ("dropped", report.dropped)):
        for what, count in counts.items():
            say(f"{title:8s} {count:>12,} {what}")
    for note in (*report.notes, *report.summary.warnings):
        say(f"note     {note}")
    say(f"{report.out} is a dataset now.")
