"""How long a call has, as gRPC tells it and as the pipeline is told."""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest

from serving.budget import DEFAULT_DEADLINE, budget
from serving.domain import Budget
from serving.errors import Cancelled, DeadlineExceeded


@pytest.mark.parametrize(("timeout", "seconds"), [(None, DEFAULT_DEADLINE), (60, 60)])
def test_a_call_without_a_deadline_has_the_default(timeout: float | None, seconds: float) -> None:
    budgets: list[Budget] = []

    def answer(request: bytes, context: Any) -> bytes:
        budgets.append(budget(context))
        return request

    server = grpc.server(ThreadPoolExecutor(1))
    method = grpc.unary_unary_rpc_method_handler(answer)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("a", {"b": method}),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    began = time.monotonic()
    try:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            channel.unary_unary("/a/b", None, None)(b"", timeout=timeout)
    finally:
        server.stop(None).wait()
    assert began + seconds - 1 < budgets[0].deadline < time.monotonic() + seconds + 1


def test_a_budget_says_when_going_on_is_of_no_use() -> None:
    Budget().check()
    with pytest.raises(Cancelled):
        Budget(is_wanted=lambda: False).check()
    with pytest.raises(DeadlineExceeded):
        Budget(time.monotonic() - 1).check()
