"""How a client reaches its servers: addresses, and the options of each channel.

Makes no channel itself, so that it serves grpc and grpc.aio alike.
"""

import json
from collections.abc import Sequence
from typing import Any

from model.errors import ConfigError

DEFAULT_ADDRESS = "127.0.0.1:50051"
HEALTH_SERVICE = "interest.v1.RetrievalService"

_OPTIONS: list[tuple[str, Any]] = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # A connection that broke is tried again before a call's attempts run out.
    ("grpc.initial_reconnect_backoff_ms", 50),
    ("grpc.max_reconnect_backoff_ms", 2000),
    # A host that is gone does not refuse, it is silent: the first calls wait no longer for it.
    ("grpc.min_reconnect_backoff_ms", 1000),
    # Without it, channels to one address share one connection, and with it one worker.
    ("grpc.use_local_subchannel_pool", 1),
]
_HEALTH = {
    # Of the policies only round_robin heeds health; with a channel's one address it turns nothing.
    "loadBalancingConfig": [{"round_robin": {}}],
    "healthCheckConfig": {"serviceName": HEALTH_SERVICE},
}


def channel_options(num_addresses: int) -> list[tuple[str, Any]]:
    """The options of a client's channels.

    Several addresses are replicas, and each channel watches its replica's health: one that says
    NOT_SERVING fails calls at once, unsent, and they go to another (serving/attempts.py). A single
    address may be a load balancer, which watches by itself and has no health of its own.
    """
    if num_addresses == 1:
        return _OPTIONS
    return [*_OPTIONS, ("grpc.service_config", json.dumps(_HEALTH))]


def addresses(given: str | Sequence[str]) -> list[str]:
    """`a:1,b:2` or a list of such → each address once. Raises ConfigError for one without a port,
    which gRPC would take for port 443 and wait there."""
    parts = given.split(",") if isinstance(given, str) else given
    found = list(dict.fromkeys(part.strip() for part in parts))
    for address in found:
        if ":" not in address.rpartition("]")[2]:
            raise ConfigError(f"address {address!r} has no port; write it as HOST:PORT")
    if not found:
        raise ConfigError("addresses = [] is not allowed; give at least one HOST:PORT")
    return found


_LONGEST = 3e8
"""Seconds; gRPC takes a deadline that is centuries away for one that has passed."""


def positive(name: str, value: float) -> float:
    """The value, ten years at most. Raises ConfigError where it is not above 0."""
    if not value > 0:
        raise ConfigError(f"{name} = {value!r} is not allowed; allowed: above 0")
    return min(value, _LONGEST)
