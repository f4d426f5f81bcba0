"""The `penchant` commands that change what a running server serves: items, and which bundle."""

import json
import sys
import time
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer

from model.errors import BundleRejected
from serving.cli import ADDRESS, Address
from serving.domain import ItemChange
from serving.errors import BadRequest

if TYPE_CHECKING:
    from serving.client import Client
    from serving.results import Activation, Written

app = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)

Timeout = Annotated[float, typer.Option(help="Seconds to wait for each answer.")]
_AT_ONCE = 50
"""Items of one call."""
_SHOWN_ERRORS = 20
_FIELDS = ("item_id", "kind", "features", "available", "expires_at_us", "links")


@app.command()
def upsert(
    file: Annotated[
        Path, typer.Argument(help="Items as JSON lines; - for standard input.", allow_dash=True)
    ],
    address: Address = ADDRESS,
    timeout: Timeout = 30.0,
) -> None:
    """Write new items, and changes to known ones, into a running server.

    One JSON object a line: item_id, and what there is of kind (for a new item), features (by the
    names of dataset.toml; null clears one), available, expires_at_us, and links (pairs of relation
    and item id). Every worker shows an item within a second. Exit code 2 if any was refused.

    Example: [bold]echo '{"item_id": "lamp", "kind": "product", "features": {"title": "A lamp"}}' |
    penchant upsert -[/bold]
    """
    from serving.client import Client

    num_taken, errors = 0, []
    with Client(address, timeout=timeout, num_channels=1) as client:
        for first, changes in _read_changes(file):
            written = client.upsert_items(changes)
            num_taken += written.num_taken
            errors += _lines(written, first)
    _tell(f"{num_taken:,} items written", errors)


@app.command(name="delete-items")
def delete_items(
    item_ids: Annotated[list[str], typer.Argument(help="Ids of the items.")],
    address: Address = ADDRESS,
    timeout: Timeout = 30.0,
) -> None:
    """Delete items from a running server, for good. Exit code 2 if one does not exist.

    Example: [bold]penchant delete-items lamp-7 lamp-8[/bold]
    """
    from serving.client import Client

    with Client(address, timeout=timeout, num_channels=1) as client:
        written = client.delete_items(item_ids)
    _tell(f"{written.num_taken:,} items deleted", [error.message for error in written.errors])


@app.command()
def activate(
    bundle: Annotated[Path, typer.Argument(help="The bundle's folder, on the server's machine.")],
    skip_gate: Annotated[
        bool, typer.Option("--skip-gate", help="Activate it though it is worse, or cannot tell.")
    ] = False,
    address: Address = ADDRESS,
    timeout: Timeout = 600.0,
) -> None:
    """Serve another bundle from now on, without a restart.

    It is verified, loaded, warmed up, and compared with the active one; then all workers change
    over. If anything is wrong, the one before goes on serving, and this says why: exit code 2.

    Example: [bold]penchant activate bundles/2026-11-27[/bold]
    """
    from serving.client import Client

    with Client(address, timeout=10.0, num_channels=1) as client:
        asked = client.activate(str(bundle.absolute()), skips_gate=skip_gate)
        _wait_for(client, asked.number, timeout)


@app.command()
def rollback(address: Address = ADDRESS, timeout: Timeout = 600.0) -> None:
    """Go back to the bundle that was served before.

    Example: [bold]penchant rollback[/bold]
    """
    from serving.client import Client

    with Client(address, timeout=10.0, num_channels=1) as client:
        asked = client.roll_back()
        _wait_for(client, asked.number, timeout)


def _wait_for(client: "Client", number: int, timeout: float) -> None:
    """Follow an activation to its end. Raises BundleRejected where it fails."""
    from rich.console import Console

    patience = time.monotonic() + timeout
    with Console(stderr=True).status("asked for") as status:
        while True:
            found = next((one for one in client.generations() if one.number == number), None)
            if found is None or found.state in ("active", "failed", "retired"):
                break
            if time.monotonic() > patience:
                raise BundleRejected(
                    f"still {found.state} after {timeout:g} s; it goes on, and penchant status "
                    "will say which bundle is served"
                )
            status.update(f"{found.state}: {found.path}")
            time.sleep(0.1)
    if found is None or found.state != "active":
        raise BundleRejected(_failure(found))
    print(f"Serving {found.path} (bundle {found.bundle_version[:12]}, generation {number})")


def _failure(found: "Activation | None") -> str:
    if found is None:
        return "the server knows nothing of this activation any more"
    return found.message or f"{found.path} was replaced by another activation"


def _read_changes(file: Path) -> Iterator[tuple[int, list[ItemChange]]]:
    """Changes, and the number of the first one's line, as many as one call takes at a time."""
    source = sys.stdin if str(file) == "-" else file.open(encoding="utf-8")
    with source:
        lines = ((number, line) for number, line in enumerate(source, 1) if line.strip())
        while some := list(islice(lines, _AT_ONCE)):
            yield some[0][0], [_parsed(line, f"{file}, line {number}") for number, line in some]


def _parsed(line: str, where: str) -> ItemChange:
    try:
        found: dict[str, Any] = json.loads(line)
    except ValueError as error:
        raise BadRequest(f"{where}: no JSON: {error}") from None
    if not isinstance(found, dict) or not isinstance(found.get("item_id"), str):
        raise BadRequest(f"{where}: an object with an item_id is needed")
    unknown = sorted(set(found) - set(_FIELDS))
    if unknown:
        raise BadRequest(f"{where}: unknown field {unknown[0]!r}; allowed: {', '.join(_FIELDS)}")
    features: Mapping[str, Any] = found.get("features", {})
    links = found.get("links")
    try:
        return ItemChange(
            item_id=found["item_id"],
            kind=found.get("kind", ""),
            features={name: _feature(value) for name, value in features.items()},
            available=found.get("available"),
            expires_at_us=found.get("expires_at_us"),
            links=None if links is None else [(relation, to) for relation, to in links],
        )
    except (AttributeError, TypeError, ValueError) as error:
        raise BadRequest(f"{where}: {error}") from None


def _feature(value: Any) -> Any:
    """A list of numbers is a vector; whole numbers are numbers."""
    if isinstance(value, list) and value and all(isinstance(one, int | float) for one in value):
        return np.array(value, np.float32)
    return value


def _lines(written: "Written", first: int) -> list[str]:
    return [f"line {first + error.index}: {error.message}" for error in written.errors]


def _tell(done: str, errors: list[str]) -> None:
    """Say what was done; raise BadRequest where something was refused."""
    print(done)
    if errors:
        more = len(errors) - _SHOWN_ERRORS
        shown = [*errors[:_SHOWN_ERRORS], *([f"and {more} more"] if more > 0 else [])]
        raise BadRequest("refused: " + "; ".join(shown))
