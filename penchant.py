"""The front door: the `penchant` command, and `from penchant import Client, AsyncClient`.

    penchant --help

Knows which file has which command and which extra that file needs, so that the list of commands
appears at once and a serving machine needs no torch. Everything else is imported when it is asked
for. Knows nothing of what the commands do.
"""

import importlib
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import typer

from model.errors import ConfigError, PenchantError

if TYPE_CHECKING:
    from serving.client import AsyncClient, Client
    from training.closed_loop import Policy
    from training.loop_policies import RequestPolicy

__all__ = ["AsyncClient", "Client", "main"]

OUR_PACKAGES = ("interest", "model", "serving", "training")


@dataclass(frozen=True, slots=True)
class Command:
    """One subcommand, as `penchant --help` lists it."""

    module: str
    """The module whose typer `app` has it."""
    extra: Literal["train", "serve"]
    """The extra of the package that its module needs."""
    summary: str
    """One line."""


_offline = partial(Command, "training.cli", "train")
_online = partial(Command, "serving.cli", "serve")
_people = partial(Command, "serving.people_cli", "serve")
_state = partial(Command, "serving.state_cli", "serve")
_server = partial(Command, "serving.server_cli", "serve")
_live = partial(Command, "serving.live_cli", "serve")

COMMANDS: dict[str, Command] = {
    "simulate": _offline("Make a dataset: a small synthetic interest economy."),
    "import": _offline("Make a dataset out of your own tables, or out of a public one."),
    "validate": _offline("Check a dataset; name the file, column and row of every fault."),
    "inspect": _offline("Tell what a dataset holds, and what of it is suspicious."),
    "attribute": _offline("Credit orders to the content that stirred them."),
    "train": _offline("Train the two towers on a dataset."),
    "evaluate": _offline("Rank the whole catalogue for held-out users; print the metrics."),
    "train-value": _offline("Train the value model on a run's towers and logged exposures."),
    "evaluate-value": _offline("Judge a run's value model by the exposures of the test part."),
    "export": _offline("Write the bundle and the user snapshot that a server needs."),
    "embed": _offline("Write the vectors of all items or all users to Parquet."),
    "load-users": _online("Load a snapshot's users and histories into a server's store."),
    "serve": _server("Serve a bundle over gRPC."),
    "recommend": Command(
        "serving.recommend_cli", "serve", "Ask a running server what to show to a user."
    ),
    "query": _online("Ask a running server what a user would love."),
    "circles": Command(
        "serving.circles_cli", "serve", "The map of what is served: circles, and a user's share."
    ),
    "upsert": _live("Write new and changed items into a running server."),
    "delete-items": _live("Delete items from a running server."),
    "activate": _live("Serve another bundle, without a restart."),
    "rollback": _live("Go back to the bundle that was served before."),
    "record": _people("Tell a running server what a user did."),
    "delete-user": _people("Make a running server forget a person."),
    "export-events": _state("Write what a server was told as a dataset to train on."),
    "backup": _state("Copy a state folder while it is served."),
    "restore": _state("Make a state folder of a backup."),
    "status": _server("Say whether a server is up, and what it serves."),
}

PANELS = {"train": "From logs to a bundle", "serve": "From a bundle to answers"}


def main() -> None:
    """Run the command line in sys.argv; the entry point of the `penchant` script.

    Always raises SystemExit: 0 done; 1 an unexpected failure (with a traceback); 2 wrong usage,
    a refusal (PenchantError) or a missing extra, each as a message on stderr; 130 interrupted.
    """
    arguments = sys.argv[1:]
    # Read when libgomp is loaded. OpenMP's threads spin while they wait for each other, and where
    # another process has one of the cores they wait for long. Demo's training on two cores, tokens
    # a second, alone and beside one busy process: spinning as by default 24 thousand and below 1;
    # so many turns, then asleep: 22 and 11; asleep at once: 18 and 15.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "2000")
    try:
        if arguments and arguments[0] in COMMANDS:
            run(arguments[0], arguments[1:])
        else:
            typer.main.get_command(front_door()).main(arguments, prog_name="penchant")
    except KeyboardInterrupt:
        # Typer does this for commands; this is for the imports before and the clean-up after.
        sys.exit(130)


