"""Does `interest` find what people would love and have not thought of, and at what price?

    python benchmarks/quality/discovery.py [RETAILROCKET [TAOBAO-UB]] --work DIR [--seeds 100 101]

On the synthetic economy the truth is known: of each person's latent interests (loved, and asleep
when the lists are made), which share is reached by five slates of ten? Worlds as they are, null
worlds (no content causes an order) and misspecified ones (people never tire, and orders come after
other delays). On real data, split by time, discovery@50 stands in its place: what people engaged
with in circles of taste that they had never engaged with before. Beside them the price: recall@50
of the orders that came.

Both objectives are heads of one bundle, trained together. Each is asked for plainly, and with the
slate that docs/slate.md names for discovering (shares of adjacent and exploratory circles, DPP), by
`Recommend` of a `penchant serve` over that bundle. A tower on the next event alone, popularity and
chance stand beside them. Differences are paired over people, with 95 % bootstrap intervals. Started
again with the same DIR, it goes on where it stopped.
"""

import argparse
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from trained import (
    PENCHANT,
    Named,
    Trained,
    imported,
    penchant,
    pinned,
    trained,
    write_result,
)

from serving.client import Client
from serving.domain import History, OriginShare, SlateRules, UserQuery
from training.baselines import fit_baselines
from training.compare import paired_difference
from training.dataset import Interactions, load_user_ids, read_users_table
from training.evaluate import SEED, DistinctItems, evaluate
from training.ranking import Ranker
from training.run import Run
from training.splits import Int64, Questions, filtered, split_events
from training.taste_circles import taste_circles
from training.tower_ranker import TowerRanker, item_vectors

SLATES, SLATE = 5, 10
DEPTH = SLATES * SLATE
USERS, ITEMS, DAYS = 1500, 4000, 24
HOLDOUT = 4
WORLDS: dict[str, tuple[str, ...]] = {
    "as they are": (),
    "null": ("--null",),
    "misspecified": (
        "--world",
        "satiation=0",
        "--world",
        "delay_shape=1",
        "--world",
        "delay_days=1.5",
    ),
}
OBJECTIVES = ("--set", 'objectives=["interest","direct"]')
INTEREST, DIRECT, NEXT = "interest", "direct", "next event"
DISCOVERING = SlateRules(
    diversity=0.2,
    method="dpp",
    origins=(OriginShare("adjacent", 0.2), OriginShare("exploratory", 0.2)),
)
SERVED = {f"{name}, discovering": name for name in (INTEREST, DIRECT)}
NAMES = (*SERVED, INTEREST, DIRECT, NEXT, "popularity", "chance")
ABOVE = tuple((name, DIRECT) for name in (next(iter(SERVED)), INTEREST))
"""What is compared, with intervals."""
CANDIDATES = 500


@dataclass(frozen=True, slots=True)
class Chance:
    """Any items that were not seen, drawn anew for each user."""

    num_items: int
    name: str = "chance"

    def top(
        self, histories: Interactions, users: Int64, k: int, *, excluded: Sequence[Int64] | None
    ) -> Int64:
        """See Ranker.top."""
        rng = np.random.default_rng([SEED, int(users[0])])
        rows = np.full((len(users), k), -1, np.int64)
        for i in range(len(users)):
            allowed = np.ones(self.num_items, bool)
            if excluded is not None:
                allowed[excluded[i]] = False
            rows[i] = rng.choice(np.flatnonzero(allowed), k, replace=False)
        return rows


