"""`penchant recommend`: a slate from a running server, and why each item is where it is."""

from typing import Annotated

import typer

from serving.cli import ADDRESS, Address, in_flags, parse_filter, some_user
from serving.domain import (
    AnyOf,
    Cap,
    ExposureFloor,
    KindShare,
    NewItems,
    OriginShare,
    SlateRules,
    SmallCreators,
)
from serving.errors import BadRequest

app = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)


@app.callback()
def commands() -> None:
    """Keeps the command's name where there is one command only."""


@app.command()
def recommend(
    user: Annotated[str, typer.Argument(help="A user id; leave it out with --any.")] = "",
    anyone: Annotated[
        bool, typer.Option("--any", help="Some stored user with a history, instead of a USER.")
    ] = False,
    k: Annotated[int, typer.Option("--k", "-k", help="How many items to show.")] = 20,
    candidates: Annotated[
        int, typer.Option(help="How many are retrieved and ranked; 0: as the server has it.")
    ] = 0,
    objective: Annotated[
        str,
        typer.Option(help="What candidates are found by, one of the bundle's; none: its first."),
    ] = "",
    weight: Annotated[
        list[str] | None,
        typer.Option(help="What one event of a head is worth: cart=20. May be repeated."),
    ] = None,
    diversity: Annotated[
        float | None, typer.Option(help="0: by value alone; up to 1: unlike each other.")
    ] = None,
    method: Annotated[
        str,
        typer.Option(help="How likeness counts: mmr (to one item above) or dpp (to all together)."),
    ] = "",
    cap: Annotated[
        list[str] | None,
        typer.Option(help="At most so many of one value: creator=2, circle=5. May be repeated."),
    ] = None,
    share: Annotated[
        list[str] | None,
        typer.Option(help="At least this share of a kind: live=0.1. May be repeated."),
    ] = None,
    floor: Annotated[
        list[str] | None,
        typer.Option(
            help="A share of places for a group: new=0.2 (items with fewer than 20 events that are "
            "at most 14 days old), small=0.1 (of creators with few events), or COLUMN:VALUE=0.3. "
            "May be repeated."
        ),
    ] = None,
    new_events: Annotated[
        int | None,
        typer.Option(help="For --floor new: how many events an item has at most, however old."),
    ] = None,
    paced: Annotated[
        bool, typer.Option("--paced", help="Floors hold over slates, not in each of them.")
    ] = False,
    origin: Annotated[
        list[str] | None,
        typer.Option(
            help="At least this share of known, forgotten, adjacent or exploratory items: "
            "adjacent=0.2. May be repeated."
        ),
    ] = None,
    exploration: Annotated[
        float, typer.Option(help="0: by the value model alone; up to 1: by what it may be wrong.")
    ] = 0.0,
    seed: Annotated[int, typer.Option(help="Of exploration: the same draws the same.")] = 0,
    explain: Annotated[
        bool, typer.Option("--explain", help="Say in words why each item is shown.")
    ] = False,
    language: Annotated[str, typer.Option(help="Of --explain: en or zh; else the dataset's.")] = "",
    filter_: Annotated[
        list[str] | None, typer.Option("--filter", help="As for penchant query. May be repeated.")
    ] = None,
    include_seen: Annotated[
        bool, typer.Option("--include-seen", help="Show items of the history, too.")
    ] = False,
    address: Address = ADDRESS,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for the answer.")] = 5.0,
) -> None:
    """What a running server would show to a user, in order, and why.

    Candidates are retrieved, ranked by the bundle's value model, and arranged in a slate.

    Example: [bold]penchant recommend u42 --weight cart=20 --diversity 0.3 --cap creator=2[/bold]

    What the user does not know yet, and new things, have their places, and it says why:
    [bold]penchant recommend u42 --origin adjacent=0.2 --floor new=0.1 --explain[/bold]

    To discover (docs/slate.md): [bold]penchant recommend u42 --origin adjacent=0.2
    --origin exploratory=0.2 --diversity 0.2 --method dpp[/bold]
    """
    from rich.console import Console

    from serving.client import Client
    from serving.tables import print_recommended

    if bool(user) + anyone != 1:
        raise BadRequest("give one of USER and --any.")
    slate = SlateRules(
        diversity,
        tuple(Cap(name, int(value)) for name, value in _numbers("--cap", cap, whole=True)),
        tuple(KindShare(name, value) for name, value in _numbers("--share", share)),
        method=method,
        floors=tuple(
            ExposureFloor(_group(name, new_events), value, paced)
            for name, value in _numbers("--floor", floor)
        ),
        exploration=exploration,
        seed=seed,
        origins=tuple(OriginShare(name, value) for name, value in _numbers("--origin", origin)),
    )
    with Client(address, timeout=timeout, num_channels=1) as client:
        user = some_user(client) if anyone else user
        try:
            shown = client.recommend(
                user,
                k=k,
                num_candidates=candidates,
                filters=[parse_filter(text) for text in filter_ or ()],
                include_seen=include_seen,
                objective=objective,
                weights=dict(_numbers("--weight", weight)),
                slate=slate,
                explain=explain,
                language=language,
                fields=("title", "kind"),
            )
        except BadRequest as error:
            raise BadRequest(in_flags(error, filter_ or ())) from None
    print_recommended(shown, user, Console())


def _group(name: str, new_events: int | None) -> NewItems | SmallCreators | AnyOf:
    """Whom a floor is for. Raises BadRequest for what says nothing."""
    if name == "new":
        return NewItems(max_events=new_events)
    if name == "small":
        return SmallCreators()
    column, _, value = name.partition(":")
    if not value:
        raise BadRequest(
            f"--floor {name!r} cannot be read; write new=NUMBER, small=NUMBER or "
            "COLUMN:VALUE=NUMBER"
        )
    return AnyOf(column, (value,))


def _numbers(flag: str, given: list[str] | None, *, whole: bool = False) -> list[tuple[str, float]]:
    """NAME=NUMBER, each. Raises BadRequest for anything else."""
    pairs = []
    for text in given or ():
        name, _, value = text.partition("=")
        try:
            pairs.append((name.strip(), int(value) if whole else float(value)))
        except ValueError:
            number = "WHOLE NUMBER" if whole else "NUMBER"
            raise BadRequest(f"{flag} {text!r} cannot be read; write NAME={number}") from None
    return pairs
