"""The server through a public gRPC client, `buf curl`, which knows our protos by reflection alone.

It is a Go program with grpc-go's and connect-go's own HTTP/2: what it can read, others can.
"""

import json
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

import pytest

from tests.serving.processes import Served
from tests.serving.tiny import World

BUF = Path(sysconfig.get_path("scripts")) / "buf"
SERVICE = "interest.v1.RetrievalService"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where buf runs and keeps what it keeps: far from any proto file."""
    return tmp_path


def buf_curl(served: Served, folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [str(BUF), "curl", "--protocol", "grpc", "--http2-prior-knowledge", *arguments]
    return subprocess.run(
        command,
        cwd=folder,
        env={"HOME": str(folder), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
    )


def asked(served: Served, folder: Path, method: str, request: Any, *more: str) -> Any:
    url = f"http://{served.address}/{method}"
    done = buf_curl(served, folder, "--data", json.dumps(request), *more, url)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_it_lists_what_there_is(server: Served, folder: Path) -> None:
    done = buf_curl(server, folder, "--list-services", f"http://{server.address}")
    listed = done.stdout.split()
    assert {SERVICE, "interest.v1.AdminService", "grpc.health.v1.Health"} <= set(listed)
    done = buf_curl(server, folder, "--list-methods", f"http://{server.address}")
    assert f"{SERVICE}/Retrieve" in done.stdout.split()


def test_it_retrieves(server: Served, world: World, folder: Path) -> None:
    request = {
        "queries": [{"userId": "user-005"}, {"history": {"itemIds": ["item-0001"]}}],
        "k": 3,
        "filters": [{"range": {"field": "price", "min": 10, "max": 400}}],
        "fields": ["title", "price"],
    }
    found = asked(server, folder, f"{SERVICE}/Retrieve", request)
    candidates = found["candidates"]
    assert candidates["counts"] == [3, 3] and len(candidates["itemIds"]) == 6
    title, price = candidates["columns"]
    assert title["field"] == "title" and len(title["strings"]["values"]) == 6
    assert all(10 <= value <= 400 for value in price["numbers"]["values"])
    assert found["info"]["bundleVersion"] and found["historyLengths"][1] == 1


def test_it_checks_health_and_reads_status(server: Served, folder: Path) -> None:
    health = asked(server, folder, "grpc.health.v1.Health/Check", {"service": SERVICE})
    assert health == {"status": "SERVING"}
    status = asked(server, folder, "interest.v1.AdminService/GetStatus", {})
    assert status["bundle"]["name"] == "bamboo"


def test_it_is_refused_with_words_and_details(server: Served, folder: Path) -> None:
    done = buf_curl(
        server,
        folder,
        *("--data", json.dumps({"queries": [{"userId": "u"}], "k": 5000})),
        *("--verbose", "--header", "x-request-id: from-buf"),
        f"http://{server.address}/{SERVICE}/Retrieve",
    )
    assert done.returncode != 0
    assert "k = 5000" in done.stderr and "allowed: 1 to 1000" in done.stderr
    received = [line.lower() for line in done.stderr.splitlines() if " < " in line]
    assert any("x-request-id: from-buf" in line for line in received)
