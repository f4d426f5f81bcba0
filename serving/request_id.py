"""The name under which a call is found again in logs, traces and the caller's own records.

Knows the metadata key and what an id may look like; not where it is written.
"""

import itertools
import os
import re
from collections.abc import Iterable

REQUEST_ID = "x-request-id"
"""The metadata key, of requests and of answers."""
MAX_LENGTH = 128

_UNSAFE = re.compile(r"[^A-Za-z0-9._:/@+=~-]")
_process = os.urandom(6).hex()
_numbers = itertools.count(1)


def request_id(metadata: Iterable[tuple[str, str | bytes]]) -> str:
    """The caller's id, cut to MAX_LENGTH and without what could forge a log line; or a new one."""
    for key, value in metadata:
        if key == REQUEST_ID and isinstance(value, str):
            given = _UNSAFE.sub("", value[: 2 * MAX_LENGTH])[:MAX_LENGTH]
            if given:
                return given
    # Unique over processes and restarts; a tenth of the price of a UUID.
    return f"{_process}-{next(_numbers):x}"
