"""Parquet whose text or metadata is no UTF-8 is refused with its place, before polars meets it."""

import itertools
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from model.errors import DatasetError
from tests.training.contract import Dataset
from training.dataset import load_interactions
from training.importers.sources.parquet_source import ParquetSource
from training.inspection.dataset import inspect_dataset
from training.validate import validate_dataset


def key(table: pa.Table) -> pa.Table:
    return table.replace_schema_metadata({b"made by \xff": b"us"})


def value(table: pa.Table) -> pa.Table:
    return table.replace_schema_metadata({b"made by": b"us \xff"})


def column(table: pa.Table) -> pa.Table:
    noted = table.schema.field("title").with_metadata({b"note": b"\xff"})
    return table.cast(table.schema.set(table.schema.get_field_index("title"), noted))


def list_entry(table: pa.Table) -> pa.Table:
    number = table.schema.get_field_index("tags")
    entry = pa.field("element", pa.large_string(), metadata={b"note": b"\xff"})
    return table.cast(table.schema.set(number, pa.field("tags", pa.large_list(entry))))


def text(cells: list[bytes]) -> pa.Array:
    return pa.Array.from_buffers(pa.string(), len(cells), pa.array(cells).buffers())


def rewrite(path: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    pq.write_table(change(pq.read_table(path)), path)


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (key, "the metadata of the file"),
        (value, "the metadata of the file"),
        (column, "the metadata of the column 'title'"),
        (list_entry, "the metadata of the column 'tags'"),
    ],
)
def test_metadata_is_refused_where_it_stands(
    good: Dataset, change: Callable[[pa.Table], pa.Table], place: str
) -> None:
    good.write()
    rewrite(good.folder / "items.parquet", change)
    for read in (
        validate_dataset,
        inspect_dataset,
        lambda folder: load_interactions(folder, folder.parent / "cache"),
    ):
        with pytest.raises(DatasetError, match="is not UTF-8 text") as refused:
            read(good.folder)
        assert refused.value.file == "items.parquet" and place in str(refused.value)
        assert "Write the file again without it" in str(refused.value)


def test_the_name_of_the_writer_is_metadata_too(good: Dataset) -> None:
    good.write()
    path = good.folder / "events/part-00001.parquet"
    before, name, after = path.read_bytes().rpartition(b"Polars")
    path.write_bytes(before + b"\xff" * len(name) + after)
    with pytest.raises(DatasetError, match="created_by") as refused:
        validate_dataset(good.folder)
    assert refused.value.file == "events/part-00001.parquet"


def test_what_pyarrow_opens_and_polars_does_not_is_refused_by_name(good: Dataset) -> None:
    """A bit of the footer is another, where pyarrow does not mind: it reads the same table."""
    good.write()
    path = good.folder / "items.parquet"
    whole, table = path.read_bytes(), pq.read_table(path)
    footer = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    for place, bit in itertools.product(range(footer, len(whole) - 8), (1, 2, 64)):
        damaged = bytearray(whole)
        damaged[place] ^= bit
        path.write_bytes(damaged)
        if opens(lambda: pq.read_table(path).equals(table)) and not opens(
            lambda: pl.scan_parquet(path, glob=False).collect_schema()
        ):
            break
    else:
        pytest.skip("both refuse the same files")
    with pytest.raises(DatasetError, match="cannot be read as Parquet") as refused:
        validate_dataset(good.folder)
    assert refused.value.file == "items.parquet"


def opens(read: Callable[[], object]) -> bool:
    try:
        return bool(read())
    except (pa.ArrowException, OSError, UnicodeError, pl.exceptions.PolarsError):
        return False


def test_text_is_refused_by_column_and_row(good: Dataset) -> None:
    good.write()
    path = good.folder / "items.parquet"
    titles = text([b"one", "四川".encode("gb18030"), b"\xff"])
    rewrite(path, lambda t: t.set_column(t.schema.get_field_index("title"), "title", titles))
    with pytest.raises(DatasetError, match="not UTF-8") as refused:
        validate_dataset(good.folder)
    assert (refused.value.file, refused.value.column) == ("items.parquet", "title")
    assert refused.value.row == 1


def test_text_inside_a_list_is_refused_too(good: Dataset) -> None:
    good.write()
    path = good.folder / "items.parquet"
    tags = pa.ListArray.from_arrays(pa.array([0, 1, 1, 3], pa.int32()), text([b"a", b"b", b"\xff"]))
    rewrite(path, lambda t: t.set_column(t.schema.get_field_index("tags"), "tags", tags))
    with pytest.raises(DatasetError, match="not UTF-8") as refused:
        validate_dataset(good.folder)
    assert (refused.value.column, refused.value.row) == ("tags", 2)


def test_a_source_of_an_import_is_refused_likewise(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    pq.write_table(pa.table({"user": text([b"ann", b"bob", b"\xff"])}), path)
    with pytest.raises(DatasetError, match="not UTF-8") as refused:
        list(ParquetSource(path).batches(["user"]))
    assert (refused.value.column, refused.value.row) == ("user", 2)
    pq.write_table(column(pa.table({"title": ["x"]})), path)
    with pytest.raises(DatasetError, match="the metadata of the column 'title'"):
        ParquetSource(path)
