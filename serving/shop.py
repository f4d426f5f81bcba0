"""A real server as a policy of the closed loop: every answer and every event over a socket.

    shop = Shop(folder, made=made, command=("penchant",), weights={"order": 1.0})
    shop.begin(dataset)        # trains, exports, loads users, starts `penchant serve`
    shop.choose(...)           # Recommend, in batches
    shop.learn(events)         # RecordEvents
    shop.stock(...)            # UpsertItems
    shop.retrain(items, links) # export-events, train, train-value, export, activate
    shop.close()

Knows datasets' tables, this package's client and the names of the commands; nothing of how the
world that it is asked from works. The clock of that world is given with each call: events and
questions carry its times, and what is gone is told, never left to expire by this machine's clock.
"""

import json
import os
import shutil
import subprocess
import time as clock
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from model.atomic import write_text
from model.errors import PenchantError
from model.schema import Schema, read_schema
from serving.client import Client
from serving.domain import Event, FeatureValue, ItemChange, SlateRules, UserQuery
from serving.results import Activation
from serving.translation import RecommendOptions

Seen = TypeVar("Seen")

_AT_ONCE = 500
"""Events, or items, of one call."""
_QUERIES = 64
"""Sessions that are asked for together."""
_PATIENCE = 600.0
"""Seconds for which a server may start, follow items, or prepare a bundle."""
_HORIZON_DAYS = "366"
"""The loop's days lie before today: how late its events may come."""
_OPTIONAL = ("exposure_id", "source_item_id")
_OBJECTIVES = ("interest", "direct")
"""What a bundle learns, the first for those who do not ask."""
_PLAIN = SlateRules()


class ShopFailed(PenchantError):
    """A step of the loop's server did not succeed."""

    code = "SHOP_FAILED"


