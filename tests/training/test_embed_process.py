"""`penchant embed` as a process: killed, interrupted, begun with other arguments, and measured."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest

from tests.training.conftest import Exported
from training.parts import MANIFEST, UNFINISHED, command_to_finish

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "COLUMNS": "300"}
PART_ROWS = 250


def embed(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "penchant", "embed", *map(str, arguments)]


def run(*arguments: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        embed(*arguments), cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=120
    )


def items(exported: Exported, dataset: Path, out: Path) -> tuple[object, ...]:
    """The arguments that embed the dataset in small parts."""
    where = ("--dataset", dataset, "--out", out)
    return ("items", exported.bundle, *where, "--part-rows", PART_ROWS)


def num_parts(out: Path) -> int:
    return len(list(out.glob("part-*.parquet")))


def start_and_wait(
    out: Path, enough: Callable[[], bool], *arguments: object
) -> "subprocess.Popen[str]":
    process = subprocess.Popen(
        embed(*arguments),
        cwd=ROOT,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # so that a signal can be sent to all of it, as a terminal does
    )
    deadline = time.monotonic() + 100
    while not enough():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[0]
        time.sleep(0.001)
    return process


def left_of(process: "subprocess.Popen[str]", command: str = "") -> list[int]:
    """The living processes of the session that `process` leads, with `command` in their own."""
    listed = subprocess.run(
        ["ps", "-Aww", "-o", "pid=,sess=,stat=,args="], capture_output=True, text=True, check=True
    ).stdout
    rows = [line.split(maxsplit=3) for line in listed.splitlines()]
    return [
        int(pid)
        for pid, session, state, arguments in rows
        if int(session) == process.pid and state[0] != "Z" and command in arguments
    ]


def none_left(process: "subprocess.Popen[str]") -> bool:
    deadline = time.monotonic() + 20
    while left_of(process) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not left_of(process)


@pytest.fixture(scope="module")
def many(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of 25,000 items, most of which the bundle does not have."""
    return grown(world, tmp_path_factory.mktemp("many") / "dataset", 50)


def grown(world: Path, dataset: Path, times: int) -> Path:
    """The world's items, and so many times as many under other ids."""
    dataset.mkdir()
    (dataset / "dataset.toml").write_bytes((world / "dataset.toml").read_bytes())
    items = pl.read_parquet(world / "items.parquet")
    copies = [
        items.with_columns(item_id=pl.col("item_id") + f"-{i}", title=pl.col("title") + f" no {i}")
        for i in range(1, times)
    ]
    pl.concat([items, *copies]).write_parquet(dataset / "items.parquet")
    return dataset


