"""The commands that run a server and say how it is: serve, status."""

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from model.errors import PenchantError
from serving.cli import ADDRESS, Address, State, Store, StoreAllowsLoss
from serving.errors import ServerUnavailable
from serving.store.base import MAX_STORED_EVENTS, SQLITE

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)


@app.callback()
def commands() -> None:
    """Serve a bundle, and say whether it is served."""


@app.command()
def serve(
    bundle: Annotated[
        Path, typer.Argument(help="The bundle folder, as `penchant export` wrote it.")
    ],
    state: State,
    store: Store = SQLITE,
    store_allows_loss: StoreAllowsLoss = False,
    workers: Annotated[int, typer.Option(help="Processes that serve; one a core.")] = 1,
    index: Annotated[
        Literal["bundle", "torch"],
        typer.Option(
            help="bundle: the index that the bundle carries. torch: exact, one matrix on an NVIDIA "
            "GPU; needs the extra \\[gpu], and one worker."
        ),
    ] = "bundle",
    device: Annotated[Literal["cuda", "cpu"], typer.Option(hidden=True)] = "cuda",
    host: Annotated[
        str, typer.Option(help="Address to listen on. There is no authentication: keep it private.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="TCP port; 0 picks a free one.")] = 50051,
    metrics_port: Annotated[
        int | None, typer.Option(help="TCP port for Prometheus (/metrics); none: not served.")
    ] = None,
    threads: Annotated[
        int, typer.Option(help="Calls that a worker holds at once; also the most in one batch.")
    ] = 32,
    onnx_threads: Annotated[int, typer.Option(help="Threads inside one run of the tower.")] = 1,
    faiss_threads: Annotated[int, typer.Option(help="Threads inside one search.")] = 1,
    candidates: Annotated[
        int,
        typer.Option(
            help="Candidates that a recommendation ranks, where a call says nothing; 0: as the "
            "bundle's value model learned, or 500."
        ),
    ] = 0,
    diversity: Annotated[
        float, typer.Option(help="How diverse slates are, 0 to 1, where a call says nothing.")
    ] = 0.0,
    max_stored_events: Annotated[
        int, typer.Option(help="Events of one user that are kept whole; older ones are summed up.")
    ] = MAX_STORED_EVENTS,
    event_horizon_days: Annotated[
        float,
        typer.Option(help="How late an event may come, and how long its id is remembered."),
    ] = 7.0,
    limit: Annotated[
        list[str] | None,
        typer.Option(
            help="A limit of what calls may ask for, by its name in docs/serving.md: max_k=2000. "
            "May be repeated."
        ),
    ] = None,
    seal_rows: Annotated[
        int,
        typer.Option(
            help="Changed items that workers hold in memory before they are sealed on disk."
        ),
    ] = 16_384,
    drain_pause: Annotated[
        float, typer.Option(help="Seconds of NOT_SERVING before new connections are refused.")
    ] = 0.5,
    drain_grace: Annotated[
        float, typer.Option(help="Seconds that begun calls may take to finish.")
    ] = 10.0,
    max_connection_age: Annotated[
        float,
        typer.Option(
            help="Seconds after which a connection is closed gently; also about the longest that a "
            "stopping server waits for callers who do not look away."
        ),
    ] = 15.0,
    until_stdin_ends: Annotated[
        bool,
        typer.Option(
            "--until-stdin-ends",
            help="Stop also when stdin ends, as a pipe does when the program that started this "
            "server is gone, however it ended.",
        ),
    ] = False,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
    log_requests: Annotated[
        bool, typer.Option("--log-requests", help="Log every call, not only slow and failed ones.")
    ] = False,
    slow_ms: Annotated[
        float, typer.Option(help="Log calls that take longer, with the time of each stage.")
    ] = 250.0,
    trace_endpoint: Annotated[
        str,
        typer.Option(
            help="An OpenTelemetry collector (OTLP over gRPC), such as http://localhost:4317; "
            "needs the extra \\[otel]. None: no traces."
        ),
    ] = "",
    trace_ratio: Annotated[
        float, typer.Option(help="Share of calls that is traced, where a call does not say.")
    ] = 0.01,
) -> None:
    """Serve a bundle over gRPC until SIGTERM or Ctrl-C, which drain before they stop.

    A second Ctrl-C stops without waiting for callers to go. Each worker verifies the bundle and
    warms up before it says SERVING; one that dies is started again. Logs are JSON lines on stderr.

    Examples: [bold]penchant serve bundle --state state --workers 2 --metrics-port 9090[/bold]
    and, on each of several machines,
    [bold]penchant serve bundle --state state --store redis://stores:6379/0[/bold]
    """
    from serving.config import Limits, ServerConfig
    from serving.supervisor import Listening, run_supervised

    config = ServerConfig(
        bundle=bundle,
        state=state,
        store=store,
        store_allows_loss=store_allows_loss,
        host=host,
        port=port,
        workers=workers,
        index=index,
        device=device,
        metrics_port=metrics_port,
        threads=threads,
        onnx_threads=onnx_threads,
        faiss_threads=faiss_threads,
        seal_rows=seal_rows,
        drain_pause=drain_pause,
        drain_grace=drain_grace,
        max_connection_age=max_connection_age,
        log_level=log_level,
        log_requests=log_requests,
        slow_ms=slow_ms,
        trace_endpoint=trace_endpoint,
        trace_ratio=trace_ratio,
        candidates=candidates,
        diversity=diversity,
        max_stored_events=max_stored_events,
        event_horizon_days=event_horizon_days,
        limits=Limits.parsed(limit or ()),
    )

    def announce(listening: Listening) -> None:
        processes = "1 worker" if workers == 1 else f"{workers} workers"
        print(f"Serving {bundle} with {processes} on {host}:{listening.port}", flush=True)
        if listening.metrics_port is not None:
            print(f"Metrics at http://{host}:{listening.metrics_port}/metrics", flush=True)

    run_supervised(config, announce, until_stdin_ends=until_stdin_ends)


@app.command()
def status(
    address: Address = ADDRESS,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for each answer.")] = 5.0,
    as_json: Annotated[
        bool, typer.Option("--json", help="One JSON list, an object a server, for programs.")
    ] = False,
) -> None:
    """Say whether a server is up and serving, and what it serves. Exit code 2 if one is not.

    Of several replicas each is asked. A server of several workers answers by one of them.

    Examples: [bold]penchant status[/bold], [bold]penchant status --address a:50051,b:50051[/bold]
    """
    from rich.console import Console

    from serving.channels import addresses
    from serving.client import Client
    from serving.probe import probe_health
    from serving.tables import print_status

    told: list[dict[str, object]] = []
    missing: list[str] = []
    for one in addresses(address):
        try:
            with Client(one, timeout=timeout, num_channels=1) as client:
                found = client.status()
            health = probe_health(one, timeout=timeout)
        except PenchantError as error:
            missing.append(str(error))
            told.append({"address": one, "error": str(error)})
            continue
        if set(health.values()) != {"SERVING"}:
            missing.append(f"{one} answers, and does not serve any more: it is stopping.")
        told.append({"address": one, "health": health, **dataclasses.asdict(found)})
        if not as_json:
            print_status(found, health, one, Console())
    if as_json:
        print(json.dumps(told, indent=1, default=dict))
    if missing:
        raise ServerUnavailable(" ".join(missing))
