"""Times of every writing become UTC, and what cannot be known is refused."""

from datetime import date, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from pydantic import ValidationError

from model.errors import DatasetError
from training.columns import TIME
from training.importers.cells import Cells
from training.importers.sources.csv_source import CsvSource
from training.importers.times import Days, TimeColumn, TimeReader


@pytest.fixture
def source(tmp_path: Path) -> CsvSource:
    (tmp_path / "a.csv").write_text("t,u\n" + "x,y\n" * 9)
    return CsvSource(tmp_path / "a.csv")


def _read(
    source: CsvSource, cells: pl.Series | list[Any], days: Days = "refused", **column: Any
) -> list[str | None]:
    reader = TimeReader(TimeColumn(column="t", **column), days=days)
    times = reader.read(Cells(source, 3, pl.Series("t", cells)))
    assert times.dtype == TIME
    return [None if time is None else time.isoformat() for time in times]


READ: list[tuple[list[Any], dict[str, Any], list[str]]] = [
    (["1700000000", "1700000000.5"], {"format": "unix_s"}, ["2023-11-14T22:13:20+00:00"]),
    ([1700000000123], {"format": "unix_ms"}, ["2023-11-14T22:13:20.123000+00:00"]),
    (["1700000000000001"], {"format": "unix_us"}, ["2023-11-14T22:13:20.000001+00:00"]),
    ([1.7e9], {"format": "unix_s"}, ["2023-11-14T22:13:20+00:00"]),
    (["2026-03-01T20:15:00+08:00"], {"format": "iso8601"}, ["2026-03-01T12:15:00+00:00"]),
    (["2026-03-01 20:15Z"], {"format": "iso8601"}, ["2026-03-01T20:15:00+00:00"]),
    (["2026-03-01T20:15:00,25-0330"], {"format": "iso8601"}, ["2026-03-01T23:45:00.250000+00:00"]),
    (
        ["2026-03-01 20:15"],
        {"format": "iso8601", "zone": "Asia/Shanghai"},
        ["2026-03-01T12:15:00+00:00"],
    ),
    # In July, Berlin is two hours ahead.
    (
        ["01/07/2026 20:15"],
        {"format": "%d/%m/%Y %H:%M", "zone": "Europe/Berlin"},
        ["2026-07-01T18:15:00+00:00"],
    ),
    (["1/7/26 8:15 PM +02:00"], {"format": "%d/%m/%y %I:%M %p %z"}, ["2026-07-01T18:15:00+00:00"]),
    ([datetime(2026, 1, 1, 9)], {"zone": "Asia/Tokyo"}, ["2026-01-01T00:00:00+00:00"]),
]


@pytest.mark.parametrize(("cells", "column", "expected"), READ)
def test_times_are_read(
    cells: list[Any], column: dict[str, Any], expected: list[str], source: CsvSource
) -> None:
    assert _read(source, cells, **column)[0] == expected[0]
    assert _read(source, [*cells, None], **column)[-1] is None


def test_a_column_that_knows_its_zone_needs_none(source: CsvSource) -> None:
    tokyo = pl.Series([datetime(2026, 1, 1)]).dt.replace_time_zone("Asia/Tokyo")
    assert _read(source, tokyo) == ["2025-12-31T15:00:00+00:00"]
    with pytest.raises(DatasetError, match="already has a zone, and 'UTC' is declared"):
        _read(source, tokyo, zone="UTC")


REFUSED: list[tuple[list[Any], dict[str, Any], str]] = [
    (["May"], {"format": "unix_s"}, "line 5: 'May' is no finite number"),
    (["1700000000000"], {"format": "unix_s"}, "It may be unix_ms or unix_us"),
    (["-5"], {"format": "unix_s"}, "'-5' as unix_s is before 1970"),
    (["2026-03-01 20:15"], {"format": "iso8601"}, "has no zone, and none is declared"),
    (["2026-03-01"], {"format": "iso8601"}, "is a day without a time of day"),
    (["2026-02-30T10:00Z"], {"format": "iso8601"}, "is no time of the format 'iso8601'"),
    (["20260301"], {"format": "iso8601"}, "is no ISO 8601 time"),
    (["31/02/2026 10:00"], {"format": "%d/%m/%Y %H:%M", "zone": "UTC"}, "is no time of the format"),
    (["2026-10-25 02:30"], {"format": "iso8601", "zone": "Europe/Berlin"}, "comes twice or never"),
    (["2026-03-29 02:30"], {"format": "iso8601", "zone": "Europe/Berlin"}, "comes twice or never"),
    ([datetime(2026, 1, 1, 9)], {}, "has no zone, and none is declared"),
    ([date(2026, 1, 1)], {}, "is a day without a time of day"),
    ([1700000000], {}, "no format says how it is a time"),
    (["2026-03-01"], {}, "no format says how it is a time"),
    ([datetime(1969, 12, 31)], {"zone": "UTC"}, "is before 1970 or after 2099"),
]


