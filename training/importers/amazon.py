"""Amazon reviews become a dataset: which of the published layouts lies there, and one entry.

The reviews themselves (2014, 2018, 2023) are read by `amazon_reviews.py`, the sequence files that
papers on sequential recommendation share by `amazon_sequences.py`.
"""

from pathlib import Path
from typing import Literal

from model.errors import ConfigError, DatasetError
from training.importers.amazon_reviews import find_reviews, import_reviews
from training.importers.amazon_sequences import find_sequences, import_sequences
from training.importers.writer import ImportReport, Progress, refuse_taken


def import_amazon(
    source: Path,
    out: Path,
    *,
    time: Literal["order", "day"] | None = None,
    min_events: int | None = None,
    progress: Progress | None = None,
) -> ImportReport:
    """Write one category of Amazon reviews from `source` as a dataset under `out`.

    source: a folder with the files of one category, or the file of reviews or sequences itself.
    time: for sequence files alone: "order" (default) keeps every event, "day" those with a day.
    min_events: for reviews alone: drop users and items with fewer, until none has (k-core).
    progress: called with a fraction from 0 to 1 and what is being done.

    Raises DatasetError if no layout is there, a line is malformed (naming file and line), or `out`
    is taken; ConfigError for an option that the layout does not have. `out` appears whole or not.
    """
    refuse_taken(out)  # before minutes of reading, not after
    tell = progress or (lambda fraction, message: None)
    sequences = find_sequences(source)
    if sequences is not None:
        if min_events is not None:
            raise ConfigError(
                f"min_events is {min_events}, but {sequences.name} holds sequences that were "
                "filtered when they were made; leave it out"
            )
        return import_sequences(sequences, out, time=time or "order", progress=tell)
    reviews = find_reviews(source)
    if reviews is not None:
        if time is not None:
            raise ConfigError(
                f"time is {time!r}, but {reviews.name} has a time for each review; leave it out "
                "(it is for sequence files, where some events have none)"
            )
        if min_events is not None and min_events < 1:
            raise ConfigError(f"min_events is {min_events}; it must be 1 or more, or left out")
        return import_reviews(reviews, out, min_events=min_events or 1, progress=tell)
    raise DatasetError(
        "no layout of Amazon reviews is here."
        if source.exists()
        else "there is no such file or folder.",
        file=str(source),
        remedy="Expected is one of: reviews_Beauty_5.json.gz or ratings_Beauty.csv of 2014, "
        "Beauty_5.json.gz or Beauty.csv of 2018, All_Beauty.jsonl.gz or All_Beauty.csv.gz of 2023, "
        "each with its meta_ file beside it (any category; "
        "https://amazon-reviews-2023.github.io links to all three releases); or sequence files: "
        "sequences_s3rec.txt, or Beauty.txt beside Beauty_item2attributes.json "
        "(https://github.com/aHuiWang/CIKM2020-S3Rec).",
    )
