"""The readers of CSV, TSV, Parquet and JSON lines: strict, exact about lines, whole."""

import gzip
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from model.errors import DatasetError
from training.importers.sources.csv_source import CsvSource
from training.importers.sources.json_source import JsonSource, json_or_python
from training.importers.sources.opening import format_of, open_source
from training.importers.sources.parquet_source import ParquetSource
from training.importers.sources.source import SourceFile, require_columns


def _rows(source: SourceFile, *columns: str) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = []
    for first_row, frame in source.batches(columns or source.columns):
        assert first_row == len(rows)
        rows += frame.rows()
    assert source.fraction == 1.0
    return rows


def _write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def test_cells_of_csv_are_text_and_empty_ones_null(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.csv", 'a,b\r\n007,"x, y"\r\n\r\n,""\r\n"1 ""q""","two\nlines"\r\n')
    assert _rows(CsvSource(path)) == [("007", "x, y"), (None, None), ('1 "q"', "two\nlines")]
    assert _rows(CsvSource(path), "b")[0] == ("x, y",)


def test_tsv_takes_quotes_as_they_are(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.tsv", 'a\tb\n5" screen\t"x\n')
    assert _rows(open_source(path)) == [('5" screen', '"x')]


def test_a_file_without_header_and_with_words_for_nothing(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.txt", "1;NULL\n\\N;2\n")
    source = CsvSource(path, separator=";", header=["x", "y"], nulls=["", "NULL", "\\N"])
    assert _rows(source) == [("1", None), (None, "2")]


def test_other_encodings(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.csv", "名,b\n竹笛,1\n".encode("gb18030"))
    assert _rows(CsvSource(path, encoding="gb18030"), "名") == [("竹笛",)]
    with pytest.raises(DatasetError, match="unknown encoding: no such"):
        CsvSource(path, encoding="no such")
    assert _rows(CsvSource(_write(tmp_path / "b.csv", b"\xef\xbb\xbfa,b\n1,2\n")), "a") == [("1",)]


def test_gzip_is_told_by_its_bytes(tmp_path: Path) -> None:
    text = b"a,b\n" + b"1,2\n" * 3
    assert len(_rows(CsvSource(_write(tmp_path / "a.csv", gzip.compress(text))))) == 3
    assert len(_rows(CsvSource(_write(tmp_path / "b.csv.gz", text)))) == 3


def test_many_blocks_make_one_table(tmp_path: Path) -> None:
    text = "a,b\n" + "".join(f"{n},{'x' * 90}\n" for n in range(100_000))  # 9.6 MB
    rows = _rows(CsvSource(_write(tmp_path / "a.csv", text)), "a")
    assert rows == [(str(n),) for n in range(100_000)]
    lines = "".join(f'{{"a": {n}}}\n' for n in range(70_000))
    assert _rows(JsonSource(_write(tmp_path / "a.jsonl", lines)), "a")[-1] == ("69999",)


BROKEN_CSV: list[tuple[str | bytes, str]] = [
    ("a,b\n1,2\n\n3\n", "line 4: Expected 2 columns, got 1: 3"),
    ('a,b\n"1\n2",x\n3\n', "line 4: Expected 2 columns, got 1"),
    ("a,b\n1,2\n3,4,5\n", "line 3: Expected 2 columns, got 3"),
    (b"a,b\n1,2\n\n3,\xff\n", "line 4: CSV conversion error to string: invalid UTF8"),
    ('a,b\n1,2\n3,"open\n4,5\n6,7\n', "column 'b': line 3: a quote opens and does not close"),
    ("a,a\n1,2\n", "column 'a': two columns have this name"),
    ("", "Empty CSV file"),
    ("用户,b\n1,2\n".encode("gb18030"), "the first line is not text in utf-8"),
    (gzip.compress(b"a,b\n" + bytes(range(33, 127)) * 999)[:200], "breaks off or is damaged"),
]


@pytest.mark.parametrize(("text", "says"), BROKEN_CSV)
def test_a_broken_csv_is_refused(text: str | bytes, says: str, tmp_path: Path) -> None:
    with pytest.raises(DatasetError) as caught:
        _rows(CsvSource(_write(tmp_path / "a.csv", text)))
    assert says in str(caught.value)
    assert caught.value.file == "a.csv"


def test_an_open_quote_is_seen_when_its_column_is_not_asked_for(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.csv", 'a,b\n1,2\n3,"open\n4,5\n')
    with pytest.raises(DatasetError, match="does not close"):
        _rows(CsvSource(path), "a")
    whole = _write(tmp_path / "b.csv", 'a,b\n1,2\n3,"closed\nhere"\n')
    assert _rows(CsvSource(whole), "a") == [("1",), ("3",)]


def test_json_cells_are_text_or_lists_of_text(tmp_path: Path) -> None:
    text = (
        '{"a": 12345678901234567890, "b": "x", "d": [1, "y", null]}\n\n'
        '{"a": 2.5, "c": true, "d": null}\n'
    )
    source = JsonSource(_write(tmp_path / "a.jsonl", text))
    assert source.columns == ("a", "b", "d", "c")
    assert _rows(source, "a", "b", "c", "d") == [
        ("12345678901234567890", "x", None, ["1", "y", None]),
        ("2.5", None, "true", None),
    ]


BROKEN_JSON: list[tuple[str | bytes, str]] = [
    ('{"a": 1}\n\n{"a": \n', "line 3: it cannot be read (Expecting value)"),
    ('{"a": 1}\n{"a": NaN}\n', "line 2: it cannot be read (NaN is no JSON number)"),
    ('{"a": 1}\n[1]\n', "line 2: it holds a list, not an object"),
    (b'{"a": "\xff"}\n', "line 1: it cannot be read (invalid start byte)"),
    ('{"a": 1}\n\n{"a": [1]}\n', "column 'a': line 3: [1] is a list, where earlier lines have"),
    ('{"a": 1}\n{"a": {"b": 1}}\n', "column 'a': line 2: {\"b\": 1} is an object"),
    ('{"a": [[1]]}\n', "column 'a': line 1: [[1]] is a nested list"),
    ("[" * 100_000 + "\n", "line 1: it cannot be read"),
    ('{"a": 1}\n{"a": "\\ud83d"}\n', "line 2: it cannot be read (half a character: '\\ud83d')"),
    ('{"a": [1, "\\uD83Dx"]}\n', "line 1: it cannot be read (half a character"),
    ('{"\\ud800": 1}\n', "line 1: it cannot be read (half a character"),
]


@pytest.mark.parametrize(("text", "says"), BROKEN_JSON)
def test_broken_json_lines_are_refused(text: str | bytes, says: str, tmp_path: Path) -> None:
    with pytest.raises(DatasetError) as caught:
        _rows(JsonSource(_write(tmp_path / "a.jsonl", text)), "a")
    assert says in str(caught.value)


def test_python_literals_are_read_and_never_run(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.json", "{'a': 'it''s', \"b\": None}\n{\"a\": null}\n")
    assert _rows(JsonSource(path, parse=json_or_python), "a") == [("its",), (None,)]
    marker = tmp_path / "ran"
    path.write_text(f"{{'a': __import__('pathlib').Path({str(marker)!r}).touch()}}\n")
    with pytest.raises(DatasetError, match="line 1: it cannot be read"):
        JsonSource(path, parse=json_or_python)
    assert not marker.exists()


def test_parquet_keeps_its_types(tmp_path: Path) -> None:
    frame = pl.DataFrame({"a": [1, None], "b": [["x"], []]})
    frame.write_parquet(tmp_path / "a.parquet")
    source = open_source(tmp_path / "a.parquet")
    assert _rows(source) == frame.rows()
    assert next(source.batches(["a"]))[1].schema == {"a": pl.Int64()}
    whole = (tmp_path / "a.parquet").read_bytes()
    with pytest.raises(DatasetError, match="cannot be read as Parquet"):
        ParquetSource(_write(tmp_path / "b.parquet", whole[:-9]))


def test_whole_characters_may_be_written_as_surrogates(tmp_path: Path) -> None:
    text = '{"a": "\\ud83c\\udf8b"}\n'
    assert _rows(JsonSource(_write(tmp_path / "a.jsonl", text)), "a") == [("\N{TANABATA TREE}",)]


def test_parquet_with_two_columns_of_one_name_is_refused(tmp_path: Path) -> None:
    arrays = [pa.array(["x"]), pa.array(["y"]), pa.array(["z"])]
    pq.write_table(pa.Table.from_arrays(arrays, ["user", "item", "user"]), tmp_path / "a.parquet")
    with pytest.raises(DatasetError, match="column 'user': two columns have this name"):
        ParquetSource(tmp_path / "a.parquet")


def test_formats_by_name(tmp_path: Path) -> None:
    assert format_of(Path("x/a.CSV.gz")) == "csv"
    assert format_of(Path("a.ndjson")) == "jsonl"
    with pytest.raises(DatasetError, match="does not say the format"):
        format_of(Path("a.txt"))
    for path in (tmp_path / "no.csv", tmp_path):
        with pytest.raises(DatasetError, match="cannot be opened"):
            open_source(path, form="csv")


def test_a_column_that_is_not_there_is_named(tmp_path: Path) -> None:
    source = CsvSource(_write(tmp_path / "a.csv", "user,item\n1,2\n"))
    with pytest.raises(DatasetError, match="Did you mean 'user'") as caught:
        require_columns(source, ["item", "usr"], remedy="Look.")
    assert caught.value.column == "usr"