@pytest.mark.parametrize(("cells", "column", "says"), REFUSED)
def test_what_is_not_known_is_refused(
    cells: list[Any], column: dict[str, Any], says: str, source: CsvSource
) -> None:
    with pytest.raises(DatasetError) as caught:
        _read(source, cells, **column)
    assert says in str(caught.value)
    assert (caught.value.file, caught.value.column) == ("a.csv", "t")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("2026-03-01T20:15:00+08:00", "2026-03-01T20:15:00"),
        ("2026-03-01T20:15:00", "2026-03-01T20:15:00Z"),
        ("2026-03-01T20:15:00", "2026-03-01"),
    ],
)
def test_mixed_zones_are_refused_within_a_batch_and_across(
    first: str, second: str, source: CsvSource
) -> None:
    column = TimeColumn(column="t", format="iso8601", zone="UTC")
    with pytest.raises(DatasetError, match=r"line 3: .*where earlier rows have"):
        TimeReader(column, days="allowed").read(Cells(source, 0, pl.Series("t", [first, second])))
    reader = TimeReader(column, days="allowed")
    reader.read(Cells(source, 0, pl.Series("t", [first])))
    with pytest.raises(DatasetError, match=r"line 7: .*where earlier rows have"):
        reader.read(Cells(source, 5, pl.Series("t", [second])))


def test_different_offsets_are_the_same_kind_of_time(source: CsvSource) -> None:
    cells = ["2026-03-29T00:30:00+01:00", "2026-03-29T03:30:00+02:00"]
    times = _read(source, cells, format="iso8601")
    assert times == ["2026-03-28T23:30:00+00:00", "2026-03-29T01:30:00+00:00"]


MIDNIGHTS: list[tuple[Any, dict[str, Any]]] = [
    ("2026-03-01", {"format": "iso8601"}),
    ("01.03.2026", {"format": "%d.%m.%Y"}),
    ("2026-03-01T00:00:00+08:00", {"format": "iso8601"}),  # the day there, whatever it is in UTC
    ("2026-03-01 00:00", {"format": "iso8601"}),
    (1772294400, {"format": "unix_s", "zone": "Asia/Shanghai"}),  # 28 February, 16:00 in UTC
    (1772323200, {"format": "unix_s"}),
    (date(2026, 3, 1), {}),
    (datetime(2026, 3, 1), {}),
    (datetime(2026, 3, 1, tzinfo=timezone(timedelta(0))), {}),
]


@pytest.mark.parametrize(("cell", "column"), MIDNIGHTS)
def test_days_are_midnight_utc(cell: Any, column: dict[str, Any], source: CsvSource) -> None:
    assert _read(source, [cell], "only", **column) == ["2026-03-01T00:00:00+00:00"]


@pytest.mark.parametrize(
    ("cell", "column"),
    [
        ("2026-03-01T00:00:01+08:00", {"format": "iso8601"}),
        ("2026-03-01 09:00", {"format": "%Y-%m-%d %H:%M", "zone": "UTC"}),
        (1772294400, {"format": "unix_s"}),
        (datetime(2026, 3, 1, 1), {}),
    ],
)
def test_days_have_no_time_of_day(cell: Any, column: dict[str, Any], source: CsvSource) -> None:
    with pytest.raises(DatasetError, match='has a time of day, but the map says time = "day"'):
        _read(source, [cell], "only", **column)


@pytest.mark.parametrize(
    ("column", "says"),
    [
        ({"format": "seconds"}, "none of unix_s, unix_ms, unix_us and iso8601"),
        ({"format": "%Y-%m-%d %H:%M"}, "these times have no zone"),
        ({"format": "%Y-%m-%d %H:%M %z", "zone": "UTC"}, "leave `zone` out"),
        ({"format": "%Y-%m-%d %H:%M %Z", "zone": "UTC"}, "%Z .* says nothing certain"),
        ({"format": "%Y-%m"}, "does not say year, month and day"),
        ({"format": "%G-W%V"}, "does not say year, month and day"),
        ({"format": "%d/%m %H:%M", "zone": "UTC"}, "does not say year, month and day"),
        ({"format": "%H:%M", "zone": "UTC"}, "does not say year, month and day"),
        ({"format": "%Y-%m-%d %I:%M", "zone": "UTC"}, "no pattern .*12-hour"),
        ({"format": "%Y-%m-%d %H", "zone": "UTC"}, "no pattern .*hour and minute"),
        ({"format": "unix_s", "zone": "Mars/Olympus"}, "no IANA time zone"),
        ({"format": "unix_s", "zone": "../etc/passwd"}, "no IANA time zone"),
        ({"formt": "unix_s"}, "Extra inputs"),
    ],
)
def test_a_time_column_that_cannot_be_is_refused(column: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        TimeColumn(column="t", **column)


@pytest.mark.parametrize(
    ("form", "cell"),
    [
        ("%d %B %Y, %I:%M %p", "01 March 2026, 08:15 PM"),
        ("%-d.%-m.%y %R", "1.3.26 20:15"),
        ("%Y-%j %H:%M", "2026-060 20:15"),
        ("%G-W%V-%u %H:%M", "2026-W09-7 20:15"),
        ("%F %T%.3f", "2026-03-01 20:15:00.000"),
        ("%D %R", "03/01/26 20:15"),
        ("%c", "Sun Mar  1 20:15:00 2026"),
    ],
)
def test_whatever_says_the_whole_day_is_read(form: str, cell: str, source: CsvSource) -> None:
    column = {"format": form, "zone": "UTC"}
    assert _read(source, [cell], "refused", **column) == ["2026-03-01T20:15:00+00:00"]
