"""`penchant import kuairand | taobao | mule | retailrocket` as a person meets them."""

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.training.kuairand_files import release
from training.import_cli import importers
from training.validate import validate_dataset


def run(*arguments: str) -> str:
    done = CliRunner(env={"COLUMNS": "200", "TERM": "dumb"}).invoke(
        importers, arguments, catch_exceptions=False
    )
    assert done.exit_code == 0, done.output
    return done.output


@pytest.mark.parametrize(
    ("command", "files", "origin"),
    [
        ("kuairand", "log_random_*.csv", "https://zenodo.org/records/10439422"),
        ("taobao", "UserBehavior.csv", "https://tianchi.aliyun.com/dataset/649"),
        ("mule", "view.txt", "https://github.com/geonwooko/MULE"),
        (
            "retailrocket",
            "item_properties_part1.csv",
            "https://www.kaggle.com/datasets/retailrocket/ecommerce-dataset",
        ),
    ],
)
def test_help_teaches(command: str, files: str, origin: str) -> None:
    page = run(command, "--help")
    assert files in page and origin in page
    assert f"Example: penchant import {command} " in page


def test_taobao_says_what_it_dropped_and_what_comes_next(tmp_path: Path) -> None:
    lines = "1,2,3,pv,1511600000\n1,2,3,buy,1511700000\n1,2,3,buy,1511700000\n1,2,3,pv,1\n"
    (tmp_path / "UserBehavior.csv").write_text(lines)
    out = tmp_path / "data set"
    said = run("taobao", str(tmp_path), str(out), "--last-day", "2017-11-26")
    assert re.search(r"written +2 events", said)
    assert re.search(r"dropped +1 UserBehavior.csv: exact duplicates", said)
    assert re.search(r"dropped +1 .*outside 2017-11-25 to 2017-11-26 in China", said)
    assert f"Next: penchant train '{out}' --out RUN" in said
    assert validate_dataset(out).num_events == 2


def test_kuairand_tells_its_notes(tmp_path: Path) -> None:
    said = run("kuairand", str(release(tmp_path / "in")), str(tmp_path / "out"))
    assert re.search(r"written +5 exposures", said)
    assert "note     The random exposures (is_rand = 1) are the event 'random_show'" in said
    assert f"Next: penchant train {tmp_path / 'out'}" in said


def test_mule_and_retailrocket_run(tmp_path: Path) -> None:
    for name in ("view", "cart", "train", "valid", "test"):
        (tmp_path / f"{name}.txt").write_text(f"1 {len(name)}\n2 {len(name) + 5}\n")
    assert "Next: penchant train" in run("mule", str(tmp_path), str(tmp_path / "mule"))
    header = "user\titem\tbehaviour\tunix_ts\n"
    (tmp_path / "interactions.tsv").write_text(header + "0\t3\tview\t1433221969\n")
    (tmp_path / "test_buy.tsv").write_text("user\titem\n0\t4\n")
    said = run("retailrocket", str(tmp_path), str(tmp_path / "retailrocket"))
    assert "Next: penchant train" in said
