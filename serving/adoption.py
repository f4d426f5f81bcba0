"""A state folder has one bundle: the first server of it says which, others must have the same."""

import contextlib
import os
from collections.abc import Iterator

from model.errors import ConfigError
from model.manifest import stated_version
from serving.config import ServerConfig
from serving.locks import lock_file
from serving.store.base import store_path
from serving.store.database import Database
from serving.store.generations import GenerationLog


@contextlib.contextmanager
def adopted(config: ServerConfig) -> Iterator[None]:
    """Make the bundle that the server was started with the active one of its state.

    A second server of the same state serves the same bundle, or raises ConfigError: an activation
    is of all workers of a state.
    """
    path = config.bundle.absolute()
    version = stated_version(path, kind="bundle")
    database = Database(store_path(config.state))
    lock = lock_file(config.state / "server.lock")
    try:
        generations = GenerationLog(database)
        if lock is not None:
            generations.adopt(path, version)
        else:
            active = generations.active()
            if active is None or active.version != version:
                raise ConfigError(
                    f"{config.state} is served already, with {active and active.path}; give this "
                    "server another --state, or change the bundle with penchant activate"
                )
    except BaseException:
        if lock is not None:
            os.close(lock)
        raise
    finally:
        database.close()
    try:
        yield
    finally:
        if lock is not None:
            os.close(lock)
