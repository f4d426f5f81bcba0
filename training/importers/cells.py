"""Source cells become cells of the contract: ids, text, numbers, lists. Never a guess.

A cell that is not what it should be is a DatasetError that shows it and names its file, column and
line. Cells of text formats are text; those of Parquet have types, which are taken as they are.
Knows no files' formats and no time: that is `training/importers/times.py`.
"""

from dataclasses import dataclass

import polars as pl

from training.columns import first_true
from training.importers.sources.source import SourceFile

_TRUTH = {"true": True, "false": False, "1": True, "0": False}


@dataclass(frozen=True, slots=True)
class Cells:
    """One column of one batch of a source file, and where it stands."""

    source: SourceFile
    first_row: int
    values: pl.Series
    """Named as the column is in the file."""
    rows: pl.Series | None = None
    """The cells' rows, counted from first_row, where some were left out."""

    def refuse(self, wrong: pl.Series, problem: str, remedy: str) -> None:
        """Raise DatasetError for the first cell where `wrong` is true.

        problem: `{}` in it is replaced by the cell.
        """
        row = first_true(wrong)
        if row is None:
            return
        cell = self.values[row]
        cell = cell.to_list() if isinstance(cell, pl.Series) else cell
        shown = (repr(cell) if isinstance(cell, str) else str(cell))[:100]
        raise self.source.error(
            problem.replace("{}", shown),
            row=self.first_row + (row if self.rows is None else int(self.rows[row])),
            column=self.values.name,
            remedy=remedy,
        )

    def ids(self) -> pl.Series:
        """Text that is there: neither null nor empty. Whole numbers are written out."""
        texts = self.texts()
        self.refuse(
            texts.is_null() | (texts == ""), "there is no id.", "Every row needs one; mend it."
        )
        return texts

    def texts(self) -> pl.Series:
        """Text or null."""
        dtype = self.values.dtype
        if dtype.is_integer() or isinstance(dtype, pl.Categorical | pl.Enum):
            return self.values.cast(pl.String)
        if isinstance(dtype, pl.String | pl.Null):
            return self.values.cast(pl.String)
        self.refuse(
            self.values.is_not_null(),
            f"{{}} is no text: the column's type is {dtype}.",
            "Text and whole numbers can be taken as text; convert the column.",
        )
        return self.values.cast(pl.String)  # all null

    def numbers(self) -> pl.Series:
        """Finite doubles or null."""
        numbers = self._cast(pl.Float64())
        self.refuse(
            (numbers.is_null() & self.values.is_not_null()) | ~numbers.is_finite(),
            "{} is no finite number.",
            "Numbers are written as 12, 12.5 or 1e3, without units; leave unknown ones empty.",
        )
        return numbers

    def integers(self) -> pl.Series:
        """64-bit whole numbers or null."""
        numbers = self._cast(pl.Int64())
        wrong = numbers.is_null() & self.values.is_not_null()
        if self.values.dtype.is_float():  # pandas makes floats of whole numbers with gaps
            wrong |= numbers != self.values
        self.refuse(
            wrong,
            "{} is no whole number.",
            "Whole numbers are written with digits alone.",
        )
        return numbers

    def truths(self) -> pl.Series:
        """True, false or null: `true`, `false`, `1` and `0` are read, in any case."""
        if isinstance(self.values.dtype, pl.Boolean):
            return self.values
        known = self.texts().str.strip_chars().str.to_lowercase()
        truths = known.replace_strict(_TRUTH, default=None, return_dtype=pl.Boolean)
        self.refuse(
            truths.is_null() & self.values.is_not_null(),
            "{} is neither true nor false.",
            "Write true or false, or 1 or 0.",
        )
        return truths

    def lists(self, separator: str | None) -> pl.Series:
        """Lists of text without empty parts; null becomes the empty list.

        separator: what parts the entries where a cell is one text.
        """
        values = self.values
        if isinstance(values.dtype, pl.List):
            texts = values.cast(pl.List(pl.String), strict=False)
        elif separator is None:
            self.refuse(
                values.is_not_null(),
                "{} is one text, where a list is wanted.",
                'Say what parts its entries, such as separator = "|".',
            )
            texts = pl.Series(values.name, [[]] * len(values), dtype=pl.List(pl.String))
        else:
            texts = self.texts().str.split(separator)
        part = pl.element().str.strip_chars()
        return texts.list.eval(part.filter(part != "")).fill_null(
            pl.Series([[]], dtype=pl.List(pl.String))
        )

    def vectors(self, dim: int, separator: str | None) -> pl.Series:
        """Lists of `dim` finite 32-bit floats, or null."""
        values, dtype = self.values, pl.List(pl.Float32())
        if isinstance(values.dtype, pl.String) and separator is not None:
            parts = values.str.strip_chars(" []").str.split(separator)
            vectors = parts.list.eval(pl.element().str.strip_chars()).cast(dtype, strict=False)
        elif isinstance(values.dtype, pl.List | pl.Array):
            vectors = values.cast(dtype, strict=False)
        else:
            vectors = pl.Series(values.name, [None] * len(values), dtype=dtype)
        wrong = vectors.is_null() | (vectors.list.len() != dim)
        wrong |= vectors.list.eval(pl.element().is_null() | ~pl.element().is_finite()).list.any()
        self.refuse(
            wrong & values.is_not_null(),
            f"{{}} is no vector of {dim} finite numbers.",
            "Mend it, or leave it empty; in text, say what parts the numbers (separator).",
        )
        return vectors

    def _cast(self, dtype: pl.DataType) -> pl.Series:
        """Cells of text or numbers as numbers; null for whatever is neither."""
        values = self.values
        if isinstance(values.dtype, pl.String):
            return values.str.strip_chars().cast(dtype, strict=False)
        if values.dtype.is_numeric():
            return values.cast(dtype, strict=False)
        return pl.Series(values.name, [None] * len(values), dtype=dtype)
