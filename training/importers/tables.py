"""Anyone's tables become a dataset: CSV, TSV, Parquet or JSON lines, as a column map says.

The map (`column_map.py`, `map_file.py`) says which files and columns there are, `table_columns.py`
how their cells are read, `table_events.py` which events are kept. Events are streamed; memory holds
the items, the users, the links, one part file of events and eight bytes an event.
"""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import polars as pl

from model.errors import ConfigError, DatasetError
from model.schema import Schema
from training.columns import TIME
from training.importers.cells import Cells
from training.importers.column_map import ColumnMap
from training.importers.map_file import read_map
from training.importers.sources.source import SourceFile
from training.importers.table_columns import (
    Target,
    converted,
    event_targets,
    item_targets,
    link_targets,
    named_columns,
    user_targets,
)
from training.importers.table_events import EventRows
from training.importers.table_files import TableFiles
from training.importers.writer import ImportReport, Progress, new_dataset, refuse_taken


def import_table(map_file: Path, out: Path, *, progress: Progress | None = None) -> ImportReport:
    """Write the tables that a column map describes as a dataset under `out`.

    progress: called with a fraction from 0 to 1 and what is being done.

    Raises ConfigError for a map that is not allowed or does not fit its files, naming the field;
    DatasetError for a row that is not allowed, naming file and line, or if `out` is taken. `out`
    appears whole or not at all.
    """
    refuse_taken(out)  # before minutes of reading, not after
    mapped, schema = read_map(map_file)
    tables = _Tables(mapped, map_file)
    tell = progress or (lambda fraction, message: None)

    tell(0.0, "reading items")
    items = tables.read("items") if mapped.items else pl.DataFrame(schema=_NO_ITEMS)
    users = tables.read("users") if mapped.users else None
    links = tables.read("links") if mapped.links else None
    with new_dataset(
        out, schema, progress=lambda part, what: tell(0.8 + 0.2 * part, f"checking {what}")
    ) as writer:
        rows = EventRows(
            mapped,
            tables.targets["events"],
            tables.files["events"],
            items["item_id"],
            tell=lambda part: tell(0.1 + 0.7 * part, "reading events"),
        )
        num_events = 0
        for frame in rows.frames():
            num_events += frame.height
            writer.append_events(frame)
        tables.finish("events", rows.dropped)
        if not num_events:
            why = ", ".join(f"{count:,} {reason}" for reason, count in rows.dropped.items())
            raise DatasetError(
                f"no event is left (dropped: {why})." if why else "there are no rows.",
                file=str(mapped.events.files),
                remedy="Check [events] in the map.",
            )
        items = _with_added(items, rows.added, schema, mapped)
        writer.write_items(items)
        if users is not None:
            writer.write_users(users)
        if links is not None:
            writer.write_links(tables.known_links(links, items["item_id"]))
    summary = writer.summary
    written = {
        "users": summary.num_users,
        "items": summary.num_items,
        "items that only events name": len(rows.added),
        "links": summary.num_links,
        "events": summary.num_events,
    }
    always = ("users", "items", "events")
    return ImportReport(
        out=out,
        layout="column map",
        read=tables.num_read,
        written={what: count for what, count in written.items() if count or what in always},
        dropped={reason: count for reason, count in tables.dropped.items() if count},
        summary=summary,
        notes=tables.notes,
    )


