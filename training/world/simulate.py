"""A synthetic interest economy with known ground truth: `penchant simulate OUT`.

Draws a catalogue and people, lets a logging policy fill their feeds day by day, and writes a
dataset like any other, with the truth beside it in OUT/truth. What is in it, and which parameter
does what, is in config.py; the mechanism is in life.py. Knows nothing of training.
"""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from model.atomic import sync, sync_tree
from model.errors import DatasetError
from training.world.catalogue import draw_catalogue
from training.world.config import DAY, WorldConfig
from training.world.life import Life
from training.world.log import EventLog
from training.world.orders import place_orders
from training.world.people import draw_people
from training.world.policy import LoggingPolicy
from training.world.tables import write_dataset, write_truth

__all__ = ["WorldConfig", "simulate"]


def simulate(
    config: WorldConfig, out: Path, *, progress: Callable[[float, str], None] | None = None
) -> None:
    """Simulate a world and write it to the folder `out`, whole or not at all.

    progress: called with the share that is done, 0 to 1, and what is being done.
    Raises DatasetError if `out` is there and is not an empty folder.
    """
    out = out.absolute()
    _refuse_existing(out)
    tell = progress or (lambda share, what: None)
    tell(0.0, "drawing items and people")
    catalogue, people = draw_catalogue(config), draw_people(config)
    policy = LoggingPolicy(config, catalogue, people)
    life, log = Life(config, catalogue, people), EventLog()
    for number in range(config.num_days):
        tell(0.1 + 0.6 * number / config.num_days, f"day {number + 1} of {config.num_days}")
        day = config.begin + number * DAY
        rng = np.random.default_rng([config.seed, 5, number])
        sessions = life.wake(day, rng)
        policy.learn(*life.live(policy.choose(day, sessions, rng), sessions, log, rng))
    tell(0.7, "placing orders")
    rows, orders = place_orders(
        config,
        catalogue,
        people,
        wishes=life.wishes,
        log=log,
        since=config.begin,
        until=config.end,
        rng=np.random.default_rng([config.seed, 4]),
    )

    tell(0.75, "writing")
    out.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        folder.chmod(0o755)
        numbers = write_dataset(config, folder, catalogue=catalogue, people=people, log=log)
        (folder / "truth").mkdir()
        write_truth(
            config,
            folder / "truth",
            catalogue=catalogue,
            people=people,
            life=life,
            orders=orders,
            order_number=numbers[rows],
            watch_number=numbers[orders.watch],
        )
        sync_tree(folder)
        _refuse_existing(out)
        folder.rename(out)
        sync(out.parent)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    tell(1.0, "done")


def _refuse_existing(out: Path) -> None:
    if not out.exists() and not out.is_symlink():
        return
    if out.is_dir() and not out.is_symlink() and not any(out.iterdir()):
        return
    raise DatasetError(
        "there is already something here.",
        file=str(out),
        remedy="Name a folder that does not exist yet, or remove this one first.",
    )
