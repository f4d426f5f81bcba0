"""Views, carts and purchases: what the weaker acts teach of purchases.

    python benchmarks/quality/behaviours.py RETAILROCKET TAOBAO-UB TAOBAO-MULE --work DIR

The folders are as `penchant import retailrocket`, `taobao` and `mule` read them. On each set two
towers are trained with the same recipe: one on all acts, one on the purchases alone; both are asked
for the held-out purchase, with the same items left out of the lists. Relisting (what the user
viewed or carted and did not buy) stands beside them; where lists may hold such items, so does a
value model that ranks them together with what the towers retrieve. Started again with the same DIR,
it goes on where it stopped; a set that is done keeps its rows in DIR, and `--only NAME` does one.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from trained import Trained, imported, penchant, trained, write_result

from model.schema import read_schema
from training.baselines import fit_baselines
from training.compare import paired_difference
from training.dataset import Interactions, load_user_ids
from training.evaluate import SEED, evaluate
from training.importers.writer import new_dataset
from training.ranking import Ranker
from training.splits import Int64, Questions
from training.tower_ranker import TowerRanker
from training.value.ranker import ValueRanker
from training.value.stored import has_value, load_value

METRICS = ("hr@10", "ndcg@10", "recall@50")
VALUE, RELISTING = ValueRanker.name, "relisting"
ALL, BUYS = "towers, all acts", "towers, purchases alone"
DISCOVERS = "towers, all acts, best epoch for what was never seen"


@dataclass(frozen=True, slots=True)
class Set:
    """How one dataset is imported, trained on and asked."""

    title: str
    importer: str
    recipe: str
    options: tuple[object, ...] = ()
    settings: Mapping[str, object] = field(default_factory=dict)
    """Of the towers on all acts, beside the recipe's."""
    drops: tuple[str, ...] = ()
    """Acts that no run sees."""
    candidates: int = 0
    """How many of the towers' best a value model ranks, with what the user engaged with; 0: there
    is none."""


SETS = {
    "retailrocket": Set("Retailrocket", "retailrocket", "behaviours"),
    "taobao": Set(
        "Taobao UserBehavior, cart and favourite",
        "taobao",
        "bags",
        ("--target", "buy", "--set", "temperature=0.15"),
        drops=("view_of_bought",),
    ),
    "mule": Set(
        "Taobao (MULE)",
        "mule",
        "bags",
        ("--target", "buy", "--seen", "converted"),
        {"other_weight": 0.5},
        candidates=50,
    ),
}


def without(dataset: Path, out: Path, keep: Sequence[str]) -> Path:
    """The dataset with some of its events alone."""
    if not out.exists():
        schema = read_schema(dataset)
        events = {n: e for n, e in schema.events.items() if n in keep}
        kept = schema.model_copy(update={"events": events})
        with new_dataset(out, kept) as writer:
            writer.write_items(pl.read_parquet(dataset / "items.parquet"))
            log = pl.read_parquet(dataset / "events" / "*.parquet")
            writer.append_events(log.filter(pl.col("event").is_in(list(keep))))
    return out


@dataclass(frozen=True)
class OwnHistories:
    """Towers that read the histories of their own dataset, asked for users of another."""

    name: str
    towers: TowerRanker
    histories: Interactions
    rows: Int64
    """[U] the row here of each user row there."""

    def top(self, histories: Interactions, users: Int64, k: int, *, excluded: Any) -> Int64:
        """See Ranker.top."""
        return self.towers.top(self.histories, self.rows[users], k, excluded=excluded)


def asked_elsewhere(made: Trained, other: Trained, name: str, wanted: Questions) -> Ranker:
    """The towers of `made` for the questions of `other`; the two have the same items."""
    asked = made.questions("test")
    known = {user: row for row, user in enumerate(load_user_ids(made.run.arrays))}
    rows = np.array([known.get(user, -1) for user in load_user_ids(other.run.arrays)])
    if (rows[wanted.users] < 0).any():
        raise SystemExit("a user of the test part is in one of the two datasets alone")
    return OwnHistories(name, made.ranker(asked, name).ranker, asked.histories, rows)


def with_value(every: Trained, asked: Questions, candidates: int) -> ValueRanker:
    """The towers on all acts, and the value model that was trained behind them."""
    if not has_value(every.run):
        penchant("train-value", every.run.path, "--candidates", candidates)
    towers = every.ranker(asked, ALL).ranker
    return ValueRanker(every.run, load_value(every.run), towers, asked)


def discoveries(
    every: Trained, finder: Trained, alone: Trained, baselines: Sequence[Ranker]
) -> dict[str, float]:
    """HR@10 of each ranker on the purchases of what the user neither viewed nor carted, where lists
    hold nothing of that either. finder: towers whose validation asked for just that."""
    asked = finder.questions("test")
    rankers = [
        every.ranker(asked, ALL),
        finder.ranker(asked, DISCOVERS),
        asked_elsewhere(alone, every, BUYS, asked),
        *baselines,
    ]
    popularity = every.run.split.training.popularity()
    found = evaluate(asked, rankers, ks=(10, 50), popularity=popularity, seen="filter")
    return {name: metrics["hr@10"] for name, metrics in found.metrics.items()}


