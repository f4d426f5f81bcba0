"""Request ids: the caller's where it can be used, otherwise one of our own."""

import json

import pytest

from serving.request_id import MAX_LENGTH, request_id


@pytest.mark.parametrize("given", ["mine-7", "a/b:c=d+e~f@g.h_i", "7"])
def test_the_callers_id_is_kept(given: str) -> None:
    assert request_id([("user-agent", "x"), ("x-request-id", given)]) == given


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("two words", "twowords"),
        ('a","level":"error', "alevel:error"),
        ("a\nb\x00c", "abc"),
        ("编号7", "7"),
        ("x" * 1000, "x" * MAX_LENGTH),
    ],
)
def test_what_could_forge_a_line_or_fill_one_is_left_out(given: str, kept: str) -> None:
    made = request_id([("x-request-id", given)])
    assert made == kept
    assert json.dumps(made) == f'"{made}"'


@pytest.mark.parametrize("metadata", [[], [("x-request-id", "  ")], [("x-request-id", b"\x01")]])
def test_otherwise_each_call_has_one_of_its_own(metadata: list[tuple[str, str | bytes]]) -> None:
    made = {request_id(metadata) for _ in range(100)}
    assert len(made) == 100 and all(made)
