"""The process beside the workers that seals live items and activates bundles.

    python -m serving.live.background < config.json

is how the supervisor starts it: the first line of stdin is a ServerConfig as JSON, the end of stdin
means that the supervisor is gone. It runs at low priority, and no request ever waits for it.
"""

import os
import signal
import sys
import threading
import time
from dataclasses import replace

from model.errors import PenchantError
from serving.config import ServerConfig
from serving.errors import StoreUnavailable
from serving.live.activation import Activator, open_generation
from serving.live.compactor import Compactor
from serving.locks import lock_file
from serving.logs import configure_logs, logger
from serving.parent import stop_with_parent
from serving.signals import on_signals
from serving.store.base import store_path
from serving.store.choice import open_store
from serving.store.database import Database
from serving.store.generations import GenerationLog

_POLL_SECONDS = 0.1
_NICENESS = 10
_CHECKPOINT_SECONDS = 60.0


def run(config: ServerConfig, stopping: threading.Event) -> None:
    """Seal and activate until told to stop.

    Raises BundleRejected, ConfigError and StoreUnavailable.
    """
    config = replace(config, index="bundle")  # the GPU is the workers'
    database = Database(store_path(config.state))
    store = None
    try:
        store = open_store(config.store, lambda: database, allows_loss=config.store_allows_loss)
        active = GenerationLog(database).active()
        path, version = (config.bundle, "") if active is None else (active.path, active.version)
        generation = open_generation(config, path, version)
        compactor = Compactor(config, database, store.items, generation=generation)
        activator = Activator(config, database, store.items)
        due = 0.0
        while not stopping.wait(_POLL_SECONDS):
            try:
                compactor = activator.step(compactor)
                activator.tidy(compactor)
                compactor.step()
                if time.monotonic() >= due:
                    database.checkpoint()  # what a deletion could not empty while somebody read
                    due = time.monotonic() + _CHECKPOINT_SECONDS
            except (StoreUnavailable, OSError) as error:
                logger().error("could not seal, trying again", reason=str(error))
                stopping.wait(10.0)
    finally:
        if store is not None:
            store.close()
        database.close()


def main() -> int:
    """Run until SIGTERM or the end of stdin; returns the exit code."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the supervisor, which sends TERM
    stopping = threading.Event()
    on_signals({signal.SIGTERM: stopping.set})
    config = ServerConfig.from_json(sys.stdin.readline())
    configure_logs(config.log_level, worker="background")
    os.nice(_NICENESS)
    stop_with_parent(stopping)
    while lock_file(config.state / "background.lock") is None:
        if stopping.wait(1.0):
            return 0
    try:
        run(config, stopping)
    except (PenchantError, OSError) as error:
        logger().error("cannot seal or activate", reason=str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
