"""`penchant circles`: the map of what a running server serves, one circle of it, or a user's."""

from typing import TYPE_CHECKING, Annotated

import typer

from serving.cli import ADDRESS, Address
from serving.errors import BadRequest

if TYPE_CHECKING:
    from serving.circle_results import Circle
    from serving.client import Client

app = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)


@app.callback()
def commands() -> None:
    """Keeps the command's name where there is one command only."""


@app.command()
def circles(
    circle: Annotated[
        int | None, typer.Argument(help="The id of a circle or a district; none: all of a level.")
    ] = None,
    level: Annotated[str, typer.Option(help="district or circle.")] = "district",
    user: Annotated[str, typer.Option(help="Where this user is at home, instead.")] = "",
    most: Annotated[int, typer.Option("--most", "-n", help="How many to show.")] = 20,
    address: Address = ADDRESS,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for each answer.")] = 5.0,
) -> None:
    """The circles and districts of a running server, the largest first.

    With a CIRCLE: its neighbours, what it came from, how it grows, and items that stand for it.

    Examples: [bold]penchant circles[/bold], [bold]penchant circles 17[/bold],
    [bold]penchant circles --level circle -n 50[/bold], [bold]penchant circles --user u42[/bold]
    """
    from rich.console import Console

    from serving.circle_tables import print_circle, print_circles, print_shares
    from serving.client import Client

    if most < 1:
        raise BadRequest(f"-n {most}: give 1 or more")
    if circle is not None and (user or circle < 0):
        raise BadRequest("give a circle's id, or --user, not both; ids are not negative")
    console = Console()
    with Client(address, timeout=timeout, num_channels=1) as client:
        if user:
            print_shares(client.get_user_circles(user, n=most), user, console)
        elif circle is not None:
            found = client.get_circle(circle, fields=("title", "kind"))
            members = _all(client, "circle", circle) if found.circle.level == "district" else []
            print_circle(found, members[:most], console)
        else:
            print_circles(_all(client, level, None), most, console)


def _all(client: "Client", level: str, district_id: int | None) -> "list[Circle]":
    """Every circle of a level, or of a district, the largest first."""
    found: list[Circle] = []
    token = ""
    while True:
        page = client.list_circles(
            level=level, district_id=district_id, page_size=500, page_token=token
        )
        found += page.circles
        token = page.next_page_token
        if not token:
            return sorted(found, key=lambda one: (-one.size, one.circle_id))