def run_set(chosen: Set, source: Path, work: Path, minutes: float) -> dict[str, Any]:
    """Train both towers, read test, give the set's rows and figures."""
    whole = imported(chosen.importer, source, work / "dataset")
    schema = read_schema(whole)
    kept = [name for name in schema.events if name not in chosen.drops]
    buys = [name for name, event in schema.events.items() if event.role == "conversion"]
    dataset = without(whole, work / "acts", kept) if chosen.drops else whole
    limit = ("--max-minutes", minutes)
    every = trained(dataset, work / "all", chosen.recipe, chosen.settings, *chosen.options, *limit)
    alone = trained(
        without(whole, work / "buys", buys),
        work / "alone",
        chosen.recipe,
        {},
        *chosen.options,
        *limit,
    )
    asked, training = every.questions("test"), every.run.split.training
    items = every.run.read_items()
    baselines, _ = fit_baselines(("popularity", "als", RELISTING), training, items, seed=SEED)
    rankers = [every.ranker(asked, ALL), asked_elsewhere(alone, every, BUYS, asked), *baselines]
    spent = {ALL: every, BUYS: alone}
    discovered: dict[str, float] = {}
    if chosen.candidates:
        asks = ("--target", "buy", "--seen", "filter")
        finder = trained(dataset, work / "discovers", chosen.recipe, chosen.settings, *asks, *limit)
        spent[DISCOVERS] = finder
        discovered = discoveries(every, finder, alone, baselines)
        rankers.insert(1, finder.ranker(asked, DISCOVERS))
        rankers.append(with_value(every, asked, chosen.candidates))
    seen = every.run.config.seen
    found = evaluate(asked, rankers, ks=(10, 50), popularity=training.popularity(), seen=seen)
    rows = [[f"**{chosen.title}** ({len(asked.users):,} purchases)", *[""] * (len(METRICS) + 3)]]
    figures: dict[str, Any] = {}
    gaps = {
        name: paired_difference(
            found.users[f"{ALL}/ndcg@10"].to_numpy(), found.users[f"{name}/ndcg@10"].to_numpy()
        )
        for name in found.metrics
        if name != ALL
    }
    for name, metrics in found.metrics.items():
        unseen = discovered.get(name)
        gap = gaps.get(name)
        rows.append(
            [
                name,
                *(f"{metrics[m]:.4f}" for m in METRICS),
                "" if unseen is None else f"{unseen:.4f}",
                f"{gap.mean:+.4f} ({gap.low:+.4f} to {gap.high:+.4f})" if gap else "",
                f"{spent[name].minutes:.0f}" if name in spent else "",
            ]
        )
        figures |= {f"{name}/{m}": metrics[m] for m in METRICS}
        if unseen is not None:
            figures[f"{name}/unseen hr@10"] = unseen
    if discovered:
        figures["unseen hr@10 over purchases alone"] = discovered[DISCOVERS] / discovered[BUYS]
    against = found.metrics[BUYS]["ndcg@10"]
    figures["relative ndcg@10 over purchases alone"] = gaps[BUYS].mean / against
    figures["its interval"] = [gaps[BUYS].low / against, gaps[BUYS].high / against]
    if chosen.candidates:
        ours, theirs = (found.users[f"{name}/ndcg@10"].to_numpy() for name in (VALUE, RELISTING))
        gap = paired_difference(ours, theirs)
        figures["value model above relisting, ndcg@10"] = [gap.mean, gap.low, gap.high]
    return {"rows": rows, "figures": figures}


def main() -> None:
    """Do every set that is not done, write the result of all that are."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    for name in SETS:
        parser.add_argument(name, type=Path)
    parser.add_argument("--work", type=Path, required=True, help="where datasets and runs are kept")
    parser.add_argument("--minutes", type=float, default=25.0, help="of each run")
    parser.add_argument("--only", action="append", choices=list(SETS), help="this set alone")
    args = parser.parse_args()
    for name in args.only or SETS:
        done = args.work / name / "result.json"
        if not done.exists():
            made = run_set(SETS[name], getattr(args, name), args.work / name, args.minutes)
            done.write_text(json.dumps(made))
    rows = [["", *METRICS, "HR@10, unseen", "all acts better by (ndcg@10)", "minutes"]]
    figures: dict[str, Any] = {}
    for name in SETS:
        done = args.work / name / "result.json"
        if done.exists():
            made = json.loads(done.read_text())
            rows += made["rows"]
            figures |= {f"{name}/{metric}": value for metric, value in made["figures"].items()}
    gains = [
        f"{SETS[name].title}: {figures[key]:+.0%} ({low:+.0%} to {high:+.0%})"
        for name in SETS
        if (key := f"{name}/relative ndcg@10 over purchases alone") in figures
        for low, high in [figures[f"{name}/its interval"]]
    ]
    above = [
        f"{SETS[name].title}: {mean:+.4f} ({low:+.4f} to {high:+.4f})"
        for name in SETS
        if (key := f"{name}/value model above relisting, ndcg@10") in figures
        for mean, low, high in [figures[key]]
    ]
    write_result(
        "behaviours",
        title="What views and carts teach of purchases",
        figures=figures,
        table=rows,
        notes=(
            "Test, full ranking, one seed; the epoch was chosen on validation. Of MULE's Taobao, "
            "what the user bought before is not listed, elsewhere nothing of the history is. "
            "Unseen: the purchase is of an item that the user neither viewed nor carted, and no "
            "list holds what the user did. "
            "Differences are paired over users, with 95 % bootstrap intervals. NDCG@10 relative to "
            f"purchases alone: {'; '.join(gains)}. {VALUE.capitalize()}: the value model ranks the "
            "towers' best and what the user viewed or carted and did not buy; it learned from the "
            f"purchases of validation. Its NDCG@10 above relisting: {'; '.join(above) or '–'}."
        ),
        command=(
            "python benchmarks/quality/behaviours.py RETAILROCKET TAOBAO-UB TAOBAO-MULE --work DIR"
        ),
    )


if __name__ == "__main__":
    main()
