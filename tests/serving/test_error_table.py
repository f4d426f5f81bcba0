"""The one table from exception to status: whole, documented, and the same on both sides."""

import dataclasses
import re
from pathlib import Path

import grpc
import pytest

from model.errors import PenchantError
from serving import errors
from serving.config import Limits
from serving.errors import BadRequest, BadVector
from serving.status import TABLE, from_status, to_status
from tests.serving.processes import ROOT


def test_every_exception_has_a_status_and_is_documented() -> None:
    ours = {
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, PenchantError)
    } - {PenchantError}
    assert ours <= set(TABLE)
    page = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    for exception, (name, status) in TABLE.items():
        line = next((line for line in page.splitlines() if f"`{name}`" in line), "")
        assert f"`{exception.__name__}`" in line, name
        assert status.name in line, name


@pytest.mark.parametrize("exception", TABLE)
def test_exceptions_survive_the_wire(exception: type[PenchantError]) -> None:
    error = exception("what happened")
    if isinstance(error, BadRequest):
        error.field = "queries[2]"
    if isinstance(error, errors.Overloaded):
        error.retry_after = 0.25
    status, detail = to_status(error)
    back = from_status(status, str(error), detail.SerializeToString())
    assert type(back) is exception and str(back) == "what happened"
    assert vars(back) == vars(error)


def test_an_exception_of_a_later_version_has_its_parents_status() -> None:
    class Novel(BadVector):
        pass

    status, detail = to_status(Novel("x"))
    assert (status, detail.code) == (grpc.StatusCode.INVALID_ARGUMENT, "BAD_VECTOR")


def test_docs_name_only_files_that_exist() -> None:
    page = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    for path in re.findall(r"`((?:serving|model|docs|protos)/[\w./]+)`", page):
        assert Path(ROOT / path).exists(), path


def test_every_limit_is_documented_with_its_default() -> None:
    page = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
    for name, value in dataclasses.asdict(Limits()).items():
        assert f"| `{name}` | {value:,} |" in page, name


def test_messages_of_errors_are_cut() -> None:
    for message in ("x" * 1024, "竹" * 341):
        assert to_status(BadRequest(message))[1].message == message
    for message in ("x" * 20_000, "竹" * 342, "x竹" * 5000):
        cut = to_status(BadRequest(message))[1].message
        assert 1000 < len(cut.encode()) <= 1024
        assert cut.endswith("…") and message.startswith(cut[:-1])
