"""Workers that open one bundle's index and vectors hold them in memory once, not once each."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from model.ann import write_index
from model.ivf import build_ivf
from tests.serving.processes import ROOT, environment

NUM_ROWS, DIM, NUM_LISTS = 300_000, 64, 128
ROLLUP = Path("/proc/self/smaps_rollup")

WORKER = """
import sys
from pathlib import Path
import numpy as np
from model.ann import open_index
from model.ivf import Setting
from serving.index.base import Bitmap
from serving.index.ivf_index import IvfIndex

def pause():
    print("here", flush=True)
    sys.stdin.readline()

folder, num_lists = Path(sys.argv[1]), int(sys.argv[2])
pause()
vectors = np.asarray(np.load(folder / "vectors.npy", mmap_mode="r"))
index = IvfIndex(open_index(folder / "index.faiss"), vectors, Setting(num_lists, 200))
rows, scores = index.search(vectors[:3], 100)          # every list
rows, scores = index.search(vectors[:3], 100, allowed=Bitmap(np.arange(len(vectors)) % 2 == 0))
vectors.sum()                                          # every vector
pause()
"""


@pytest.mark.skipif(not ROLLUP.exists(), reason=f"no {ROLLUP}: this is no Linux")
def test_two_workers_share_one_copy_of_the_index(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    vectors = rng.normal(size=(NUM_ROWS, DIM)).astype(np.float32)
    np.save(tmp_path / "vectors.npy", vectors)
    write_index(build_ivf(vectors, vectors[:100], num_lists=NUM_LISTS), tmp_path / "index.faiss")
    files = sum((tmp_path / name).stat().st_size for name in ("vectors.npy", "index.lists"))
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(tmp_path), str(NUM_LISTS)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**environment(), "OMP_NUM_THREADS": "1"},
            cwd=ROOT,
        )
        for _ in range(2)
    ]
    try:
        moments, mapped = [], [(0, 0)]
        for _ in range(2):
            for worker in workers:
                assert worker.stdout is not None and worker.stdout.readline() == "here\n"
            moments.append([memory(worker.pid) for worker in workers])
            mapped = [in_place(worker.pid, tmp_path / "index.lists") for worker in workers]
            for worker in workers:
                assert worker.stdin is not None
                worker.stdin.write("\n")
                worker.stdin.flush()
    finally:
        for worker in workers:
            worker.communicate(timeout=60)
    before, after = moments
    grown = [
        {field: then[field] - now[field] for field in now}
        for now, then in zip(before, after, strict=True)
    ]
    # Each has all of both files in its address space …
    assert all(worker["Rss"] > 0.95 * files for worker in grown), grown
    # … and together they hold about one copy: Pss counts a page that two share as half a page each.
    shared = sum(worker["Pss"] - worker["Anonymous"] for worker in grown)
    assert 0.95 * files < shared < 1.15 * files, grown
    # The index is read where it lies: its pages are those of the file, written to by nobody.
    size = (tmp_path / "index.lists").stat().st_size
    assert all(rss > 0.95 * size and dirty == 0 for rss, dirty in mapped), (mapped, size)
    # What each has for itself is little: for each row the number of its list, a bitmap; no codes.
    assert all(worker["Anonymous"] < 0.5 * size for worker in grown), (grown, size)


def memory(pid: int) -> dict[str, int]:
    """Sizes of a process in bytes, from smaps_rollup."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    sizes = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines}
    return {field: sizes[field] for field in ("Rss", "Pss", "Anonymous")}


def in_place(pid: int, file: Path) -> tuple[int, int]:
    """Bytes of the mapped file that a process has in memory, and those that it has written to."""
    rss = dirty = 0
    inside = False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        field, *rest = line.split()
        if not field.endswith(":"):  # the first line of a mapping: addresses … path
            inside = line.endswith(str(file))
        elif inside and field in ("Rss:", "Private_Dirty:"):
            size = int(rest[0]) * 1024
            rss, dirty = (rss + size, dirty) if field == "Rss:" else (rss, dirty + size)
    return rss, dirty
