"""`penchant simulate --policy` with a real server: every step by its command, over sockets."""

import json
from pathlib import Path

import polars as pl

from tests.serving.processes import penchant


def test_a_server_fills_the_feeds_and_learns_anew(tmp_path: Path) -> None:
    out = tmp_path / "loop"
    arguments = [
        "simulate", str(out), "--seed", "3", "--users", "120", "--items", "500", "--days", "8",
        "--loop-days", "3", "--retrain-every", "2", "--set", "epochs=1",
        "--policy", "random", "--policy", "interest",
    ]  # fmt: skip
    done = penchant(*arguments, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "stirred_orders" in done.stdout and "interest" in done.stdout
    found = json.loads((out / "report.json").read_text())
    assert found["interest"]["by_day"]["impressions"] != found["random"]["by_day"]["impressions"]
    assert found["interest"]["total"]["impressions"] > 300
    assert "<svg" in (out / "report.html").read_text()

    folder = out / "policies" / "interest"
    learned = folder / "learned-1"
    served = json.loads((folder / "served.json").read_text())
    # The gate may refuse what so few learned; then that is said, and the first is served on.
    refused = [note for note in found["interest"]["notes"] if "learned-1 was refused" in note]
    paths = [out / "made" / "bundle", *([] if refused else [learned / "bundle"])]
    assert [Path(one["path"]) for one in served] == paths
    assert (learned / "bundle" / "manifest.json").exists()
    # What was shown is what was recorded, exported, and learned from: two days of three.
    exported = pl.read_parquet(folder / "dataset" / "events" / "part-live-*.parquet")
    shown = exported.filter(pl.col("event") == "exposure")
    expected = sum(found["interest"]["by_day"]["impressions"][:2])
    assert shown.height == expected
    assert not shown.select("user_id", "item_id").is_duplicated().any()
    # Items that came since the warm-up were found by what they are.
    before = pl.read_parquet(out / "warm-up" / "items.parquet")["item_id"]
    assert shown.filter(~pl.col("item_id").is_in(before.implode())).height > 0
    assert exported["event"].n_unique() > 4

    again = penchant(*arguments, timeout=60)
    assert again.returncode == 0 and "stirred_orders" in again.stdout


def test_wrong_arguments_say_what_to_do(tmp_path: Path) -> None:
    for arguments, message in (
        (["--policy", "best"], "no policy is called 'best'; there are: popularity"),
        (["--policy", "random", "--loop-days", "0"], "loop_days = 0 is not allowed"),
        (["--policy", "interest", "--set", "epoch=1"], "no field is called 'epoch'"),
        (["--world", "tastes=1"], "--world tastes=1: no field is called 'tastes'. Did you mean"),
        (["--set", "epochs=1"], "give a --policy, too"),
    ):
        done = penchant("simulate", str(tmp_path / "out"), *arguments)
        assert done.returncode == 2, arguments
        assert message in done.stderr, done.stderr
    assert not (tmp_path / "out").exists()
    told = penchant("simulate", "--help").stdout
    assert "--policy" in told and "interest+floors" in told and "--retrain-every" in told
