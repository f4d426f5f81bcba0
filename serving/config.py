"""How a server runs: addresses, workers, limits. Frozen; handed to each worker as JSON."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from model.errors import ConfigError
from serving.index.base import DeviceName, IndexName
from serving.store.base import MAX_STORED_EVENTS, SQLITE, check_store


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The most that one request may ask for. A request beyond is refused with BadRequest."""

    max_k: int = 1000
    """Candidates a query."""
    max_queries: int = 256
    """Queries in one batch."""
    max_vectors: int = 32
    """Vectors of one query that holds its interests itself."""
    max_search: int = 1_000_000
    """Vectors that one request searches with, times its k."""
    max_history: int = 10_000
    """Events of one history given in a request."""
    max_filters: int = 32
    """Filters of one request, and how deep a negation may nest."""
    max_values: int = 1000
    """Values of one any_of filter, or of one feature; features of one profile or item."""
    max_excluded: int = 50_000
    """Items that one query may exclude."""
    max_fields: int = 64
    """Item columns returned beside the ids."""
    max_id_bytes: int = 256
    """Bytes (UTF-8) of one id, name or filter value."""
    max_text_bytes: int = 4096
    """Bytes (UTF-8) of one text in a profile."""
    max_events: int = 1000
    """Events of one RecordEvents, or of one message of StreamEvents."""
    max_streams: int = 64
    """Streams of events that are open at a time in one worker."""
    max_items: int = 1000
    """Items that one EmbedItems brings by their features."""
    max_ranked: int = 2000
    """Candidates of one query that are ranked."""
    max_cells: int = 1_000_000
    """Values of item columns in one answer: rows times `fields`."""
    max_page: int = 1000
    """Entries of one page of a list."""
    max_message_bytes: int = 4 * 1024 * 1024
    """Bytes of one request message; gRPC refuses longer ones unread."""
    max_pending: int = 1024
    """Calls that may wait in one worker; those beyond are shed with Overloaded."""

    @classmethod
    def parsed(cls, given: Sequence[str]) -> "Limits":
        """From texts such as `max_k=2000`. Raises ConfigError for what is none."""
        names = [limit.name for limit in dataclasses.fields(cls)]
        values: dict[str, int] = {}
        for text in given:
            name, _, number = text.partition("=")
            if name not in names or not number.isascii() or not number.isdigit():
                raise ConfigError(
                    f"limit {text!r} cannot be read; write NAME=NUMBER, with one of the names "
                    f"{', '.join(names)}"
                )
            values[name] = int(number)
        return cls(**values)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """Everything that `penchant serve` was told."""

    bundle: Path
    """The bundle folder to serve."""
    state: Path
    """The folder of live state; holds store.db."""
    store: str = field(default=SQLITE, repr=False)
    """Where users, items and the log of events are: `sqlite` in the state folder, or the URL of a
    Redis, which may hold a password."""
    store_allows_loss: bool = False
    """Serve also from a Redis that may lose what it has acknowledged."""
    host: str = "127.0.0.1"
    """Where to listen; loopback unless told otherwise, since there is no authentication yet."""
    port: int = 50051
    """TCP port of the gRPC server; 0 picks a free one."""
    workers: int = 1
    """Worker processes; one for each core that serves."""
    metrics_port: int | None = None
    """TCP port for Prometheus, over HTTP at /metrics; none: not served; 0 picks a free one."""
    threads: int = 32
    """Threads a worker that hold calls, and so the most calls that can share one batch."""
    index: IndexName = "bundle"
    """What is searched: the index that the bundle carries, or one matrix on the GPU."""
    device: DeviceName = "cuda"
    """Where the index `torch` lies; `cpu` is for tests. The index `bundle` needs none."""
    onnx_threads: int = 1
    """Threads inside one ONNX Runtime call. More than one spins on the cores of other workers."""
    faiss_threads: int = 1
    """Threads inside one FAISS search."""
    candidates: int = 0
    """Candidates that Recommend retrieves and ranks for a slate, where a request does not say; 0:
    as many as the bundle's value model learned to rank, or 500 where it learned from exposures."""
    diversity: float = 0.0
    """How diverse slates are, 0 to 1, where a request does not say."""
    seal_rows: int = 16_384
    """Changed items that workers hold in memory before they are sealed into a segment on disk."""
    drain_pause: float = 0.5
    """Seconds between NOT_SERVING and refusing new connections, for load balancers to look away."""
    drain_grace: float = 10.0
    """Seconds that calls already begun may take to finish."""
    max_connection_age: float = 15.0
    """Seconds after which a connection is closed gently, so that clients spread over workers; and
    about the longest that a drain waits for callers who do not look away."""
    log_level: str = "info"
    """debug, info, warning or error."""
    log_requests: bool = False
    """Write a log line for every call, not only for slow and failed ones (about 30 µs each)."""
    slow_ms: float = 250.0
    """A call that takes longer than this many milliseconds is logged."""
    trace_endpoint: str = ""
    """Where spans go: a collector of OTLP over gRPC, such as http://host:4317; empty: none."""
    trace_ratio: float = 0.01
    """Of calls that bring no `traceparent`, the share that is traced."""
    max_stored_events: int = MAX_STORED_EVENTS
    """Events that the history of one user keeps; the oldest beyond are summed up."""
    event_horizon_days: float = 7.0
    """How late an event may come; and how long its event_id is remembered."""
    limits: Limits = field(default_factory=Limits)
    """What one request may ask for."""

    def __post_init__(self) -> None:
        """Raise ConfigError for a value that is not allowed."""
        check_store(self.store)
        _require(0 <= self.port <= 65535, "port", self.port, "0 to 65535")
        _require(
            self.metrics_port is None or 0 <= self.metrics_port <= 65535,
            "metrics_port",
            self.metrics_port,
            "0 to 65535",
        )
        _require(1 <= self.workers <= 256, "workers", self.workers, "1 to 256")
        _require(1 <= self.threads <= 1024, "threads", self.threads, "1 to 1024")
        _require(self.index in get_args(IndexName), "index", self.index, "bundle, torch")
        _require(self.device in get_args(DeviceName), "device", self.device, "cuda, cpu")
        if self.index == "torch" and self.device == "cuda" and self.workers > 1:
            raise ConfigError(
                f"workers = {self.workers} is not allowed with index = 'torch'; allowed: 1, since "
                "one process owns the GPU. Leave --workers out, or serve with --index bundle."
            )
        _require(self.onnx_threads >= 1, "onnx_threads", self.onnx_threads, "at least 1")
        _require(self.faiss_threads >= 1, "faiss_threads", self.faiss_threads, "at least 1")
        _require(
            0 <= self.candidates <= self.limits.max_ranked,
            "candidates",
            self.candidates,
            f"0 to {self.limits.max_ranked} (limits.max_ranked)",
        )
        _require(self.seal_rows >= 1, "seal_rows", self.seal_rows, "1 or more items")
        _require(0 <= self.diversity <= 1, "diversity", self.diversity, "0 to 1")
        for name, least in (
            ("drain_pause", 0.0),
            ("drain_grace", 0.0),
            ("max_connection_age", 0.1),
        ):
            value = getattr(self, name)
            _require(least <= value <= 86_400, name, value, f"{least:g} to 86400 seconds")
        _require(
            256 <= self.max_stored_events <= 1_000_000,
            "max_stored_events",
            self.max_stored_events,
            "256 to 1000000",
        )
        _require(
            0 < self.event_horizon_days <= 366,
            "event_horizon_days",
            self.event_horizon_days,
            "above 0, at most 366",
        )
        _require(self.slow_ms >= 0, "slow_ms", self.slow_ms, "0 or more milliseconds")
        _require(0 <= self.trace_ratio <= 1, "trace_ratio", self.trace_ratio, "0 to 1")
        _require(
            not self.trace_endpoint or self.trace_endpoint.startswith(("http://", "https://")),
            "trace_endpoint",
            self.trace_endpoint,
            "http://HOST:PORT, https://HOST:PORT, or empty",
        )
        levels = ("debug", "info", "warning", "error")
        _require(self.log_level in levels, "log_level", self.log_level, ", ".join(levels))
        for limit in dataclasses.fields(self.limits):
            value = getattr(self.limits, limit.name)
            # What GetStatus can say of them; gRPC takes no longer message either.
            _require(1 <= value < 2**31, f"limits.{limit.name}", value, "1 to 2147483647")

    @property
    def stream_seconds(self) -> float:
        """How long a stream of events lives: its connection, once it is to be closed, is cut off
        after drain_grace."""
        return max(0.8 * min(self.max_connection_age, self.drain_grace), 0.2)

    def to_json(self) -> str:
        """Everything as one JSON object, for `from_json` in another process."""
        return json.dumps(dataclasses.asdict(self), default=str)

    @classmethod
    def from_json(cls, text: str) -> "ServerConfig":
        """What `to_json` wrote."""
        values: dict[str, Any] = json.loads(text)
        values["bundle"], values["state"] = Path(values["bundle"]), Path(values["state"])
        values["limits"] = Limits(**values["limits"])
        return cls(**values)


def _require(holds: bool, name: str, value: object, allowed: str) -> None:
    if not holds:
        raise ConfigError(f"{name} = {value!r} is not allowed; allowed: {allowed}")
