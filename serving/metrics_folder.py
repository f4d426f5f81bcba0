"""The folder in which the workers of one server keep what they count.

It goes when the server ends. Where the server was killed it stays, and the next one removes it: a
folder whose lock nobody holds is nobody's. Knows nothing of what is in it.
"""

import contextlib
import fcntl
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

PREFIX = "penchant-metrics-"
LOCK = "lock"


@contextlib.contextmanager
def metrics_folder() -> Iterator[Path]:
    """A new folder in $TMPDIR, this process's own until the end of the block. Raises OSError."""
    _remove_abandoned(Path(tempfile.gettempdir()))
    with tempfile.TemporaryDirectory(prefix=PREFIX) as name:
        folder = Path(name)
        with (folder / "new").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            # Nobody finds it before it is held.
            (folder / "new").rename(folder / LOCK)
            yield folder


def _remove_abandoned(parent: Path) -> None:
    for path in parent.glob(f"{PREFIX}*/{LOCK}"):
        with contextlib.suppress(OSError), path.open("r") as lock:  # someone else's, or gone
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path.parent)