class Recommended:
    """What a server's `Recommend` shows each user, of whom it is told the history."""

    def __init__(self, name: str, client: Client, made: Trained, asked: Questions) -> None:
        self.name, self._client, self._asked = name, client, asked
        run = made.run
        self._items: list[str] = run.read_items()["item_id"].to_pylist()
        self._rows = {item: row for row, item in enumerate(self._items)}
        self._events = ("", *run.data.schema.history_events)
        self._profiles = profiles(run)

    def top(
        self, histories: Interactions, users: Int64, k: int, *, excluded: Sequence[Int64] | None
    ) -> Int64:
        """See Ranker.top."""
        rows = np.full((len(users), k), -1, np.int64)
        idle = self._asked.idle[np.searchsorted(self._asked.users, users)]
        for i, user in enumerate(users.tolist()):
            span = slice(histories.starts[user], histories.starts[user + 1])
            times = histories.times[span] if histories.schema.has_times else ()
            history = History(
                [self._items[row] for row in histories.items[span]],
                [self._events[code] for code in histories.events[span]],
                times,
            )
            out = () if excluded is None else [self._items[row] for row in excluded[i]]
            shown = self._client.recommend(
                UserQuery(history=history, profile=self._profiles[user], exclude_item_ids=out),
                k=k,
                num_candidates=CANDIDATES,
                objective=SERVED[self.name],
                time_us=int(times[-1]) + round(float(idle[i]) * 1e6) if len(times) else 0,
                slate=DISCOVERING,
            )
            rows[i, : len(shown.item_ids)] = [self._rows[item] for item in shown.item_ids]
        return rows


def profiles(run: Run) -> list[dict[str, Any]]:
    """The features of each user row, as a request gives them."""
    table, ids = read_users_table(run.dataset), load_user_ids(run.arrays)
    if table is None:
        return [{} for _ in ids]
    names = [name for name in run.data.schema.user_features if name in table.column_names]
    known = {
        row["user_id"]: {name: row[name] for name in names if row[name] is not None}
        for row in table.select(["user_id", *names]).to_pylist()
    }
    return [known.get(user, {}) for user in ids]


@contextmanager
def served(made: Trained) -> Iterator[Client]:
    """`penchant serve` over the run's bundle, which is exported where it is not yet."""
    folder = made.run.path.parent
    if not (folder / "bundle").exists():
        outs = ("--bundle", folder / "bundle", "--snapshot", folder / "snapshot")
        penchant("export", made.run.path, *outs)
    command = [*PENCHANT, "serve", str(folder / "bundle"), "--state", str(folder / "state")]
    command += ["--port", "0", "--log-level", "error"]
    cores = sorted(os.sched_getaffinity(0))
    with pinned(command, cores) as address, Client(address, timeout=60) as client:
        yield client


def rankers_of(
    both: Trained, next_event: Trained, client: Client, asked: Questions
) -> list[Ranker]:
    """All that are compared, for these questions."""
    run, training = both.run, both.run.split.training
    vectors = item_vectors(run.items, both.model)
    heads = [
        Named(name, TowerRanker(both.model, vectors, asked, profiles=run.profiles, objective=code))
        for code, name in enumerate(run.tower.objectives)
    ]
    popular, _ = fit_baselines(("popularity",), training, run.read_items(), seed=SEED)
    return [
        *(Recommended(name, client, both, asked) for name in SERVED),
        *heads,
        next_event.ranker(asked, NEXT),
        *popular,
        Chance(run.data.num_items),
    ]


def orders_asked(made: Trained) -> Questions:
    """The test part's orders alone."""
    schema = made.run.data.schema
    orders = tuple(name for name, one in schema.events.items() if one.role == "conversion")
    split = split_events(made.run.data, replace(made.run.config, targets=orders))
    return split.questions("test", seen="filter")


