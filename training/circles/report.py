"""What became of the circles of the bundle before, in sentences for a terminal."""

from collections.abc import Mapping
from typing import Any

from model.circles import LEVELS

_SHOWN = 5
"""Splits, merges and ends of a level that are named; the manifest has all."""


def sentences(manifest: Mapping[str, Any], names: Mapping[int, str]) -> list[str]:
    """manifest: its section `circles`. names: of every circle and district that there is now."""
    if manifest["previous"] is None:
        return ["their ids are all new: name the bundle before by --previous to keep its ids"]
    lines = []
    for level in LEVELS:
        found = manifest[level]
        lines.append(
            f"{level}s: {found['kept']} ids kept, {found['born']} new, {len(found['ended'])} ended "
            f"({len(found['splits'])} splits, {len(found['merges'])} merges)"
        )
        old = {one["circle_id"]: one["name"] for one in found["ended"]}
        known = old | dict(names)

        def called(ids: list[int], known: Mapping[int, str] = known) -> str:
            return ", ".join(f"{known[one]} ({one})" if one in known else str(one) for one in ids)

        said = [
            *(
                f"  split: {called([one['circle_id']])} → {called(one['into'])}"
                for one in found["splits"][:_SHOWN]
            ),
            *(
                f"  merge: {called(one['of'])} → {called([one['circle_id']])}"
                for one in found["merges"][:_SHOWN]
            ),
            *(
                f"  ended: {called([one['circle_id']])}"
                + (f", its items are in {called(one['into'])}" if one["into"] else "")
                for one in found["ended"][:_SHOWN]
            ),
        ]
        lines += said
    return lines