class Shop:
    """One `penchant serve` with a state of its own, and the dataset that it learns from."""

    def __init__(
        self,
        folder: Path,
        *,
        made: Path,
        command: Sequence[str],
        weights: Mapping[str, float],
        objective: str = "",
        slate: SlateRules = _PLAIN,
        training: Sequence[str] = (),
    ) -> None:
        """folder: where state, dataset and bundles are kept; it must not exist yet.

        made: the folder of what the warm-up's dataset was made into, which shops of one world
        share; the first makes it. command: what `penchant` is called with. weights: what one event
        of each head is worth; a head that a bundle lacks counts for nothing. objective, slate: of
        every Recommend, as far as the bundle has what they need. training: further arguments of
        `penchant train`.
        """
        self._folder, self._made, self._command = folder, made, command
        self._weights, self._objective, self._slate = weights, objective, slate
        self._training = training
        self._asks: RecommendOptions = {}
        self._process: subprocess.Popen[str] | None = None
        self._client: Client | None = None
        self._bundles = 0
        self._served: list[dict[str, object]] = []
        self.notes: list[str] = []
        """What went otherwise than it should, such as a bundle that the gate refused."""

    def begin(self, dataset: Path) -> None:
        """Make the warm-up's bundle, where it is not there yet, and serve it."""
        self._folder.mkdir(parents=True)
        if not (self._made / "bundle").exists():
            shutil.rmtree(self._made, ignore_errors=True)
            self._made.mkdir(parents=True)
            self._learn(dataset, self._made)
        self._dataset = self._folder / "dataset"
        (self._dataset / "events").mkdir(parents=True)
        for path in dataset.rglob("*"):
            if path.is_file() and path.parent in (dataset, dataset / "events"):
                shutil.copy(path, self._dataset / path.relative_to(dataset))
        self._schema: Schema = read_schema(dataset)
        state = self._folder / "state"
        self._run("load-users", self._made / "snapshot", "--state", state)
        self.serve(self._made / "bundle", state)

    def stock(self, time: int, *, arrived: pa.Table, links: pa.Table, gone: Sequence[str]) -> None:
        """Write what came and what went, and wait until it shows."""
        by_item: dict[str, list[tuple[str, str]]] = {}
        for link in links.select(["from_item", "relation", "to_item"]).to_pylist():
            by_item.setdefault(link["from_item"], []).append((link["relation"], link["to_item"]))
        names = ["title", *(name for name in self._schema.item_features if name != "title")]
        changes = [
            ItemChange(
                item_id=item["item_id"],
                kind=item["kind"],
                features={
                    name: _feature(item[name]) for name in names if item.get(name) not in (None, [])
                },
                available=True,
                links=by_item.get(item["item_id"], []),
            )
            for item in arrived.to_pylist()
        ]
        changes += [ItemChange(item_id=name, available=False) for name in gone]
        client, sequence = self._open_client(), 0
        for first in range(0, len(changes), _AT_ONCE):
            written = client.upsert_items(changes[first : first + _AT_ONCE], timeout=30.0)
            self.notes += [f"item refused: {error.message}" for error in written.errors]
            sequence = max(sequence, written.sequence)
        self._wait(
            lambda: client.status(timeout=30.0).live["applied_sequence"] >= sequence, "the items"
        )

    def choose(
        self,
        time: int,
        *,
        users: Sequence[str],
        lengths: Sequence[int],
        excluded: Sequence[Sequence[str]],
    ) -> list[list[str]]:
        """A slate for each session, as of `time`."""
        slates: list[list[str]] = [[] for _ in users]
        # Shares and caps hold for a whole slate, so that all of one call are of one length.
        for length in sorted(set(lengths)):
            those = [place for place, wanted in enumerate(lengths) if wanted == length]
            for first in range(0, len(those), _QUERIES):
                asked = those[first : first + _QUERIES]
                queries = [
                    UserQuery(users[place], exclude_item_ids=excluded[place]) for place in asked
                ]
                options: RecommendOptions = {**self._asks, "k": length, "time_us": time}
                found = self._open_client().recommend(queries, timeout=60.0, **options)
                for number, place in enumerate(asked):
                    slates[place] = found.item_ids[found.query(number)]
        return slates

    def learn(self, events: pa.Table) -> None:
        """Record a day's events."""
        client = self._open_client()
        for first in range(0, events.num_rows, _AT_ONCE):
            rows = events.slice(first, _AT_ONCE).to_pylist()
            recorded = client.record_events([_event(row) for row in rows], timeout=60.0)
            if recorded.errors:
                error = recorded.errors[0]
                raise ShopFailed(f"{len(recorded.errors)} events were refused: {error.message}")

    def retrain(self, items: pa.Table, links: pa.Table) -> None:
        """Learn anew from the warm-up and all that was recorded since; serve what came of it."""
        pq.write_table(items, self._dataset / "items.parquet")
        pq.write_table(links, self._dataset / "links.parquet")
        self._run("export-events", self._dataset, "--state", self._folder / "state")
        self._bundles += 1
        folder = self._folder / f"learned-{self._bundles}"
        self._learn(self._dataset, folder)
        self._activate(folder / "bundle")

    def close(self) -> None:
        """Stop the server; served.json says which bundles it served."""
        if self._client is not None:
            self._client.close()
            self._client = None
        if self._process is not None:
            self._process.terminate()
            self._process.wait(_PATIENCE)
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    pipe.close()
            self._process = None

    def _learn(self, dataset: Path, folder: Path) -> None:
        """Towers, value model, and a bundle with its snapshot."""
        run = folder / "run"
        objectives = ("--objectives", ",".join(_OBJECTIVES)) if _has_orders(dataset) else ()
        self._run(
            "train", dataset, "--out", run, "--recipe", "demo", "--split", "time",
            "--device", "cpu", *objectives, *self._training,
        )  # fmt: skip
        self._run("train-value", run)
        self._run("export", run, "--bundle", folder / "bundle", "--snapshot", folder / "snapshot")

    def serve(self, bundle: Path, state: Path) -> None:
        """Start the server, which ends with this process, however that ends."""
        command = [*self._command, "serve", str(bundle), "--state", str(state), "--port", "0"]
        command += ["--event-horizon-days", _HORIZON_DAYS, "--log-level", "warning"]
        log = self._folder / "server.log"
        with log.open("w", encoding="utf-8") as stderr:
            self._process = subprocess.Popen(
                [*command, "--until-stdin-ends"],
                stdin=subprocess.PIPE,  # held open, and never written to
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                env=_environment(),
            )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise ShopFailed(f"the server did not start; see {log}")
        self._client = Client(line.split()[-1], num_channels=1)
        self._look_at_bundle(bundle)

    def _activate(self, bundle: Path) -> None:
        client = self._open_client()
        asked = client.activate(str(bundle.absolute()), timeout=30.0)

        states = {"active", "failed", "retired"}

        def outcome() -> Activation | None:
            found = [one for one in client.generations(timeout=30.0) if one.number == asked.number]
            return found[0] if found and found[0].state in states else None

        ended = self._wait(outcome, f"{bundle} to be active")
        if ended.state == "active":
            self._look_at_bundle(bundle)
        else:
            self.notes.append(f"{bundle.parent.name} was refused: {ended.message}")

    def _look_at_bundle(self, path: Path) -> None:
        """Note what is served, and what of this shop's wishes it can be asked for: the warm-up may
        have no orders to learn an objective from, and a rare head may not be learned yet."""
        bundle = self._open_client().status(timeout=30.0).bundle
        self._served.append({"path": str(path), "version": bundle["version"]})
        write_text(self._folder / "served.json", json.dumps(self._served, indent=1) + "\n")
        heads, objectives = bundle["heads"], bundle["objectives"]
        assert isinstance(heads, Sequence) and isinstance(objectives, Sequence)
        known = {head: weight for head, weight in self._weights.items() if head in heads}
        notes = [f"no head {head!r}, so it counts 0" for head in self._weights if head not in known]
        if not known:
            notes.append("none of the weighted heads: slates keep its default weights")
        slate, objective = self._slate, self._objective
        if slate.exploration and not heads:
            notes.append("no value model, so nothing is explored")
            slate = replace(slate, exploration=0.0)
        if objective and objective not in objectives:
            notes.append(f"no objective {objective!r}, so candidates are those of {objectives[0]}")
            objective = ""
        self.notes += [f"bundle {self._bundles} has {note}" for note in notes]
        self._asks = {"weights": known, "slate": slate, "objective": objective}

    def _wait(self, look: Callable[[], Seen | None], what: str) -> Seen:
        """What `look` finds, once it finds anything."""
        patience = clock.monotonic() + _PATIENCE
        while not (found := look()):
            if clock.monotonic() > patience:
                raise ShopFailed(
                    f"waited {_PATIENCE:g} s for {what}; see {self._folder / 'server.log'}"
                )
            clock.sleep(0.05)
        return found

    def _open_client(self) -> Client:
        if self._client is None:
            raise ShopFailed("the server is not running; call begin first")
        return self._client

    def _run(self, *arguments: object) -> None:
        """One `penchant` command, to its end; what it prints goes to a log."""
        log = self._folder / "commands.log"
        with log.open("a", encoding="utf-8") as out:
            done = subprocess.run(
                [*self._command, *map(str, arguments)],
                stdout=out,
                stderr=subprocess.STDOUT,
                check=False,
                env=_environment(),
            )
        if done.returncode:
            raise ShopFailed(f"'penchant {arguments[0]}' failed; see {log}")


def _environment() -> Mapping[str, str]:
    return {**os.environ, "NO_COLOR": "1", "COLUMNS": "120", "PENCHANT_SUGGEST": "no"}


def _has_orders(dataset: Path) -> bool:
    """Whether objectives can learn from a dataset: its order is told by times, and in it there are
    events of the role conversion."""
    schema = read_schema(dataset)
    orders = [name for name, event in schema.events.items() if event.role == "conversion"]
    if not schema.has_times:
        return False
    events = pq.read_table(dataset / "events", columns=["event"])["event"]
    return bool(pc.any(pc.is_in(events, value_set=pa.array(orders, pa.string()))).as_py())


def _event(row: Mapping[str, Any]) -> Event:
    """A row of a dataset's events, as it is recorded."""
    return Event(
        user_id=row["user_id"],
        item_id=row["item_id"],
        event=row["event"],
        event_id=row["event_id"],
        timestamp_us=round(row["timestamp"].timestamp() * 1_000_000),
        sequence=row["sequence"],
        value=row["value"],
        position=row["position"],
        propensity=row["propensity"],
        **{name: row[name] or "" for name in _OPTIONAL},
    )


def _feature(value: Any) -> FeatureValue:
    return tuple(value) if isinstance(value, list) else value
