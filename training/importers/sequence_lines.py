"""Files with one line a user: the user's id, then all items in order. They become events.

Two public layouts are like that: S3-Rec's (parted by spaces) and MicroLens's (a tab after the
user). Ids are numbers in both. Knows nothing else of them.
"""

from collections.abc import Iterator
from pathlib import Path

import polars as pl

from training.importers.cells import Cells
from training.importers.sources.csv_source import CsvSource


class SequenceLines:
    """One such file; `num_users` and `num_events` count what `events` has yielded."""

    def __init__(self, path: Path, *, separator: str) -> None:
        """separator: what stands after the user. Raises DatasetError where there is no file."""
        # No text has the unit separator in it: a row is the whole line.
        self._source = CsvSource(path, separator="\x1f", quoted=False, header=["line"])
        self._separator = separator
        self._users = pl.Series(dtype=pl.String)
        self.num_users = self.num_events = 0

    @property
    def fraction(self) -> float:
        """How much of the file is read, 0 to 1."""
        return self._source.fraction

    def events(self) -> Iterator[pl.DataFrame]:
        """Yield user_id, item_id and sequence, from 0, of each event; users stay whole.

        Raises DatasetError for a line that is not a user and items, or a user's second line.
        """
        shape = rf"^\d+{self._separator}\d+(?: \d+)*$"
        for first_row, frame in self._source.batches(["line"]):
            lines = Cells(self._source, first_row, frame["line"])
            lines.refuse(
                ~lines.values.str.contains(shape),
                f"{{}} is not a user's number, {self._separator!r}, and the numbers of items with "
                "one space between them.",
                "Mend the line, or get the file again.",
            )
            cut = lines.values.str.splitn(self._separator, 2).struct.unnest()
            users, items = cut["field_0"], cut["field_1"]
            known = users.is_in(self._users.implode()) | ~users.is_first_distinct()
            lines.refuse(known, "{} is a second line of one user.", "Keep one line a user.")
            self._users = pl.concat([self._users, users])
            self.num_users += len(users)
            events = (
                pl.DataFrame({"user_id": users, "item_id": items.str.split(" ")})
                .explode("item_id")
                .with_columns(pl.int_range(pl.len()).over("user_id").alias("sequence"))
            )
            self.num_events += events.height
            yield events
