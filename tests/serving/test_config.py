"""What a server may be told, past what its command line already refuses."""

from pathlib import Path
from typing import Any

import pytest

from model.errors import ConfigError
from serving.config import Limits, ServerConfig


@pytest.mark.parametrize(
    "options",
    [
        {"limits": Limits(max_k=2**31)},  # GetStatus could not say it
        {"limits": Limits(max_pending=0)},
        {"metrics_port": 70_000},
        {"max_connection_age": 0.0},
        {"max_connection_age": 1e12},
        {"drain_grace": float("inf")},
        {"drain_pause": float("nan")},
    ],
    ids=str,
)
def test_what_a_server_cannot_run_with_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="is not allowed"):
        ServerConfig(bundle=Path("b"), state=Path("s"), **options)


def test_it_survives_the_way_to_a_worker() -> None:
    config = ServerConfig(bundle=Path("b"), state=Path("s"), limits=Limits(max_k=7))
    assert ServerConfig.from_json(config.to_json()) == config
