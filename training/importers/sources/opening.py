"""From a path to a source file: which format it has, by its name or as the caller says."""

from pathlib import Path
from typing import Literal

from model.errors import DatasetError
from training.importers.sources.csv_source import CsvSource
from training.importers.sources.json_source import JsonSource
from training.importers.sources.parquet_source import ParquetSource
from training.importers.sources.source import SourceFile

Format = Literal["csv", "tsv", "parquet", "jsonl"]


def open_source(path: Path, *, name: str | None = None, form: Format | None = None) -> SourceFile:
    """Open a file by its format, or by the one that its name says.

    Raises DatasetError if the name says none, or the file is absent, damaged or has no header.
    """
    match form or format_of(path):
        case "csv":
            return CsvSource(path, name=name)
        case "tsv":
            return CsvSource(path, name=name, separator="\t", quoted=False)
        case "parquet":
            return ParquetSource(path, name=name)
        case "jsonl":
            return JsonSource(path, name=name)


def format_of(path: Path) -> Format:
    """The format that a file's name says. Raises DatasetError where it says none."""
    suffix = Path(path.name.removesuffix(".gz")).suffix.lower()
    known: dict[str, Format] = {
        ".csv": "csv",
        ".tsv": "tsv",
        ".parquet": "parquet",
        ".jsonl": "jsonl",
        ".ndjson": "jsonl",
        ".json": "jsonl",
    }
    if suffix not in known:
        raise DatasetError(
            f"the name does not say the format: it ends in none of {', '.join(known)} "
            "(each may be followed by .gz, but for Parquet).",
            file=str(path),
            remedy='Say it: format = "csv", "tsv", "parquet" or "jsonl".',
        )
    return known[suffix]
