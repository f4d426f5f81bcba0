"""Source times become UTC microseconds, in every way that people write them; none is invented.

A time without a zone is refused unless one is declared, a column that gives offsets in some rows
only is refused, and so is a local time that a change of clocks makes ambiguous. Where days are all
that is known, the day is midnight UTC, as docs/dataset.md has it. Knows no files.
"""

import re
from typing import Literal
from zoneinfo import ZoneInfo

import polars as pl
from pydantic import BaseModel, ConfigDict, field_validator, model_validator

from training.columns import EARLIEST, LATEST, TIME, first_true
from training.importers.cells import Cells

_UNITS = {"unix_s": 1_000_000, "unix_ms": 1_000, "unix_us": 1}
"""Microseconds in one."""
ISO = "iso8601"

_ISO_SHAPE = (
    r"^(?<date>\d{4}-\d{2}-\d{2})"
    r"(?:[T ](?<clock>\d{2}:\d{2}(?::\d{2}(?:[.,]\d{1,9})?)?)"
    r"(?<offset>[Zz]|[+-]\d{2}(?::?\d{2})?)?)?$"
)
_HOURS = re.compile(r"%-?[HIklTRrXcs+]")
_LETTER = re.compile(r"%[-_0]?\.?\d?:{0,3}#?([A-Za-z+])")
_OFFSET = re.compile(r"%:{0,3}#?z|%\+|%s")

Days = Literal["refused", "allowed", "only"]
"""What becomes of a day without a time of day: exact events refuse it, items' times allow it, and
where time = "day" there may be nothing else."""


class TimeColumn(BaseModel):
    """Where a time stands in a source table, and how it is written."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    column: str
    format: str | None = None
    """unix_s, unix_ms, unix_us, iso8601, or a pattern such as "%d/%m/%Y %H:%M". Left out: the
    column is a timestamp or date of Parquet."""
    zone: str | None = None
    """The zone of local times, as the IANA calls it: "UTC", "Asia/Shanghai"."""

    @field_validator("format")
    @classmethod
    def _known_format(cls, form: str | None) -> str | None:
        if form is not None and form not in _UNITS and form != ISO and "%" not in form:
            raise ValueError(
                f"it is none of {', '.join(_UNITS)} and {ISO}, and no pattern such as "
                '"%Y-%m-%d %H:%M:%S"'
            )
        if form is not None and "%" in form:
            _check_pattern(form)
        return form

    @field_validator("zone")
    @classmethod
    def _known_zone(cls, zone: str | None) -> str | None:
        if zone is not None:
            try:
                ZoneInfo(zone)
            except (KeyError, ValueError, OSError):
                raise ValueError(
                    'it is no IANA time zone such as "UTC", "Asia/Shanghai" or "Europe/Berlin"'
                ) from None
        return zone

    @model_validator(mode="after")
    def _zone_where_needed(self) -> "TimeColumn":
        if self.format is None or "%" not in self.format:
            return self
        if _OFFSET.search(self.format):
            if self.zone is not None:
                raise ValueError("the format reads an offset from each cell: leave `zone` out")
        elif _HOURS.search(self.format) and self.zone is None:
            raise ValueError(
                'these times have no zone: add the one that they are in, such as zone = "UTC"'
            )
        return self

    @property
    def gives_days(self) -> bool:
        """Whether the format has no time of day."""
        return self.format is not None and "%" in self.format and not _HOURS.search(self.format)


def _check_pattern(form: str) -> None:
    """Raise ValueError for a pattern that polars refuses, or to which it would add by itself."""
    try:
        pl.Series([""]).str.to_datetime(form, time_zone="UTC", strict=False)
    except pl.exceptions.PolarsError as error:
        said = str(error).splitlines()[0].removeprefix("Invalid format string: ")
        raise ValueError(f"it is no pattern ({said})") from None
    found = set(_LETTER.findall(form.replace("%%", "")))
    if "Z" in found:
        raise ValueError(
            "%Z is for abbreviations such as CST, of which each says nothing certain: leave them "
            "out of the cells and say `zone`, or write offsets and %z"
        )
    if not _says_day(found):
        raise ValueError("the pattern does not say year, month and day, and none is made up")


def _says_day(letters: set[str]) -> bool:
    """Whether a pattern's letters name one day; polars would take the first that fits."""
    if letters & set("cDFsvx+"):
        return True
    if {"G", "V"} <= letters:  # the ISO year and week
        return bool(letters & set("uwaA"))
    within = "j" in letters or (letters & set("mbBh") and letters & set("de"))
    return bool(letters & set("Yy") and within)


