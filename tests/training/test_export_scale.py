"""What an export owes to large catalogues: named items without vectors, and histories in groups."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from model.config import FeatureSpec, TowerConfig
from model.errors import ConfigError, NoVector
from model.towers import TwoTower
from tests.training.conftest import Exported, Trained
from training import export
from training.dataset import load_user_ids, read_items_table
from training.onnx_towers import require_exportable
from training.run import load_best


def test_an_item_without_a_vector_is_named_and_nothing_is_written(
    trained: Trained, tmp_path: Path
) -> None:
    run = trained.open()
    model, _ = load_best(run)
    row = int(torch.nonzero(run.items.id_codes)[7])
    with torch.no_grad():
        model.item_tower.ids[run.items.id_codes[row]] = float("nan")
    name = read_items_table(run.dataset)["item_id"][row].as_py()
    out = tmp_path / "out"
    with pytest.raises(NoVector, match=rf"NaN or infinity for item '{name}' \(1 of 500 here\)"):
        export.export_run(run, model, bundle=out / "bundle", snapshot=out / "snapshot")
    assert not out.exists()


@pytest.mark.parametrize("users", [1, 7, 46])
def test_histories_written_in_groups_are_those_written_at_once(
    trained: Trained,
    exported: Exported,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    users: int,
) -> None:
    run = trained.open()
    monkeypatch.setattr(export, "_GROUP_USERS", users)
    num_users = export.write_snapshot(run, tmp_path / "s", as_of=None, replace=False)
    assert num_users == len(load_user_ids(run.arrays)) == 46
    groups = pq.ParquetFile(tmp_path / "s/histories.parquet")
    assert groups.num_row_groups == -(-46 // users)
    assert groups.read().equals(pq.read_table(exported.snapshot / "histories.parquet"))
    bodies = [
        json.loads((folder / "manifest.json").read_text())
        for folder in (tmp_path / "s", exported.snapshot)
    ]
    assert bodies[0]["num_events"] == bodies[1]["num_events"]


def test_features_that_outgrow_an_onnx_file_are_refused_before_anything_is_done() -> None:
    def towers(num_creators: int, dim: int) -> TwoTower:
        config = TowerConfig(
            num_items=1_000_000_000,  # the table of ids is no part of the graph
            dim=dim,
            num_events=1,
            id_dropout=0.0,
            item_features=(
                FeatureSpec(name="kind", type="category", size=6),
                FeatureSpec(name="creator", type="category", size=num_creators),
            ),
        )
        with torch.device("meta"):  # shapes without memory
            return TwoTower(config)

    require_exportable(towers(8_000_000, 64))
    with pytest.raises(
        ConfigError, match=r"2\.15 GiB .*`dim` of 58 .*'creator' alone has 9,000,000"
    ):
        require_exportable(towers(9_000_000, 64))
    require_exportable(towers(9_000_000, 58))
