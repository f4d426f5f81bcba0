"""The server of a closed loop: it ends with the process that started it."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.serving.processes import ROOT, environment
from tests.serving.tiny import World

_PARENT = """
import sys, time
from pathlib import Path
from serving.shop import Shop

bundle, state, folder, front_door = sys.argv[1:]
shop = Shop(
    Path(folder), made=Path(folder), command=(sys.executable, front_door), weights={}
)
shop.serve(Path(bundle), Path(state))
print(shop._process.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_the_server_ends_with_the_loop(world: World, tmp_path: Path, how: signal.Signals) -> None:
    words = [world.bundle, tmp_path / "state", tmp_path, ROOT / "penchant.py"]
    loop = subprocess.Popen(
        [sys.executable, "-c", _PARENT, *map(str, words)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    assert loop.stdout is not None
    server = int(loop.stdout.readline())
    children = Path(f"/proc/{server}/task/{server}/children").read_text().split()
    family = [server, *map(int, children)]
    assert len(family) >= 3  # the supervisor, a worker, the background process
    loop.send_signal(how)
    loop.wait(30)
    loop.stdout.close()
    patience = time.monotonic() + 60
    while any(is_running(pid) for pid in family):
        assert time.monotonic() < patience
        time.sleep(0.05)


def is_running(pid: int) -> bool:
    """Whether the process is there and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
