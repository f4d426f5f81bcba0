"""What a running server is told about people on the command line: record, delete-user."""

from typing import Annotated

import typer

from serving.cli import ADDRESS, Address
from serving.errors import BadRequest

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)


@app.callback()
def commands() -> None:
    """Tell a running server what people did, and whom to forget."""


@app.command()
def record(
    user: Annotated[str, typer.Argument(help="A user id; a new one begins a history.")],
    item: Annotated[str, typer.Argument(help="An item id.")],
    event: Annotated[str, typer.Argument(help="An event name that dataset.toml declares.")],
    value: Annotated[
        float | None, typer.Option(help="Such as the seconds watched, or the price paid.")
    ] = None,
    event_id: Annotated[
        str, typer.Option(help="Sent twice, it is taken once. None: a new one.")
    ] = "",
    seconds_ago: Annotated[float, typer.Option(help="How long ago it happened.")] = 0.0,
    address: Address = ADDRESS,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for the answer.")] = 5.0,
) -> None:
    """Record one event of one user. The next recommendation of that user reflects it.

    Example: [bold]penchant record u42 p00031 like[/bold]
    """
    import time

    from serving.client import Client
    from serving.domain import Event

    moment = int((time.time() - seconds_ago) * 1e6) if seconds_ago else 0
    one = Event(user, item, event, event_id, timestamp_us=moment, value=value)
    with Client(address, timeout=timeout, num_channels=1) as client:
        recorded = client.record_events(one)
    for error in recorded.errors:
        raise BadRequest(f"{error.field.removeprefix('events[0].')}: {error.message}")
    print("Known already." if recorded.num_duplicates else f"Recorded: {user} {event} {item}")


@app.command("delete-user")
def delete_user(
    user: Annotated[str, typer.Argument(help="A user id.")],
    address: Address = ADDRESS,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for the answer.")] = 5.0,
) -> None:
    """Forget everything that is known of a person: history, profile, and what is not yet exported.

    An older snapshot does not bring them back; what they do from now on begins a new history.

    Example: [bold]penchant delete-user u42[/bold]
    """
    from serving.client import Client

    with Client(address, timeout=timeout, num_channels=1) as client:
        existed = client.delete_user(user).existed
    print(f"Forgotten: {user}" if existed else f"Nothing was known of {user}.")
