"""One Redis that several servers share: how it is reached, what is asked of it, and transactions.

A transaction is optimistic: what it read is watched, and where somebody else has changed it
meanwhile, nothing is written and all is done again. Knows the names of the keys, and nothing of
what they mean. The only file that imports `redis`, which is the extra [redis].
"""

import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from model.errors import ConfigError
from serving.errors import StoreUnavailable

T = TypeVar("T")

Command = tuple[str | bytes | int, ...]

FORMAT = 1
_PREFIX = "penchant:"
STORE = _PREFIX + "store"
"""A hash: the format, and `id`, which another Redis, or one that was emptied, does not have."""
NAMES, DELETED = _PREFIX + "event-names", _PREFIX + "deleted"
USERS, NEXT_USER = _PREFIX + "users", _PREFIX + "next-user"
LOG, NEXT_LOGGED = _PREFIX + "log", _PREFIX + "next-logged"
FEED, SEQUENCE = _PREFIX + "items", _PREFIX + "sequence"

_READ_SECONDS, _WRITE_SECONDS, _CONNECT_SECONDS = 5.0, 30.0, 2.0
_MOST_CONNECTIONS = 4096
"""More than a worker has threads; each connection serves one at a time."""
_CONFLICT_SECONDS = 30.0
"""How long a transaction is made again and again while others write the same."""
_LEAST_VERSION = (7, 0)
_DURABLE = {"appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction"}


def user_key(user_id: str) -> str:
    """Where a user lies; see redis_users.py."""
    return f"{_PREFIX}user:{user_id}"


def logged_key(user_id: str) -> str:
    """Where it lies which numbers of the log are a user's."""
    return f"{_PREFIX}logged:{user_id}"


def item_key(item_id: str) -> str:
    """Where an item lies; see redis_items.py."""
    return f"{_PREFIX}item:{item_id}"


def masked(url: str) -> str:
    """The URL without whatever may be secret in it."""
    # By hand: what is no URL, or a password that should have been quoted, is masked, too.
    scheme, _, rest = url.partition("://")
    _, is_secret, place = rest.rpartition("@")
    return f"{scheme}://{'***@' if is_secret else ''}{place.partition('?')[0]}"


class RedisServer:
    """A Redis by its URL. Safe across threads. Every method raises StoreUnavailable where Redis
    does not answer, or refuses."""

    def __init__(self, url: str, *, allows_loss: bool = False) -> None:
        """Connect, and check that Redis keeps what it has acknowledged.

        allows_loss: do without that. Raises ConfigError where it does not, where it is too old, or
        without the extra [redis], and StoreUnavailable where nobody answers.
        """
        self._module, retry = _redis()
        self.name = masked(url)
        self._closed = threading.Event()

        def connected(seconds: float) -> Any:
            # Commands are not sent again by themselves: some had been carried out already.
            try:
                return self._module.Redis.from_url(
                    url,
                    protocol=2,
                    retry=retry,
                    max_connections=_MOST_CONNECTIONS,
                    socket_timeout=seconds,
                    socket_connect_timeout=_CONNECT_SECONDS,
                )
            except (ValueError, TypeError):  # whose message may hold a password
                raise ConfigError(
                    f"{self.name} cannot be read; write redis://HOST:PORT/DB, rediss:// for TLS, "
                    "or unix://PATH"
                ) from None

        self._reads: Any = connected(_READ_SECONDS)
        self._writes: Any = connected(_WRITE_SECONDS)
        _require_fit(self, allows_loss)
        self.store_id()

    def ask(self, *command: str | bytes | int) -> Any:
        """What Redis answers to one command that changes nothing, or may be sent twice."""
        with self._errors("read"):
            return self._reads.execute_command(*command)

    def ask_together(self, commands: Sequence[Command]) -> list[Any]:
        """What Redis answers to each of some commands, sent at once; others may come between."""
        if not commands:
            return []
        with self._errors("read"), self._reads.pipeline(transaction=False) as pipe:
            for command in commands:
                pipe.execute_command(*command)
            return list(pipe.execute())

    def transact(
        self, keys: Sequence[str], plan: Callable[[], tuple[Sequence[Command], T]]
    ) -> tuple[T, list[Any]]:
        """Carry out what `plan` says, whole or not at all; returns its result, and the answers.

        keys: what the plan reads; where others have changed one of them meanwhile, it is made
        again. It is on disk when this returns, where Redis was found to keep what it acknowledges.
        What the plan raises is raised here, and nothing was written.
        """
        patience = time.monotonic() + _CONFLICT_SECONDS
        while time.monotonic() < patience:
            with self._errors("write"), self._writes.pipeline(transaction=True) as pipe:
                try:
                    if keys:
                        pipe.watch(*keys)
                    commands, result = plan()
                    if not commands:
                        return result, []
                    pipe.multi()
                    for command in commands:
                        pipe.execute_command(*command)
                    return result, list(pipe.execute())
                except self._module.WatchError:
                    continue
        raise StoreUnavailable(
            f"cannot write {self.name}: others have changed the same for {_CONFLICT_SECONDS:g} "
            "seconds; nothing was written"
        )

    def store_id(self) -> str:
        """Which store this is: 16 hexadecimal digits, given to a Redis that has none yet.

        Raises StoreUnavailable for a store of another format.
        """
        fresh = secrets.token_hex(8)
        self.ask_together([("HSETNX", STORE, "format", FORMAT), ("HSETNX", STORE, "id", fresh)])
        found, identity = self.ask("HMGET", STORE, "format", "id")
        if found is None or identity is None or found.decode() != str(FORMAT):
            raise StoreUnavailable(
                f"{self.name} is not a store of format {FORMAT} (found: {found}); name another "
                "database of that Redis"
            )
        return str(identity.decode())

    def close(self) -> None:
        """Let go of the connections."""
        self._closed.set()
        self._reads.close()
        self._writes.close()

    @contextmanager
    def _errors(self, doing: str) -> Iterator[None]:
        if self._closed.is_set():
            raise StoreUnavailable(f"cannot {doing} {self.name}: it is closed")
        try:
            yield
        except (self._module.RedisError, OSError) as error:
            raise StoreUnavailable(f"cannot {doing} {self.name}: {error}") from error