def reached(world: Path, made: Trained, rankers: Sequence[Ranker], asked: Questions) -> Any:
    """For each ranker [n] the share of latent interests that five slates reach; NaN for people
    without any. By the truth of the world."""
    run = made.run
    begins = run.split.moments["test"]
    latent = pl.read_parquet(world / "truth" / "user_interests.parquet").filter(
        (pl.col("state") == "latent")
        & (pl.col("awakened_at").is_null() | (pl.col("awakened_at").dt.timestamp("us") >= begins))
    )
    mixture = pl.read_parquet(world / "truth" / "item_interests.parquet")
    main = mixture.sort("weight", descending=True).unique("item_id", keep="first")
    names = sorted(set(main["interest"]) | set(latent["interest"]))
    code = {name: place for place, name in enumerate(names)}
    of_item = dict(zip(main["item_id"], main["interest"], strict=True))
    items = run.read_items()["item_id"].to_pylist()
    interest_of = np.array([code[of_item[item]] if item in of_item else -1 for item in items])
    rows = {name: row for row, name in enumerate(load_user_ids(run.arrays))}
    wanted = np.zeros((len(rows), len(names)), bool)
    for user, interest in zip(latent["user_id"], latent["interest"], strict=True):
        if user in rows:
            wanted[rows[user], code[interest]] = True
    gone = DistinctItems(filtered(asked.histories, "filter"))
    found = {}
    for ranker in rankers:
        shares = np.full(len(asked.users), np.nan)
        for start in range(0, len(asked.users), 512):
            users = asked.users[start : start + 512]
            lists = ranker.top(asked.histories, users, DEPTH, excluded=gone.of(users))
            for i, user in enumerate(users):
                mine = wanted[user]
                if mine.any():
                    shown = interest_of[lists[i][lists[i] >= 0]]
                    hit = np.zeros(len(names), bool)
                    hit[shown[shown >= 0]] = True
                    shares[start + i] = (mine & hit).sum() / mine.sum()
        found[ranker.name] = shares
    return found


def on_world(work: Path, seed: int, kind: str) -> dict[str, Any]:
    """Per-user figures of one world."""
    folder = work / f"{kind.replace(' ', '-')}-{seed}"
    world = folder / "world"
    if not world.exists():
        size = ("--users", USERS, "--items", ITEMS, "--days", DAYS)
        penchant("simulate", world, "--seed", seed, *size, *WORLDS[kind])
    by_time = ("--split", "time", "--holdout-days", HOLDOUT)
    both = trained(world, folder / "both", "demo", {}, *OBJECTIVES, *by_time)
    following = trained(world, folder / "next", "demo", {}, *by_time)
    asked = both.questions("test")
    with served(both) as client:
        found = reached(world, both, rankers_of(both, following, client, asked), asked)
        figures = {f"reach/{name}": shares.tolist() for name, shares in found.items()}
        return figures | prices(both, following, client)


def prices(both: Trained, following: Trained, client: Client) -> dict[str, Any]:
    """Per-user recall of orders, and discovery of what was engaged with."""
    training = both.run.split.training
    figures: dict[str, Any] = {}
    for metric, asked, circles in (
        ("recall@50", orders_asked(both), None),
        ("discovery@50", both.questions("test"), taste_circles(training, seed=SEED)),
    ):
        found = evaluate(
            asked,
            rankers_of(both, following, client, asked),
            ks=(DEPTH,),
            popularity=training.popularity(),
            seen="filter",
            circles=circles,
        )
        for name in found.metrics:
            figures[f"{metric}/{name}"] = found.users[f"{name}/{metric}"].to_list()
    return figures


def on_data(name: str, source: Path, work: Path) -> dict[str, Any]:
    """Per-user figures of a real dataset."""
    dataset = imported(name, source, work / name / "dataset")
    by_time = ("--split", "time", "--set", "epochs=8")
    both = trained(dataset, work / name / "both", "behaviours", {}, *OBJECTIVES, *by_time)
    following = trained(dataset, work / name / "next", "behaviours", {}, *by_time)
    with served(both) as client:
        return prices(both, following, client)


