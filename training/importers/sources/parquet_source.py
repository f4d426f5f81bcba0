"""Parquet as a source: columns keep the types they have."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from model.errors import DatasetError
from training.importers.sources.source import open_bytes, refuse_double_columns
from training.parquet_text import refuse_broken_metadata, refuse_broken_text

_BATCH_ROWS = 65_536


class ParquetSource:
    """A Parquet file; columns keep their types."""

    def __init__(self, path: Path, *, name: str | None = None) -> None:
        self.name, self.fraction = name or path.name, 0.0
        open_bytes(path, self.name).close()  # for the error of a file that is not there
        try:
            self._parquet = pq.ParquetFile(path)
            self.columns: tuple[str, ...] = tuple(self._parquet.schema_arrow.names)
            refuse_broken_metadata(self._parquet, name=self.name)
        except (pa.ArrowException, OSError, UnicodeError) as error:
            raise self._damaged(error) from None
        refuse_double_columns(self.columns, self.name, remedy="Rename one of them.")

    def batches(self, columns: Sequence[str]) -> Iterator[tuple[int, pl.DataFrame]]:
        """See SourceFile."""
        first_row, num_rows = 0, self._parquet.metadata.num_rows
        try:
            for batch in self._parquet.iter_batches(_BATCH_ROWS, columns=list(columns)):
                refuse_broken_text(batch, name=self.name, first_row=first_row)
                frame = pl.from_arrow(batch)
                assert isinstance(frame, pl.DataFrame)
                self.fraction = (first_row + frame.height) / num_rows
                yield first_row, frame
                first_row += frame.height
        except (pa.ArrowException, OSError) as error:
            raise self._damaged(error) from None

    def error(
        self, problem: str, *, row: int, remedy: str, column: str | None = None
    ) -> DatasetError:
        """See SourceFile."""
        return DatasetError(problem, file=self.name, column=column, row=row, remedy=remedy)

    def _damaged(self, error: Exception) -> DatasetError:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        return DatasetError(
            f"it cannot be read as Parquet ({reason:.200}).",
            file=self.name,
            remedy="The file is damaged, only half written, or of another format.",
        )