def _require_fit(server: RedisServer, allows_loss: bool) -> None:
    """Raise ConfigError where this Redis cannot be the store."""
    about: dict[str, Any] = server.ask("INFO")
    version = str(about.get("redis_version", "0"))
    if tuple(int(part) for part in version.split(".")[:2]) < _LEAST_VERSION:
        least = ".".join(map(str, _LEAST_VERSION))
        raise ConfigError(f"{server.name} is Redis {version}; needed: {least} or newer")
    if about.get("redis_mode") == "cluster":
        raise ConfigError(
            f"{server.name} is a Redis Cluster, which has no transactions over all keys; name a "
            "single Redis"
        )
    if allows_loss:
        return
    try:
        found = {name: _setting(server, name) for name in _DURABLE}
    except StoreUnavailable as error:
        raise ConfigError(
            f"cannot ask {server.name} whether it keeps what it acknowledges ({error}). Allow this "
            "user CONFIG GET, or accept that it may not with --store-allows-loss"
        ) from None
    if int(about.get("maxmemory", 0)) == 0:  # nothing is ever evicted
        found["maxmemory-policy"] = _DURABLE["maxmemory-policy"]
    faults = [f"{name} is {found[name]}" for name in _DURABLE if found[name] != _DURABLE[name]]
    if faults:
        wanted = ", ".join(f"{name} {value}" for name, value in _DURABLE.items())
        raise ConfigError(
            f"{server.name} may lose what it has acknowledged: {', '.join(faults)}; needed: "
            f"{wanted}. Set that in redis.conf, or while it runs with redis-cli CONFIG SET, or "
            "accept the loss with --store-allows-loss"
        )


def _setting(server: RedisServer, name: str) -> str:
    answer: dict[str | bytes, str | bytes] = server.ask("CONFIG GET", name)
    return next((_text(value) for key, value in answer.items() if _text(key) == name), "not known")


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _redis() -> tuple[Any, Any]:
    """The module, and a retry that never tries again. Raises ConfigError without [redis]."""
    try:
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry
    except ImportError as error:
        raise ConfigError(
            f"a store in Redis needs the extra [redis]: pip install 'penchant[redis]' (there is no "
            f"module {error.name})"
        ) from None
    return redis, Retry(NoBackoff(), 0)
