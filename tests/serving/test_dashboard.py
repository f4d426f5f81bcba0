"""The metrics that are documented, the metrics that are drawn, and the metrics that are served."""

import json
import re
import time
import urllib.request
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest

from serving.client import Client
from serving.errors import BadRequest
from tests.serving.processes import ROOT, Served

Start = Callable[..., AbstractContextManager[Served]]
DOCUMENT = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
DASHBOARD: dict[str, Any] = json.loads((ROOT / "docs/operations/grafana.json").read_text("utf-8"))


def expressions() -> list[str]:
    """Every query of the dashboard: of its panels, and of its variables."""
    found = [t["expr"] for panel in DASHBOARD["panels"] for t in panel.get("targets", ())]
    found += [v["definition"] for v in DASHBOARD["templating"]["list"] if "definition" in v]
    return found


def documented() -> dict[str, tuple[str, set[str]]]:
    """The table of docs/operations.md: metric → kind and labels."""
    rows = re.findall(r"^\| `(penchant_\w+)` \| (\w+) \|([^|]*)\|", DOCUMENT, re.MULTILINE)
    return {name: (kind, set(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}


@pytest.fixture(scope="module")
def served(start_server: Start) -> tuple[dict[str, str], dict[str, set[str]]]:
    """What a server's page has after some calls: metric → kind, sample name → labels."""
    with start_server() as server:
        with Client(server.address, timeout=10) as client:
            client.retrieve("nobody")
            with pytest.raises(BadRequest):
                client.retrieve("u", k=0)
        page, end = "", time.monotonic() + 10
        while "penchant_stage_seconds_count" not in page:  # handed on twice a second
            assert time.monotonic() < end, page
            page = urllib.request.urlopen(server.metrics, timeout=10).read().decode()
    types = re.findall(r"^# TYPE (\w+) (\w+)$", page, re.MULTILINE)
    # prometheus-client adds to a counter when it was made.
    kinds = {name: kind for name, kind in types if not name.endswith("_created")}
    samples: dict[str, set[str]] = {}
    for name, labels in re.findall(r"^(\w+)(?:\{(.*)\})? \S+$", page, re.MULTILINE):
        samples.setdefault(name, set()).update(re.findall(r'(\w+)="', labels))
    return kinds, samples


def test_the_table_has_every_metric_with_its_kind(
    served: tuple[dict[str, str], dict[str, set[str]]],
) -> None:
    kinds, samples = served
    table = documented()
    assert {name for name in kinds if name.startswith("penchant_")} == set(table)
    assert {name: kind for name, (kind, _) in table.items()} == {n: kinds[n] for n in table}
    for name, (_, labels) in table.items():
        for suffix in ("", "_count"):
            if name + suffix in samples:
                assert samples[name + suffix] == labels, name


def test_the_dashboard_draws_metrics_that_there_are(
    served: tuple[dict[str, str], dict[str, set[str]]],
) -> None:
    kinds, _ = served
    drawn = {name for text in expressions() for name in re.findall(r"penchant_\w+", text)}
    assert len(drawn) >= 14
    known = {n for n, kind in kinds.items() if kind != "histogram"}
    for name, kind in kinds.items():
        if kind == "histogram":
            known |= {f"{name}_bucket", f"{name}_sum", f"{name}_count"}
    assert drawn <= known
    # Every metric that is documented is drawn somewhere.
    parts = ("_bucket", "_sum", "_count")
    bases = {next((n.removesuffix(p) for p in parts if n.endswith(p)), n) for n in drawn}
    assert bases == set(documented())


def test_the_dashboards_labels_are_documented() -> None:
    table = documented()
    for text in expressions():
        for name, selector in re.findall(
            r"(penchant_\w+?)(?:_bucket|_sum|_count)?\{([^}]*)\}", text
        ):
            used = set(re.findall(r"(\w+)=~?\"|(\w+)!=\"", selector))
            labels = {label for pair in used for label in pair if label}
            assert labels <= table[name][1] | {"job", "instance"}, text


def test_the_dashboard_is_whole() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert {panel["type"] for panel in panels} == {"row", "stat", "timeseries"}
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
    assert all(text.count("(") == text.count(")") for text in expressions())


def test_every_stage_is_documented() -> None:
    sources = [p.read_text(encoding="utf-8") for p in (ROOT / "serving").rglob("*.py")]
    used = {n for text in sources for n in re.findall(r'\b(?:stage|add_lap)\("(\w+)"', text)}
    table = set(re.findall(r"^\| `(\w+)` \| [^|`]+ \|$", DOCUMENT, re.MULTILINE))
    assert used <= table
