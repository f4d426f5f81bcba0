"""What is printed is what was said: no part of a name is taken for markup."""

import pytest
from rich.console import Console

from training import terminal
from training.compare import Difference
from training.evaluation_report import comparison_table

NAME = "data [x]/[/red] :fire:[bold"


@pytest.fixture
def console(monkeypatch: pytest.MonkeyPatch) -> Console:
    recording = Console(record=True, width=40)
    monkeypatch.setattr(terminal, "console", recording)
    monkeypatch.delenv("PENCHANT_SUGGEST", raising=False)
    return recording


def test_names_are_printed_as_they_are(console: Console) -> None:
    terminal.say(f"{NAME} is a dataset now, and this line stays one line.", style="yellow")
    terminal.suggest(f"penchant train {NAME}")
    assert console.export_text().splitlines() == [
        f"{NAME} is a dataset now, and this line stays one line.",
        f"Next: penchant train {NAME}",
    ]


def test_bars_show_names_as_they_are(console: Console) -> None:
    console.width = 120
    with terminal.progress_bar(NAME) as progress:
        progress(0.5, f"reading {NAME}")
    with terminal.rows_bar(NAME) as rows:
        rows(1, 2)
    assert console.export_text().count(NAME) >= 2


def test_tables_show_names_as_they_are(console: Console) -> None:
    gap = Difference(0.1, 0.0, 0.2, 3)
    console.width = 120
    terminal.say(comparison_table({"hr@5": gap}, candidate=NAME, reference="[/b]"))
    assert f"{NAME} minus [/b]" in console.export_text()
