"""Bundles that older versions wrote are served, and answer as they did then."""

import json
from pathlib import Path

import pytest

from model.manifest import FORMAT, READS
from serving.client import Client
from tests.serving.processes import penchant, serve
from tests.serving.tiny import START, item_id

GOLDEN = Path(__file__).parents[1] / "golden"
TIME_US = int(START.timestamp() * 1e6) + 30 * 86_400_000_000
USERS = ["user-005", "user-011", "nobody"]
ITEMS = [item_id(row) for row in range(0, 600, 25)]


def test_every_older_format_that_is_read_has_its_bundle() -> None:
    kept = sorted(path.name for path in GOLDEN.glob("format-*"))
    assert kept == [f"format-{number}" for number in sorted(READS) if number != FORMAT]


@pytest.mark.parametrize("number", [number for number in READS if number != FORMAT])
def test_an_older_bundle_answers_as_it_did(number: int, tmp_path: Path) -> None:
    folder = GOLDEN / f"format-{number}"
    asked = json.loads((folder / "answers.json").read_text())
    state = tmp_path / "state"
    loaded = penchant("load-users", str(folder / "snapshot"), "--state", str(state))
    assert loaded.returncode == 0, loaded.stderr
    with (
        serve(folder / "bundle", state, tmp_path / "log") as served,
        Client(served.address, timeout=20) as client,
    ):
        found = client.retrieve(USERS, k=10, time_us=TIME_US)
        ranked = client.rerank(USERS, [ITEMS] * len(USERS), time_us=TIME_US)
    assert list(found.item_ids) == asked["retrieved"]
    assert found.scores == pytest.approx(asked["scores"], abs=1e-4)
    assert list(ranked.item_ids) == asked["reranked"]
    assert ranked.values == pytest.approx(asked["values"], abs=1e-4)
