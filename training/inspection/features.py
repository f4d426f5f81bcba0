"""What the feature columns of items and users hold: how much is missing, what is frequent.

One column at a time. Knows the types of features (docs/dataset.md) and no events.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from model.schema import Feature, FeatureType
from training.inspection.distribution import distribution
from training.inspection.findings import Finding, named

MOSTLY = 0.5
"""A feature is mostly missing where more than this share of its cells is unknown."""
DOMINANT = 0.95
"""One value dominates where more than this share of the known cells has it."""
FEW_CELLS = 20
"""So few known cells dominate nothing."""
STAND_INS = ("nan", "none", "null", "n/a", "<na>", "nil", "undefined", "unknown")
"""Words, in lower case, that stand for an unknown value where null should."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureFigures:
    """One column of items.parquet or users.parquet."""

    file: str
    name: str
    type: FeatureType
    num_rows: int
    num_missing: int
    """Null, an empty list or an empty text."""
    kinds: tuple[str, ...]
    """The kinds of items of which any has it; empty for features of users."""
    num_rows_of_kinds: int
    """Rows of those kinds; all rows for features of users."""
    num_distinct: int | None = None
    """For categories and texts."""
    top: str | None = None
    top_share: float = 0.0
    """The most frequent value, and the share of cells that have it, of those that are known."""
    low: float | None = None
    median: float | None = None
    high: float | None = None
    """For numbers."""


def inspect_features(
    path: Path, features: Mapping[str, Feature]
) -> tuple[list[FeatureFigures], list[Finding]]:
    """Look at each declared feature of one file.

    path: items.parquet or users.parquet; where there is no such file, there is nothing to say.
    """
    if not path.exists():
        return [], []
    table = pl.scan_parquet(path, glob=False)
    figures, findings = [], list[Finding]()
    for name, feature in features.items():
        found = _look(table, path.name, name, feature)
        figures.append(found)
        findings += _suspicious(table, found)
    return figures, [*findings, *_dominated(figures)]


def _dominated(figures: Sequence[FeatureFigures]) -> Iterator[Finding]:
    """Features that tell nothing, because nearly every row has the same."""
    same = [
        f
        for f in figures
        if f.type in ("category", "categories")
        and f.num_rows - f.num_missing >= FEW_CELLS
        and f.top_share > DOMINANT
    ]
    if same:
        first, num_known = same[0], same[0].num_rows - same[0].num_missing
        yield Finding(
            what=f"Features with one value nearly everywhere: {named([f.name for f in same])}",
            count=len(same),
            total=len(figures),
            unit=f"features of {first.file}",
            example=f"{first.name!r} is {first.top!r:.60} in "
            f"{round(first.top_share * num_known):,} of {num_known:,} known cells",
            remedy="They tell nothing apart. If the value stands for unknown, write null; "
            "otherwise such a feature may go.",
        )


def _look(table: pl.LazyFrame, file: str, name: str, feature: Feature) -> FeatureFigures:
    is_missing = _is_missing(name, feature.type)
    kind = pl.col("kind") if file == "items.parquet" else pl.lit("")
    by_kind = (
        table.select(kind.alias("kind"), is_missing.alias("missing"))
        .group_by("kind")
        .agg(rows=pl.len(), missing=pl.col("missing").sum())
        .collect(engine="streaming")
        .sort("rows", "kind", descending=[True, False])
    )
    having = by_kind.filter(pl.col("missing") < pl.col("rows"))
    figures = FeatureFigures(
        file=file,
        name=name,
        type=feature.type,
        num_rows=int(by_kind["rows"].sum()),
        num_missing=int(by_kind["missing"].sum()),
        kinds=tuple(kind for kind in having["kind"] if kind),
        num_rows_of_kinds=int(having["rows"].sum()),
    )
    known = table.filter(~is_missing).select(pl.col(name).alias("cell"))
    match feature.type:
        case "number":
            numbers = distribution(known.collect(engine="streaming")["cell"])
            low, median, high = (numbers.quantile(share) for share in (0, 0.5, 1))
            return replace(figures, low=low, median=median, high=high) if numbers.num else figures
        case "categories":
            known = known.select(pl.col("cell").list.unique().explode())
        case "vector":
            return figures
        case "category" | "text":
            pass
    values = known.group_by("cell").agg(n=pl.len())
    num, most = values.select(pl.len(), pl.col("n").max()).collect(engine="streaming").row(0)
    if not num:
        return replace(figures, num_distinct=0)
    top = values.filter(pl.col("n") == most).select(pl.col("cell").min())
    return replace(
        figures,
        num_distinct=num,
        top=top.collect(engine="streaming").item(),
        top_share=most / (figures.num_rows - figures.num_missing),
    )


def _is_missing(name: str, type: FeatureType) -> pl.Expr:
    column = pl.col(name)
    match type:
        case "categories":
            return column.list.len() == 0
        case "text":
            return column.is_null() | (column.str.strip_chars() == "")
        case "category" | "number" | "vector":
            return column.is_null()


def _suspicious(table: pl.LazyFrame, figures: FeatureFigures) -> Iterator[Finding]:
    file, name = figures.file, figures.name
    unit, owner = ("users", "user_id") if file == "users.parquet" else ("items", "item_id")
    num_known = figures.num_rows - figures.num_missing
    place = f"{file}, column {name!r}"
    if not num_known:
        yield Finding(
            what=f"No row has the feature {name!r}",
            count=figures.num_rows,
            total=figures.num_rows,
            unit=unit,
            example=place,
            remedy="Fill the column, or take it out of dataset.toml and of the file.",
        )
        return
    # What is missing for a whole kind is so by nature: a video has no price.
    num_lacking = figures.num_rows_of_kinds - num_known
    if num_lacking > MOSTLY * figures.num_rows_of_kinds:
        some_kinds = figures.num_rows_of_kinds < figures.num_rows
        of_kinds = f" in {', '.join(figures.kinds)}, which alone have it" if some_kinds else ""
        lacking = _rows_lacking(table, figures).select(owner).head(3)
        first = lacking.collect(engine="streaming")[owner].to_list()
        yield Finding(
            what=f"The feature {name!r} is mostly missing{of_kinds}",
            count=num_lacking,
            total=figures.num_rows_of_kinds,
            unit=unit,
            example=f"{place}: {named(first)}",
            remedy="Look whether a join lost them. What is rarely known teaches little, and "
            "nothing about those that lack it.",
        )
    if figures.type in ("category", "text"):
        stands_in = pl.col(name).str.strip_chars().str.to_lowercase().is_in(STAND_INS)
        found = table.filter(stands_in).select(owner, name)
        count = found.select(pl.len()).collect(engine="streaming").item()
        if count:
            ids, words = found.head(1).collect(engine="streaming")
            yield Finding(
                what=f"The feature {name!r} holds words that stand for an unknown value",
                count=count,
                total=num_known,
                unit="known cells",
                example=f"{words[0]!r} at {ids[0]!r}; {place}",
                remedy="Write null: a model would take the word for a value like any other.",
            )


def _rows_lacking(table: pl.LazyFrame, figures: FeatureFigures) -> pl.LazyFrame:
    rows = table.filter(_is_missing(figures.name, figures.type))
    return rows.filter(pl.col("kind").is_in(figures.kinds)) if figures.kinds else rows
