"""Checks of requests about circles; each raises BadRequest, or a kind of it, that names the field.

Knows limits and the circles of the active generation; no protos.
"""

import re

from model.circles import LEVELS, Level
from serving.checks import between
from serving.circles import CircleMap
from serving.config import Limits
from serving.errors import BadRequest, UnknownCircle

_TOKEN = re.compile(r"(circle|district)-(\d{1,10})")


def listed(
    level: str,
    district_id: int | None,
    page_size: int,
    page_token: str,
    *,
    limits: Limits,
    circles: CircleMap,
) -> tuple[list[int], str]:
    """The ids of one page of ListCircles, and the token of the next one, "" on the last.

    A page begins after an id, not at a place: another bundle's page follows on.
    """
    if level and level not in LEVELS:
        raise BadRequest(
            f"no level {level!r:.80}; give {' or '.join(LEVELS)}, or none for both", field="level"
        )
    between("page_size", page_size, 1, limits.max_page, unit="circles")
    after_level, after = _after(page_token)
    wanted: list[tuple[Level, int]] = []
    if district_id is not None:
        if circles.level_of(district_id) != "district":
            raise UnknownCircle(f"no district {district_id}", field="district_id")
        wanted = [("circle", one) for one in circles.members(district_id)]
    else:
        wanted = [(name, one) for name in LEVELS for one in circles.ids[name]]
    begun = (LEVELS.index(after_level), after) if after_level else (-1, -1)
    rest = [
        (name, one)
        for name, one in wanted
        if level in ("", name) and (LEVELS.index(name), one) > begun
    ]
    page = rest[:page_size]
    more = f"{page[-1][0]}-{page[-1][1]}" if len(rest) > len(page) else ""
    return [one for _, one in page], more


def _after(page_token: str) -> tuple[Level | None, int]:
    """What a page begins after."""
    if not page_token:
        return None, 0
    found = _TOKEN.fullmatch(page_token)
    if not found or not page_token.isascii():
        raise BadRequest(
            "not a token of this server; give the next_page_token of the page before",
            field="page_token",
        )
    return next(level for level in LEVELS if level == found[1]), int(found[2])
