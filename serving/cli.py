"""What is loaded into a server and asked of it on the command line: load-users, query.

Each imports what it needs when it runs. Knows no protos: it asks through serving/client.py.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from model.errors import ConfigError
from model.schema import KINDS
from serving.domain import AnyOf, Filter, Not, Range
from serving.errors import BadRequest
from serving.store.base import MAX_STORED_EVENTS, SQLITE, store_path

if TYPE_CHECKING:
    from serving.client import Client

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)

ADDRESS = "127.0.0.1:50051"
_NUMBER = r"[-+]?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?"
_RANGE = re.compile(rf"^({_NUMBER})?\.\.({_NUMBER})?$")

State = Annotated[
    Path, typer.Option(help="Folder of live state; holds store.db, is made if it is not there.")
]
Store = Annotated[
    str,
    typer.Option(
        envvar="PENCHANT_STORE",
        help="Where users, items and events are: sqlite, in the state folder; or a Redis that "
        "several servers share, redis://HOST:PORT/DB, which needs the extra \\[redis].",
    ),
]
StoreAllowsLoss = Annotated[
    bool,
    typer.Option(
        "--store-allows-loss",
        help="Also a Redis that does not bring each write to its disk before it acknowledges it.",
    ),
]
Address = Annotated[
    str, typer.Option(help="Where the server listens, host:port; replicas: a:1,b:2.")
]


@app.callback()
def commands() -> None:
    """Load users, and ask what a server would show them."""


@app.command("load-users")
def load_users(
    snapshot: Annotated[Path, typer.Argument(help="The snapshot folder of `penchant export`.")],
    state: Annotated[
        Path | None,
        typer.Option(
            help="Folder of live state, is made if it is not there; not needed with a --store that "
            "servers share."
        ),
    ] = None,
    store: Store = SQLITE,
    store_allows_loss: StoreAllowsLoss = False,
    max_stored_events: Annotated[
        int, typer.Option(help="As for penchant serve: the oldest events of a user are summed up.")
    ] = MAX_STORED_EVENTS,
) -> None:
    """Load a snapshot's users and their histories into the store of servers.

    Events are merged by their id: loading twice changes nothing, loading a newer snapshot adds what
    is new. A server of the same store may go on running; it sees the users at once.

    Examples: [bold]penchant load-users snapshot --state state[/bold]
    or [bold]penchant load-users snapshot --store redis://stores:6379/0[/bold]
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    from serving.store.choice import open_store
    from serving.store.database import Database
    from serving.store.load import load_snapshot

    opened = open_store(
        store,
        lambda: Database(store_path(required_state(state))),
        most_events=max_stored_events,
        allows_loss=store_allows_loss,
    )
    bar = Progress(
        TextColumn("loading users"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
    with bar:
        task = bar.add_task("", total=None)
        loaded = load_snapshot(
            snapshot,
            opened.users,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    opened.close()
    print(
        f"{loaded.num_users:,} users, {loaded.num_events:,} events, {loaded.num_added:,} of them "
        f"new, in {opened.name}"
    )


@app.command()
def query(
    user: Annotated[str, typer.Argument(help="A user id; leave it out with --history.")] = "",
    history: Annotated[
        str, typer.Option(help="Item ids, oldest first, instead of a user: a,b,c")
    ] = "",
    anyone: Annotated[
        bool, typer.Option("--any", help="Some stored user with a history, instead of a USER.")
    ] = False,
    k: Annotated[int, typer.Option("--k", "-k", help="How many items to show.")] = 20,
    kind: Annotated[
        list[str] | None,
        typer.Option(help=f"Only this kind ({', '.join(KINDS)}); may be repeated."),
    ] = None,
    filter_: Annotated[
        list[str] | None,
        typer.Option(
            "--filter",
            help="craft=silver,bamboo (any of) or price=10..50 (a range, either end may be left "
            "out); != for not. May be repeated; all must hold.",
        ),
    ] = None,
    exclude: Annotated[str, typer.Option(help="Item ids not to show: a,b,c")] = "",
    include_seen: Annotated[
        bool, typer.Option("--include-seen", help="Show items of the history, too.")
    ] = False,
    objective: Annotated[
        str, typer.Option(help="An objective of the bundle; none: its first.")
    ] = "",
    address: Address = ADDRESS,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for the answer.")] = 5.0,
) -> None:
    """Ask a running server what a user would love, and show why.

    Each line names the circle of the item and the interest of the user (from 1) that found it.

    Examples: [bold]penchant query u42 --kind product --filter price=10..50[/bold]
    or, without a stored user, [bold]penchant query --history i7,i9,i12[/bold]
    """
    from rich.console import Console

    from serving.client import Client
    from serving.domain import History, UserQuery
    from serving.tables import print_found

    if bool(user) + bool(history) + anyone != 1:
        raise BadRequest("give one of USER, --history and --any.")
    filters = [parse_filter(text) for text in filter_ or ()]
    if kind:
        filters.append(AnyOf("kind", tuple(kind)))
    with Client(address, timeout=timeout, num_channels=1) as client:
        if anyone:
            user = some_user(client)
        question = UserQuery(
            user,
            History(_listed(history)) if history else None,
            exclude_item_ids=_listed(exclude),
        )
        try:
            found = client.retrieve(
                question,
                k=k,
                filters=filters,
                objective=objective,
                exclude_seen=not include_seen,
                # What was filtered on is shown, so that it can be checked.
                fields=tuple(dict.fromkeys(["title", "kind", *map(_column, filters)])),
                num_history=5,
            )
        except BadRequest as error:
            raise BadRequest(in_flags(error, filter_ or ())) from None
    print_found(found, user or "this history", Console())


def required_state(state: Path | None) -> Path:
    """The state folder. Raises ConfigError where none was given."""
    if state is None:
        raise ConfigError("give --state STATE, or a --store that servers share")
    return state


def some_user(client: "Client") -> str:
    """The first stored user with a history worth looking at, or the one with the longest."""
    page = client.list_users()
    if not page.user_ids:
        raise BadRequest("the store has no users; run `penchant load-users` first.")
    counts = page.num_events.tolist()
    return next(
        (user for user, count in zip(page.user_ids, counts, strict=True) if count >= 20),
        page.user_ids[counts.index(max(counts))],
    )


_FLAGS = {"k": "--k", "objective": "--objective", "queries[0].user_id": "USER"}
_FLAGS |= {"queries[0].history": "--history", "queries[0].exclude_item_ids": "--exclude"}
_FLAGS |= {"num_candidates": "--candidates", "weights": "--weight", "language": "--language"}
_FLAGS |= {"slate.caps": "--cap", "slate.kinds": "--share", "slate.floors": "--floor"}
_FLAGS |= {"slate.origins": "--origin", "slate.method": "--method"}
_FLAGS |= {"slate.diversity": "--diversity", "slate.exploration": "--exploration"}


def in_flags(error: BadRequest, filters: Sequence[str]) -> str:
    """What a request's error says, in the words of this command."""
    place, text = error.field, str(error)
    if place.startswith("filters["):
        number = int(place[len("filters[") :].partition("]")[0])
        # `--kind` makes the filters after those of `--filter`.
        flag = f"--filter {filters[number]}" if number < len(filters) else "--kind"
        text = text.replace("filter it with range", "write COLUMN=MIN..MAX")
        text = text.replace("filter it with any_of", "write COLUMN=VALUE,VALUE")
    else:
        flag = next((name for start, name in _FLAGS.items() if place.startswith(start)), "")
    return f"{flag}: {text}" if flag else text


def _column(filter_: Filter) -> str:
    return _column(filter_.filter) if isinstance(filter_, Not) else filter_.field


def parse_filter(text: str) -> Filter:
    """`craft=silver,bamboo`, `price=10..50`, `price=..50`, and `!=` for not.

    Raises BadRequest for what is none of these.
    """
    column, sign, value = text.partition("=")
    negated = column.endswith("!")
    column = column.removesuffix("!").strip()
    span = _RANGE.match(value.strip())
    if not sign or not column or not value.strip(" ,"):
        raise BadRequest(
            f"--filter {text!r} cannot be read; write COLUMN=VALUE,VALUE or COLUMN=MIN..MAX"
        )
    filter_: Filter = AnyOf(column, tuple(_listed(value)))
    if span and (span[1] or span[2]):
        ends = [float(end) if end else None for end in span.groups()]
        filter_ = Range(column, *ends)
    return Not(filter_) if negated else filter_


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