@pytest.fixture(scope="module")
def steady(exported: Exported, many: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedding of `many`, never interrupted."""
    out = tmp_path_factory.mktemp("steady") / "out"
    done = run(*items(exported, many, out))
    assert done.returncode == 0, done.stderr
    assert "25,000 items in" in done.stdout and "a second" in done.stdout
    return out


def test_killed_again_and_again_it_ends_with_every_row_once(
    exported: Exported, many: Path, steady: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    arguments = items(exported, many, out)
    chance = random.Random(3)
    kills = 0
    for goal in (1, 20, 45, 70):

        def enough(goal: int = goal) -> bool:
            return num_parts(out) >= goal

        process = start_and_wait(out, enough, *arguments)
        time.sleep(chance.random() * 0.02)  # anywhere between two parts
        # The leader alone: its workers must notice by themselves.
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert none_left(process)
        kills += (out / UNFINISHED).exists()
        assert not (out / MANIFEST).exists() or not (out / UNFINISHED).exists()
        for part in out.glob("part-*.parquet"):  # whole, whatever happened
            assert pq.read_table(part).num_rows == PART_ROWS
    assert kills >= 3
    before = {p.name: p.stat().st_mtime_ns for p in out.glob("part-*.parquet")}
    done = run(*arguments)
    assert done.returncode == 0, done.stderr
    assert re.search(r"25,000 items in \S+, [\d,]+ of them by an earlier run", done.stdout)
    assert {name: (out / name).stat().st_mtime_ns for name in before} == before
    assert sorted(p.name for p in out.iterdir()) == sorted(p.name for p in steady.iterdir())
    frames = [pl.read_parquet(folder / "part-*.parquet") for folder in (out, steady)]
    assert frames[0]["item_id"].n_unique() == 25_000
    assert frames[0].equals(frames[1])  # to the last bit
    files = [json.loads((folder / MANIFEST).read_text())["files"] for folder in (out, steady)]
    assert files[0] == files[1] and len(files[0]) == 100


def test_a_part_that_is_damaged_is_made_again(
    exported: Exported, many: Path, steady: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    arguments = items(exported, many, out)
    process = start_and_wait(out, lambda: num_parts(out) >= 3, *arguments)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert none_left(process)
    damaged = min(out.glob("part-*.parquet"))
    damaged.write_bytes(damaged.read_bytes()[:1000])
    (out / ".part-00099.parquet.partial-1").write_bytes(b"left behind")
    # Ended by its own command, which the folder knows.
    command = command_to_finish(out)
    assert command is not None and command.startswith("penchant embed items")
    done = run(*command.split()[2:])
    assert done.returncode == 0, done.stderr
    assert command_to_finish(out) is None
    files = [json.loads((folder / MANIFEST).read_text())["files"] for folder in (out, steady)]
    assert files[0] == files[1]
    assert sorted(p.name for p in out.iterdir()) == sorted(p.name for p in steady.iterdir())


def test_ctrl_c_names_the_command_that_goes_on(
    exported: Exported, many: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    arguments = items(exported, many, out)
    process = start_and_wait(out, lambda: num_parts(out) >= 2, *arguments, "--overwrite")
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the workers hear it too
    shown = process.communicate(timeout=60)[0]
    assert process.returncode == 130 and none_left(process)
    assert "Traceback" not in shown and "KeyboardInterrupt" not in shown
    command = f"penchant embed items {exported.bundle} --dataset {many} --out {out}"
    assert f"go on with: {command} --part-rows {PART_ROWS}\n" in shown

    # Meanwhile other arguments are refused, and say how to finish.
    users = run("users", exported.bundle, "--snapshot", exported.snapshot, "--out", out)
    assert users.returncode == 2
    assert "unfinished embeddings of something else: of is items there and users" in users.stderr
    assert f"Finish it with: {command}" in users.stderr and "--overwrite" in users.stderr
    other = run("items", exported.bundle, "--dataset", many, "--out", out, "--part-rows", 99)
    assert other.returncode == 2 and "part_rows is 250 there and 99 now" in other.stderr
    # --overwrite begins anew, with whatever arguments.
    anew = run(
        "users", exported.bundle, "--snapshot", exported.snapshot, "--out", out, "--overwrite"
    )
    assert anew.returncode == 0, anew.stderr
    assert [p.name for p in sorted(out.iterdir())] == [MANIFEST, "part-00000.parquet"]


def test_a_finished_folder_is_left_as_it_is(
    exported: Exported, many: Path, steady: Path, tmp_path: Path
) -> None:
    before = {p.name: p.stat().st_mtime_ns for p in steady.iterdir()}
    again = run("items", exported.bundle, "--dataset", many, "--out", steady)
    assert again.returncode == 0 and "finished already; nothing was done" in again.stdout
    users = run("users", exported.bundle, "--snapshot", exported.snapshot, "--out", steady)
    assert users.returncode == 2
    assert "finished embeddings of something else" in users.stderr
    assert {p.name: p.stat().st_mtime_ns for p in steady.iterdir()} == before
    # What is not ours is neither written into nor removed.
    (tmp_path / "notes.txt").write_text("mine")
    arguments = ("--dataset", many, "--out", tmp_path, "--overwrite")
    foreign = run("items", exported.bundle, *arguments)
    assert foreign.returncode == 2 and "holds something else than embeddings" in foreign.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def test_a_run_that_ended_between_two_steps_is_understood(
    exported: Exported, many: Path, steady: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(steady, out)
    manifest = json.loads((out / MANIFEST).read_text())
    # The manifest was there, the other note not yet gone.
    (out / UNFINISHED).write_text("{}")
    again = run(*items(exported, many, out))
    assert again.returncode == 0 and "finished already" in again.stdout
    assert not (out / UNFINISHED).exists()
    # --overwrite had begun to remove what was there.
    (out / MANIFEST).rename(out / UNFINISHED)
    (out / "part-00007.parquet").unlink()
    other = run(*items(exported, many, out), "--part-rows", PART_ROWS - 1)
    assert other.returncode == 2 and "part_rows is 250 there and 249 now" in other.stderr
    assert run(*items(exported, many, out)).returncode == 0
    assert json.loads((out / MANIFEST).read_text())["files"] == manifest["files"]
    # Nothing but a note that was never finished.
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / ".unfinished.json.partial-77").write_text('{"kind":')
    begun = run("users", exported.bundle, "--snapshot", exported.snapshot, "--out", empty)
    assert begun.returncode == 0, begun.stderr
    assert [p.name for p in sorted(empty.iterdir())] == [MANIFEST, "part-00000.parquet"]


def test_two_at_once_are_refused_and_a_dead_worker_is_no_hang(
    exported: Exported, many: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    arguments = (*items(exported, many, out), "--workers", 1)
    process = start_and_wait(out, lambda: num_parts(out) >= 1, *arguments)
    os.killpg(process.pid, signal.SIGSTOP)
    try:
        second = run(*arguments)
        assert second.returncode == 2 and "another process is writing into" in second.stderr
        (worker,) = left_of(process, "spawn_main")
        os.kill(worker, signal.SIGKILL)
    finally:
        os.killpg(process.pid, signal.SIGCONT)
    shown = process.communicate(timeout=60)[0]
    assert process.returncode == 2 and "a worker process was ended from outside" in shown
    assert none_left(process) and 1 <= num_parts(out) < 100


MEASURED = """
import resource, sys
from pathlib import Path
from training.embed_files import embed_items
if __name__ == "__main__":
    bundle, dataset, out = map(Path, sys.argv[1:])
    embed_items(bundle, dataset, out, workers=1, part_rows=2000)
    print(*(resource.getrusage(who).ru_maxrss // 1024
            for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))
"""


def test_memory_does_not_grow_with_the_rows_and_no_torch_is_needed(
    exported: Exported, world: Path, tmp_path: Path
) -> None:
    script = tmp_path / "measured.py"
    script.write_text(MEASURED)
    (tmp_path / "torch.py").write_text("raise ImportError('there is no torch here')")
    environment = {**ENVIRONMENT, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    peaks, out = [], tmp_path / "out"
    for times in (8, 80):
        dataset = grown(world, tmp_path / f"dataset-{times}", times)
        shown = subprocess.run(
            [sys.executable, script, exported.bundle, dataset, out / str(times)],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        peaks.append([int(word) for word in shown.split()])
    # 36,000 items more: as Python objects, 100 MB or more; as vectors, 2 MB in all.
    for small, large in zip(*peaks, strict=True):
        assert large - small < 25, peaks
    assert np.isfinite(pl.read_parquet(out / "80/part-*.parquet")["vector"].to_numpy()).all()