class TimeReader:
    """Reads one time column, batch after batch; remembers whether its cells have offsets."""

    def __init__(self, column: TimeColumn, *, days: Days) -> None:
        self._column, self._days = column, days
        self._shape: str | None = None

    def read(self, cells: Cells) -> pl.Series:
        """UTC microseconds or null. Raises DatasetError for the first cell that is none."""
        dtype, form = cells.values.dtype, self._column.format
        if isinstance(dtype, pl.Null):
            return pl.Series(cells.values.name, [None] * len(cells.values), dtype=TIME)
        if form is None or isinstance(dtype, pl.Date | pl.Datetime):
            times = self._native(cells)
        elif form in _UNITS:
            times = self._unix(cells, _UNITS[form])
        elif form == ISO:
            times = self._iso(cells)
        else:
            times = self._pattern(cells, form)
        cells.refuse(
            (times < EARLIEST) | (times >= LATEST),
            "{} is before 1970 or after 2099.",
            "Check the format, and the unit of numbers.",
        )
        return times

    def _native(self, cells: Cells) -> pl.Series:
        values, zone = cells.values, self._column.zone
        if isinstance(values.dtype, pl.Date):
            return self._of_days(cells, values)
        if not isinstance(values.dtype, pl.Datetime):
            cells.refuse(
                values.is_not_null(),
                f"{{}} is of the type {values.dtype}, and no format says how it is a time.",
                f"Add format = one of {', '.join(_UNITS)}, {ISO}, or a pattern.",
            )
        micros = values.dt.cast_time_unit("us")
        if values.dtype.time_zone is None:  # type: ignore[attr-defined] # it is a Datetime
            return self._of_wall(cells, micros)
        if zone is not None:
            cells.refuse(
                values.is_not_null(),
                f"{{}} already has a zone, and {zone!r} is declared.",
                "Leave `zone` out: the column knows its own.",
            )
        if self._days == "only":
            return self._of_midnights(cells, micros.dt.replace_time_zone(None))
        return micros.dt.convert_time_zone("UTC")

    def _unix(self, cells: Cells, micros: int) -> pl.Series:
        numbers = cells.numbers()
        row = first_true((numbers < 0) | (numbers >= LATEST.timestamp() * 1e6 / micros))
        if row is not None:
            fitting = [
                name
                for name, unit in _UNITS.items()
                if EARLIEST.timestamp() <= numbers[row] * unit / 1e6 < LATEST.timestamp()
            ]
            cells.refuse(
                (numbers < 0) | (numbers >= LATEST.timestamp() * 1e6 / micros),
                f"{{}} as {self._column.format} is before 1970 or after 2099.",
                f"It may be {' or '.join(fitting)}." if fitting else "Mend it or leave it empty.",
            )
        # Doubles hold whole microseconds exactly until the year 2255.
        since = (numbers * micros).round().cast(pl.Int64)
        instants = since.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
        if self._days == "only":
            local = instants.dt.convert_time_zone(self._column.zone or "UTC")
            return self._of_midnights(cells, local.dt.replace_time_zone(None))
        return instants

    def _iso(self, cells: Cells) -> pl.Series:
        parts = cells.texts().str.strip_chars().str.extract_groups(_ISO_SHAPE).struct.unnest()
        date, clock, offset = parts["date"], parts["clock"], parts["offset"]
        cells.refuse(
            date.is_null() & cells.values.is_not_null(),
            "{} is no ISO 8601 time.",
            "Write 2026-03-01T20:15:00+08:00; or name the format that the column has.",
        )
        shapes = pl.select(
            pl.when(date.is_null())
            .then(None)
            .when(clock.is_null())
            .then(pl.lit("a day alone"))
            .when(offset.is_null())
            .then(pl.lit("a time without an offset"))
            .otherwise(pl.lit("a time with an offset"))
        ).to_series()
        self._refuse_mixed(cells, shapes)
        if self._shape == "a day alone":
            return self._of_days(cells, date.str.to_date("%Y-%m-%d", strict=False))
        seconds = pl.select(
            pl.when(clock.str.len_chars() == 5).then(clock + ":00").otherwise(clock)
        ).to_series()
        wall = date + "T" + seconds.str.replace(",", ".")
        pattern = "%Y-%m-%dT%H:%M:%S%.f"
        local = wall.str.to_datetime(pattern, time_unit="us", strict=False)
        self._refuse_unread(cells, local)
        if self._shape != "a time with an offset":
            return self._of_wall(cells, local)
        if self._days == "only":
            return self._of_midnights(cells, local)
        offset = offset.str.replace("^[Zz]$", "+00:00")
        offset = offset.str.replace(r"^([+-]\d\d):?(\d\d)?$", "${1}:${2}").str.replace(":$", ":00")
        times = (wall + offset).str.to_datetime(
            pattern + "%:z", time_unit="us", time_zone="UTC", strict=False
        )
        self._refuse_unread(cells, times)
        return times

    def _pattern(self, cells: Cells, form: str) -> pl.Series:
        texts = cells.texts()
        if self._column.gives_days:
            return self._of_days(cells, texts.str.to_date(form, strict=False))
        if not _OFFSET.search(form):
            wall = texts.str.to_datetime(form, time_unit="us", strict=False)
            self._refuse_unread(cells, wall)
            return self._of_wall(cells, wall)
        times = texts.str.to_datetime(form, time_unit="us", time_zone="UTC", strict=False)
        self._refuse_unread(cells, times)
        return self._of_midnights(cells, times) if self._days == "only" else times

    def _of_wall(self, cells: Cells, wall: pl.Series) -> pl.Series:
        """Clock readings without an offset: in the declared zone, or refused."""
        if self._days == "only":
            return self._of_midnights(cells, wall)
        zone = self._column.zone
        if zone is None:
            cells.refuse(
                wall.is_not_null(),
                "{} has no zone, and none is declared.",
                'Say which one it is in, such as zone = "UTC" or zone = "Asia/Shanghai".',
            )
            return wall.dt.replace_time_zone("UTC")  # all null
        times = wall.dt.replace_time_zone(zone, ambiguous="null", non_existent="null")
        cells.refuse(
            times.is_null() & wall.is_not_null(),
            f"{{}} comes twice or never in {zone}: the clocks were changed then.",
            "Write these times with their offset, or all in UTC.",
        )
        return times.dt.convert_time_zone("UTC")

    def _of_days(self, cells: Cells, days: pl.Series) -> pl.Series:
        self._refuse_unread(cells, days)
        if self._days == "refused":
            cells.refuse(
                days.is_not_null(),
                '{} is a day without a time of day, but the map says time = "exact".',
                'Say time = "day", or name the column with the time.',
            )
        return days.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")

    def _of_midnights(self, cells: Cells, wall: pl.Series) -> pl.Series:
        wall = wall.dt.replace_time_zone(None)
        cells.refuse(
            wall.dt.truncate("1d") != wall,
            '{} has a time of day, but the map says time = "day".',
            'Say time = "exact" if it is real; otherwise write the days alone.',
        )
        return wall.dt.replace_time_zone("UTC")

    def _refuse_unread(self, cells: Cells, read: pl.Series) -> None:
        cells.refuse(
            read.is_null() & cells.values.is_not_null(),
            f"{{}} is no time of the format {self._column.format!r}.",
            "Mend the cell, or the format.",
        )

    def _refuse_mixed(self, cells: Cells, shapes: pl.Series) -> None:
        known = shapes.drop_nulls()
        if self._shape is None and len(known):
            self._shape = known[0]
        row = first_true(shapes != (self._shape or ""))
        if row is not None:
            cells.refuse(
                shapes != self._shape,
                f"{{}} is {shapes[row]}, where earlier rows have {self._shape}.",
                "Nobody can tell how the two compare: write all times of a column in one way.",
            )