def run(name: str, arguments: list[str]) -> None:
    """Import the module that has the command `name` and hand `arguments` to it.

    Raises SystemExit with the exit code, as `main` documents.
    """
    command = COMMANDS[name]
    try:
        app: typer.Typer = importlib.import_module(command.module).app
        typer.main.get_command(app).main(
            [name, *arguments], prog_name="penchant", obj=open_shop if name == "simulate" else None
        )
    except PenchantError as error:
        refuse(str(error))
    except OSError as error:
        # A full disk, a missing right, a file where a folder should be: the system's own words.
        refuse(f"{error.strerror or error}" + (f": {error.filename}" if error.filename else "."))
    except ModuleNotFoundError as error:
        # A missing module of our own is a bug and keeps its traceback.
        if error.name is None or error.name.partition(".")[0] in OUR_PACKAGES:
            raise
        refuse(f"penchant {name} {missing_extra(command.extra, error.name)}")


def open_shop(
    asked: "RequestPolicy", folder: Path, made: Path, training: Sequence[str]
) -> "Policy":
    """A policy of `penchant simulate` that is a real server: training and serving never import each
    other, so it is put together here.

    asked: what its requests ask for. The rest as serving/shop.py has it. Raises ConfigError where
    gRPC is not installed.
    """
    try:
        from serving.domain import (
            ExposureFloor,
            KindShare,
            NewItems,
            OriginShare,
            SlateRules,
            SmallCreators,
        )
        from serving.shop import Shop
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] in OUR_PACKAGES:
            raise
        raise ConfigError(f"a policy with a server {missing_extra('serve', error.name)}") from error
    floors = ((NewItems(), asked.new), (SmallCreators(), asked.small))
    slate = SlateRules(
        diversity=asked.diversity,
        kinds=tuple(KindShare(kind, share) for kind, share in asked.kinds.items()),
        origins=tuple(OriginShare(origin, share) for origin, share in asked.origins.items()),
        floors=tuple(ExposureFloor(who, share, paced=True) for who, share in floors if share),
        exploration=asked.exploration,
    )
    return Shop(
        folder,
        made=made,
        command=(sys.executable, str(Path(__file__).resolve())),
        slate=slate,
        objective=asked.objective,
        weights=asked.weights,
        training=training,
    )


def refuse(message: str) -> None:
    """Print one message on stderr, red on a terminal, and exit with code 2."""
    typer.secho(f"Error: {message}", fg=typer.colors.RED, err=True)
    sys.exit(2)


def missing_extra(extra: str, module: str) -> str:
    """The end of a sentence about something that cannot run without an extra."""
    return (
        f"needs the extra [{extra}]: pip install 'penchant[{extra}]' "
        f"(there is no module {module!r} in this Python)"
    )


def front_door() -> typer.Typer:
    """The app that answers `penchant`, `penchant --help`, `--version` and unknown commands.

    Its commands are there to be listed: `main` hands a known command to its own app before this
    one is asked.
    """
    app = typer.Typer(
        help="Penchant, the retrieval engine of interest commerce: learn what people love, and "
        "find it for them before they look for it.",
        epilog="A first run of everything: ./scripts/demo",
        add_completion=False,
        no_args_is_help=True,
    )

    @app.callback()
    def options(
        version: bool = typer.Option(
            False, "--version", help="Show the version and exit.", is_eager=True, callback=_version
        ),
    ) -> None:
        pass

    for name, command in COMMANDS.items():
        app.command(name, help=command.summary, rich_help_panel=PANELS[command.extra])(
            _without_arguments(name)
        )
    return app


def _without_arguments(name: str) -> Callable[[], None]:
    return lambda: run(name, [])


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"penchant {version('penchant')}")
        raise typer.Exit


def __getattr__(name: str) -> Any:
    """Import Client and AsyncClient at their first use: they need gRPC, the command line may not.

    Raises ImportError, naming the extra, where gRPC is not installed.
    """
    if name not in ("AsyncClient", "Client"):
        raise AttributeError(f"module 'penchant' has no attribute {name!r}")
    try:
        return getattr(importlib.import_module("serving.client"), name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] in OUR_PACKAGES:
            raise
        raise ImportError(f"penchant.{name} {missing_extra('serve', error.name)}") from error


if __name__ == "__main__":
    main()
