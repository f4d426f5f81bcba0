"""Text in Parquet files that is not UTF-8, refused before polars meets it.

Parquet says that text and metadata are UTF-8, and not every writer sees to it. pyarrow reads such
files; polars refuses them without saying which file it was, or panics. Knows no contract of
columns.
"""

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from model.errors import DatasetError


def refuse_broken_metadata(file: pq.ParquetFile, *, name: str) -> None:
    """Raise DatasetError if any metadata of an opened file is not UTF-8. name: of the file."""
    place = _broken_metadata(file)
    if place is not None:
        raise DatasetError(
            f"{place} is not UTF-8 text.",
            file=name,
            remedy="Write the file again without it: with pyarrow, make its table anew by "
            "pa.table(table.columns, names=table.column_names).",
        )


def refuse_broken_text(batch: pa.RecordBatch, *, name: str, first_row: int) -> None:
    """Raise DatasetError for the first cell whose text is not UTF-8, with column and row.

    name: of the file. first_row: that of the batch, in the file.
    """
    for column, cells in zip(batch.schema.names, batch.columns, strict=True):
        if not _is_valid(cells):
            rows = range(len(cells))
            row = next((r for r in rows if not _is_valid(cells.take(pa.array([r])))), 0)
            raise DatasetError(
                "the text is not UTF-8.",
                file=name,
                column=column,
                row=first_row + row,
                remedy="Decode it by the encoding that it is in, such as gb18030, before "
                "the file is written.",
            )


def _broken_metadata(file: pq.ParquetFile) -> str | None:
    """Which metadata is not UTF-8, in words; None where all of it is."""
    try:
        file.metadata.created_by  # noqa: B018  # pyarrow decodes it when it is asked for
    except UnicodeDecodeError:
        return "the name of the program that wrote it (created_by)"
    if not _is_text(file.metadata.metadata):
        return "the metadata of the file"
    for field in file.schema_arrow:
        if not all(_is_text(part.metadata) for part in _with_parts(field)):
            return f"the metadata of the column {field.name!r}"
    return None


def _is_text(metadata: dict[bytes, bytes] | None) -> bool:
    try:
        for part in (metadata or {}).items():
            b" ".join(part).decode()
    except UnicodeDecodeError:
        return False
    return True


def _with_parts(field: pa.Field) -> Iterator[pa.Field]:
    """The field itself, and the fields of the lists and structs that it is made of."""
    yield field
    for number in range(field.type.num_fields):
        yield from _with_parts(field.type.field(number))


def _is_valid(cells: pa.Array) -> bool:
    try:
        cells.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True