class _Tables:
    """The tables of a map: opened, checked for their columns, and counted as they are read."""

    def __init__(self, mapped: ColumnMap, map_file: Path) -> None:
        """Raises ConfigError for files or columns that are not there: before anything is read."""
        self._mapped = mapped
        self.targets: dict[str, list[Target]] = {"events": event_targets(mapped)}
        if mapped.items is not None:
            self.targets["items"] = item_targets(mapped.items)
        if mapped.users is not None:
            self.targets["users"] = user_targets(mapped.users)
        if mapped.links is not None:
            self.targets["links"] = link_targets(mapped.links)
        self.files = {
            name: TableFiles(
                getattr(mapped, name),
                map_file.parent,
                place=f"{map_file.name}, field '{name}",
                columns=named_columns(targets),
            )
            for name, targets in self.targets.items()
        }
        self.num_read: dict[str, int] = {}
        self.dropped: Counter[str] = Counter()
        self._places: dict[str, list[tuple[SourceFile, int, int]]] = {}
        """Of each batch of a table: the file, the first row, how many rows."""
        for field, keyword in (("event_id", "row"), ("sequence", "file")):
            numbering = getattr(mapped.events, field)
            counted = numbering is not None and numbering.column is None
            given = field in mapped.events.model_fields_set
            if counted and given and keyword in self.files["events"].columns:
                raise ConfigError(
                    f"{map_file.name}, field 'events.{field}': {keyword!r} counts the rows, and "
                    f"there is a column called so, too. For the column say {field} = "
                    f'{{ column = "{keyword}" }}.'
                )

    @property
    def notes(self) -> tuple[str, ...]:
        """The columns that were left out, table by table."""
        return tuple(
            f"Columns of {files.paths[0].name} that the map does not name: "
            f"{', '.join(files.unnamed)!s:.300}."
            for files in self.files.values()
            if files.unnamed
        )

    def finish(self, name: str, dropped: Mapping[str, int]) -> None:
        """Take over what a table's walk has counted."""
        for file, count in self.files[name].num_read.items():
            self.num_read[file] = count
        self.dropped.update(dropped)

    def read(self, name: Literal["items", "users", "links"]) -> pl.DataFrame:
        """All rows of a table, as columns of the contract."""
        table, targets = getattr(self._mapped, name), self.targets[name]
        frames = []
        self._places[name] = []
        for batch in self.files[name].batches():
            frames.append(converted(batch, targets))
            self._places[name].append((batch.source, batch.first_row, batch.frame.height))
        if not frames:
            raise DatasetError(
                "there are no rows.", file=str(table.files), remedy=f"Check [{name}] in the map."
            )
        rows = pl.concat(frames)
        self.finish(name, {})
        if name == "links":
            return rows
        key = targets[0]
        again = ~rows[key.name].is_first_distinct()
        if table.on_duplicate == "error":
            remedy = (
                f'Keep one row an id, or say on_duplicate = "drop" in [{name}]: the first stays.'
            )
            self._refuse(name, rows[key.name], key, again, "{} has an earlier row.", remedy)
        self.dropped[f"{name} with the {key.name} of an earlier row"] = int(again.sum())
        return rows.filter(~again)

    def known_links(self, links: pl.DataFrame, items: pl.Series) -> pl.DataFrame:
        """Links of items that are there, with the columns that the contract wants."""
        assert self._mapped.links is not None
        known = pl.repeat(True, links.height, eager=True)
        for target in self.targets["links"][:2]:  # from_item and to_item
            ends = links[target.name]
            there = ends.is_in(items.implode())
            if self._mapped.links.unknown_items == "error":
                problem = "the item {} has no row in [items]."
                remedy = 'Add its row, or say unknown_items = "drop" in [links].'
                self._refuse("links", ends, target, ~there, problem, remedy)
            known &= there
        self.dropped["links of items without a row"] = int((~known).sum())
        absent = [name for name in ("start", "end") if name not in links.columns]
        return links.filter(known).with_columns(pl.lit(None, dtype=TIME).alias(n) for n in absent)

    def _refuse(
        self,
        name: str,
        ids: pl.Series,
        target: Target,
        wrong: pl.Series,
        problem: str,
        remedy: str,
    ) -> None:
        """Raise DatasetError for the first wrong one among all ids of a table, naming its line."""
        start = 0
        for source, first_row, height in self._places[name]:
            part = ids.slice(start, height).alias(target.column or target.name)
            Cells(source, first_row, part).refuse(wrong.slice(start, height), problem, remedy)
            start += height


_NO_ITEMS = {"item_id": pl.String(), "kind": pl.String(), "title": pl.String()}


def _with_added(
    items: pl.DataFrame, added: pl.Series, schema: Schema, mapped: ColumnMap
) -> pl.DataFrame:
    """The items, and those that only events name: of the kind that the map says, else unknown."""
    if added.is_empty():
        return items
    rows = added.to_frame().with_columns(
        pl.lit(mapped.events.added_kind, dtype=pl.String).alias("kind"), pl.lit("").alias("title")
    )
    whole = pl.concat([items, rows], how="diagonal")
    lists = [name for name, f in schema.item_features.items() if f.type == "categories"]
    return whole.with_columns(pl.col(name).fill_null([]) for name in lists)