def summed(title: str, parts: Sequence[dict[str, Any]]) -> tuple[list[list[str]], dict[str, Any]]:
    """Rows and figures of some worlds or one dataset, people of all of them together."""
    together: dict[str, Any] = {
        key: np.concatenate([np.array(part[key], float) for part in parts]) for key in parts[0]
    }
    metrics = list(dict.fromkeys(key.partition("/")[0] for key in together))
    rows, figures = [[f"**{title}**", *[""] * (len(NAMES) + len(ABOVE))]], {}
    for metric in metrics:
        values = {name: together[f"{metric}/{name}"] for name in NAMES}
        some = np.isfinite(values[INTEREST])
        gaps = [paired_difference(values[one][some], values[other][some]) for one, other in ABOVE]
        for (one, other), gap in zip(ABOVE, gaps, strict=True):
            figures[f"{title}/{metric}/{one} above {other}"] = [gap.mean, gap.low, gap.high]
        for name in NAMES:
            figures[f"{title}/{metric}/{name}"] = float(values[name][some].mean())
        label = "latent interests reached" if metric == "reach" else metric
        label += " of orders" if metric == "recall@50" else ""
        rows.append(
            [
                f"{label} ({int(some.sum()):,} people)",
                *(f"{values[name][some].mean():.4f}" for name in NAMES),
                *(f"{gap.mean:+.4f} ({gap.low:+.4f} to {gap.high:+.4f})" for gap in gaps),
            ]
        )
        if len(parts) > 1:
            figures[f"{title}/{metric}/by world"] = {
                name: [
                    float(np.nanmean(np.array(part[f"{metric}/{name}"], float))) for part in parts
                ]
                for name in NAMES
            }
    return rows, figures


def main() -> None:
    """Train and ask where it is not done, write the result of what is."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("retailrocket", type=Path, nargs="?")
    parser.add_argument("taobao", type=Path, nargs="?")
    parser.add_argument("--work", type=Path, required=True, help="where worlds and runs are kept")
    parser.add_argument("--seeds", type=int, nargs="+", default=[100, 101])
    parser.add_argument("--other-seeds", type=int, nargs="+", default=[100])
    args = parser.parse_args()
    args.work.mkdir(parents=True, exist_ok=True)
    rows = [["", *NAMES, *(f"{one} above {other}" for one, other in ABOVE)]]
    figures: dict[str, Any] = {}
    groups: list[tuple[str, list[tuple[str, Any]]]] = [
        (
            f"Economy, {kind}",
            [
                (f"{kind}-{seed}", lambda s=seed, k=kind: on_world(args.work, s, k))
                for seed in (args.seeds if kind == "as they are" else args.other_seeds)
            ],
        )
        for kind in WORLDS
    ]
    groups += [
        (title, [(name, lambda n=name, s=source: on_data(n, s, args.work))])
        for title, name, source in (
            ("Retailrocket, by time", "retailrocket", args.retailrocket),
            ("Taobao UserBehavior, by time", "taobao", args.taobao),
        )
        if source is not None
    ]
    for title, parts in groups:
        done = []
        for name, make in parts:
            path = args.work / f"{name.replace(' ', '-')}.json"
            if not path.exists():
                path.write_text(json.dumps(make()))
            done.append(json.loads(path.read_text()))
        more, found = summed(title, done)
        rows += more
        figures |= found
        for row in more:
            print(*row, sep=" | ", flush=True)
    write_result(
        "discovery",
        title="Discovery: `interest` beside `direct`",
        figures=figures,
        table=rows,
        notes=(
            f"Economy: {USERS:,} people, {ITEMS:,} items, {DAYS} days, the last {HOLDOUT} of which "
            f"are asked; seeds {args.seeds} ({args.other_seeds} for null and misspecified). "
            f"Reached: the share of a person's latent interests, asleep when the lists were made, "
            f"of which {SLATES} slates of {SLATE} unseen items hold one. discovery@50: recall of "
            "what was engaged with in circles of taste that were new to the person. Both "
            "objectives are two heads of one training; `next event` is another, without "
            "objectives. Discovering: `Recommend` with 0.2 of the slate from adjacent and 0.2 from "
            f"exploratory circles, DPP of 0.2, {CANDIDATES} candidates. What was seen is not "
            "listed. Differences: paired over people, with 95 % bootstrap intervals."
        ),
        command="python benchmarks/quality/discovery.py [RETAILROCKET [TAOBAO-UB]] --work DIR",
    )


if __name__ == "__main__":
    main()
