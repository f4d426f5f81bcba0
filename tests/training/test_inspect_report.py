"""What a person sees of an inspection: the terminal, the page, and the command itself."""

import os
import subprocess
import sys
from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from rich.console import Console

from tests.training.contract import Dataset, without_times
from training.html import render
from training.inspection.dataset import Inspection, inspect_dataset
from training.inspection.day_counts import DayCounts, day_counts
from training.inspection.findings import named, plain
from training.inspection.page import inspection_page
from training.inspection.report import report, sparkline
from training.inspection.tables import grids, percent

MARKUP = "[bold]<b>笛</b>"


def penchant(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run the command as a person would, in a wide terminal."""
    return subprocess.run(
        [sys.executable, "-m", "penchant", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "COLUMNS": "160"},
    )


def printed(found: Inspection) -> str:
    console = Console(width=160)
    with console.capture() as capture:
        for part in report(found):
            console.print(part)
    return capture.get().replace("\N{NO-BREAK SPACE}", " ")


@pytest.fixture
def odd(good: Dataset) -> Dataset:
    """One copied event, and many items with a title that looks like markup of two kinds."""
    flutes = [good.items.head(1).with_columns(item_id=pl.lit(f"f{n}")) for n in range(10)]
    good.items = pl.concat([good.items, *flutes]).with_columns(title=pl.lit(MARKUP))
    good.parts.append(good.parts[0].head(1).with_columns(event_id=pl.lit("again")))
    good.write()
    return good


def test_the_terminal_tells_figures_and_findings(odd: Dataset) -> None:
    shown = printed(inspect_dataset(odd.folder))
    assert "10 (76.9 %) without any event" in shown
    assert "2024-05-01 08:30 to 2024-05-01 08:33 UTC, 1 day" in shown
    assert "Gini coefficient" in shown and "Events a day" in shown
    assert "note: 10 of 13 items have no event." in shown
    assert "1. Events that are copies: the same user, item, event and time as another" in shown
    assert "1 of 5 events (20.0 %)" in shown
    assert "events/part-00000.parquet, row 0 and events/part-00002.parquet, row 0" in shown
    assert "2. Items whose title 9 others or more have too" in shown
    assert shown.count(MARKUP) == 2  # as a frequent value and an example: rich left it alone


def test_the_page_tells_the_same(odd: Dataset) -> None:
    found = inspect_dataset(odd.folder)
    page = render(inspection_page(found))
    for finding in found.findings:
        assert finding.what in page and finding.remedy.replace("'", "&#39;") in page
    for grid in grids(found):
        assert f"<h2>{grid.title}</h2>" in page
    assert "[bold]&lt;b&gt;笛&lt;/b&gt;" in page and "<b>" not in page
    # Events a day, new items a day, the tail, the lengths of histories.
    assert page.count("<svg") == 4


@pytest.mark.parametrize("time", ["order", "none"])
def test_without_times_nothing_is_told_by_day(good: Dataset, time: str) -> None:
    dataset = without_times(good, time)
    dataset.items = dataset.items.drop("created_at", "expires_at")
    dataset.write()
    found = inspect_dataset(dataset.folder)
    assert "a day" not in printed(found)
    assert render(inspection_page(found)).count("<svg") == 2


def test_the_command(odd: Dataset, tmp_path: Path) -> None:
    page = tmp_path / "pages" / "inspect.html"
    done = penchant("inspect", odd.folder, "--html", page)
    assert done.returncode == 0, done.stderr
    assert "Events that are copies" in done.stdout and f"Page: {page}" in done.stdout
    assert page.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_without_a_page_the_command_names_one(world: Path) -> None:
    done = penchant("inspect", world)
    assert done.returncode == 0, done.stderr
    assert f"Next: penchant inspect {world} --html FILE" in done.stdout
    assert "Nothing else looks wrong." in done.stdout


def test_the_command_refuses_a_broken_dataset(good: Dataset, tmp_path: Path) -> None:
    good.items = good.items.drop("kind")
    good.write()
    page = tmp_path / "inspect.html"
    done = penchant("inspect", good.folder, "--html", page)
    assert done.returncode == 2
    assert "Error: items.parquet, column 'kind': the column is missing." in done.stderr
    assert "Traceback" not in done.stderr and not page.exists()


def test_a_sparkline_has_a_space_for_nothing_and_a_full_bar_for_the_most() -> None:
    assert sparkline(np.array([0, 1, 4, 8, 0]), width=10) == (" ▁▄█ ", 8)
    # Two days a bar: their means are 1, 4 and 0.
    assert sparkline(np.array([0, 2, 4, 4, 0, 0]), width=3) == ("▂█ ", 4)
    assert sparkline(np.array([0]), width=3) == (" ", 0)


def test_days_are_counted_with_those_between() -> None:
    days = pl.DataFrame(
        {
            "day": [date(2026, 1, 3), date(2026, 1, 1), date(2026, 1, 1), date(2026, 1, 1)],
            "name": ["b", "a", "b", "b"],
            "n": [5, 1, 2, 3],
        }
    )
    found = day_counts(days)
    assert found is not None
    assert {name: counts.tolist() for name, counts in found.counts.items()} == {
        **{"b": [5, 0, 5], "a": [1, 0, 0]}
    }
    assert (found.first, found.last, found.num_days) == (date(2026, 1, 1), date(2026, 1, 3), 3)
    assert day_counts(days.head(0)) is None


def test_a_few_days_far_from_all_others_are_no_part_of_the_bulk() -> None:
    counts = np.zeros(20_000, np.int64)
    counts[-30:] = 100
    counts[0] = 1
    bulk = DayCounts(date(1970, 1, 1), {"a": counts}).bulk()
    assert bulk.num_days == 30 and bulk.total.tolist() == [100] * 30
    assert bulk.last == DayCounts(date(1970, 1, 1), {"a": counts}).last
    # Thirty even days stay as they are.
    assert bulk.bulk() is bulk


@pytest.mark.parametrize(
    ("share", "shown"),
    [
        (0, "0"),
        (1, "100"),
        (0.5, "50.0"),
        (0.0123, "1.2"),
        (0.00052, "0.052"),
        (0.99948, "99.948"),
        (0.0000001, "0.000010"),
    ],
)
def test_percents_keep_two_digits_that_count(share: float, shown: str) -> None:
    assert percent(share) == f"{shown}\N{NO-BREAK SPACE}%"


def test_numbers_and_names_are_short() -> None:
    shown = [plain(x) for x in (0, -1, 0.12345, 61.54321, 1994, 10_196.3, 3e7, 1e300)]
    assert shown == ["0", "-1", "0.1235", "61.54", "1994", "10,196", "30,000,000", "1e+300"]
    assert named(["a", "b"]) == "'a', 'b'"
    assert named(["x" * 100, "b", "c", "d"], most=1) == f"'{'x' * 59}, …"
