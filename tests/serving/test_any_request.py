"""Whatever bytes or field values come in, the answer is a documented status, and no worker dies."""

import grpc
from hypothesis import HealthCheck, given, settings

from serving.status import TABLE
from tests.serving.any_requests import anything
from tests.serving.processes import Served
from tests.serving.raw_calls import RawCall


@settings(
    max_examples=800,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(anything)
def test_whatever_comes_in_the_answer_is_documented(
    call: RawCall, message: tuple[str, bytes]
) -> None:
    status, detail, _ = call(*message)
    if status is not grpc.StatusCode.OK:
        assert detail.code in {name for name, _ in TABLE.values()} - {"INTERNAL"}, detail
        assert status is next(s for name, s in TABLE.values() if name == detail.code)
        assert "Traceback" not in detail.message


def test_nothing_of_it_was_a_defect(value_server: Served) -> None:
    assert value_server.process.poll() is None
    for line in value_server.log_lines():
        assert line["event"] not in ("defect", "worker died, restarting"), line
