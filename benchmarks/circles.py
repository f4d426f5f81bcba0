"""How true circles are, and whether their ids last.

    python benchmarks/circles.py --work DIR [--seeds 100 101 102] [--movielens RUN]

Simulated worlds have true interests and true districts. In each, towers are trained three times:
on all items but the newest tenth, on all, and on all with another seed. DIR keeps worlds and runs.
Beside Penchant's circles, in the same spaces: k-means on the vectors as they are, with as many
clusters, and clusters drawn by lot; and for the ids, rows as ids, and circles found without looking
at those before. RUN: a trained run of `penchant import movielens`, whose genres are categories that
people gave.
"""

import argparse
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

import faiss
import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa
from commands import penchant
from results import write_result
from sklearn.metrics import normalized_mutual_info_score

from model.circles import Level
from model.items import ItemTable
from model.schema import Schema
from training.circles.find import Circles, find_circles
from training.circles.growth import count_events
from training.circles.identity import identify
from training.circles.previous import Previous, PreviousLevel
from training.run import BEST, load_best, open_run
from training.tower_ranker import item_vectors

Int64 = npt.NDArray[np.int64]
LEVELS: tuple[Level, ...] = ("circle", "district")
USERS, ITEMS, MINUTES = 400, 2_000, 2
"""Of a world, and of one training: small, so that nine of them are an affair of half an hour."""


@dataclass(frozen=True)
class Space:
    """What one training made of a shop."""

    ids: list[str]
    vectors: npt.NDArray[np.float32]
    items: pa.Table
    schema: Schema
    popularity: Int64
    events: tuple[Int64, Int64] | None

    def circles(self, *, seed: int = 1, previous: Previous | None = None) -> Circles:
        """As an export finds them."""
        return find_circles(
            self.vectors,
            self.items,
            self.schema,
            self.popularity,
            seed=seed,
            events=self.events,
            previous=previous,
        )


def prepare(work: Path, seed: int, *, minutes: float) -> None:
    """The world and its three runs, each where it is not there yet."""
    world, before = work / f"w{seed}", work / f"w{seed}-old"
    if not world.exists():
        penchant("simulate", world, "--seed", seed, "--users", USERS, "--items", ITEMS)
    if not before.exists():
        without_newest(world, before)
    for name, data, other in (("a", world, 1), ("b", world, 2), ("old", before, 1)):
        run = work / f"r{seed}-{name}"
        if not (run / BEST).exists():
            shutil.rmtree(run, ignore_errors=True)
            penchant(
                *("train", data, "--out", run, "--recipe", "demo", "--seed", other),
                *("--set", "epochs=8", "--max-minutes", minutes),
            )


def without_newest(world: Path, folder: Path, share: float = 0.1) -> None:
    """The same world without its newest items and what happened to them."""
    items = pl.read_parquet(world / "items.parquet")
    newest = items.sort("created_at")["item_id"][-int(share * len(items)) :].implode()
    folder.mkdir()
    for name in ("dataset.toml", "users.parquet"):
        shutil.copy(world / name, folder)
    items.filter(~pl.col("item_id").is_in(newest)).write_parquet(folder / "items.parquet")
    pl.read_parquet(world / "links.parquet").filter(
        ~pl.col("from_item").is_in(newest) & ~pl.col("to_item").is_in(newest)
    ).write_parquet(folder / "links.parquet")
    (folder / "events").mkdir()
    for part in sorted((world / "events").glob("*.parquet")):
        source = pl.col("source_item_id")
        pl.read_parquet(part).filter(~pl.col("item_id").is_in(newest)).with_columns(
            pl.when(source.is_in(newest)).then(None).otherwise(source).alias("source_item_id")
        ).write_parquet(folder / "events" / part.name)


def space_of(path: Path) -> Space:
    """The items of a run as its towers place them."""
    run = open_run(path)
    model, _ = load_best(run)
    items, data = run.read_items(), run.data
    return Space(
        ids=items["item_id"].to_pylist(),
        vectors=item_vectors(run.items, model).numpy(),
        items=items,
        schema=data.schema,
        popularity=data.popularity(),
        events=count_events(data.times, data.items, num_items=items.num_rows)
        if data.schema.has_times
        else None,
    )


def truth_of(world: Path, ids: Sequence[str]) -> dict[Level, list[str]]:
    """The true interest of each item, the strongest of its mixture, and that one's district."""
    strongest = (
        pl.read_parquet(world / "truth" / "item_interests.parquet")
        .sort("weight", descending=True)
        .unique("item_id", keep="first", maintain_order=True)
        .join(pl.read_parquet(world / "truth" / "interests.parquet"), on="interest")
    )
    found = pl.DataFrame({"item_id": ids}).join(strongest, on="item_id", how="left")
    return {"circle": found["interest"].to_list(), "district": found["district"].to_list()}


def groups_of(found: Circles) -> dict[Level, Int64]:
    """The id of each item's circle, and of its district."""
    table = found.circles
    return {
        "circle": table["circle_id"].to_numpy()[found.of_item].astype(np.int64),
        "district": table["district_id"].to_numpy()[found.of_item].astype(np.int64),
    }


def purity(groups: Int64, labels: Sequence[str]) -> float:
    """The share of items that have the commonest label of their group."""
    _, label = np.unique(np.array(labels, str), return_inverse=True)
    _, group = np.unique(groups, return_inverse=True)
    counts = np.zeros((group.max() + 1, label.max() + 1), np.int64)
    np.add.at(counts, (group, label), 1)
    return float(counts.max(axis=1).sum() / len(labels))


def plain_k_means(vectors: npt.NDArray[np.float32], count: int, *, seed: int) -> Int64:
    """Clusters of the vectors as they are, lengths and all."""
    means = faiss.Kmeans(vectors.shape[1], count, niter=25, seed=seed, min_points_per_centroid=1)
    means.train(vectors)
    nearest: Int64 = means.index.search(vectors, 1)[1][:, 0]
    return nearest


def judged(space: Space, labels: dict[Level, list[str]], figures: dict[str, list[float]]) -> None:
    """Add purity and NMI of circles and districts, and of the references."""
    ours, rng = groups_of(space.circles()), np.random.default_rng(0)
    for level in LEVELS:
        num = len(np.unique(ours[level]))
        candidates = {
            "penchant": ours[level],
            "k_means": plain_k_means(space.vectors, num, seed=1),
            "random": rng.integers(0, num, len(space.ids)),
        }
        figures.setdefault(f"{level}s", []).append(num)
        for name, groups in candidates.items():
            key = f"{level}_{{}}_{name}"
            figures.setdefault(key.format("purity"), []).append(purity(groups, labels[level]))
            nmi = normalized_mutual_info_score(labels[level], groups)
            figures.setdefault(key.format("nmi"), []).append(float(nmi))


def previous_of(space: Space, found: Circles) -> Previous:
    """What an export would read of the bundle with these circles."""
    groups = groups_of(found)
    levels: dict[Level, PreviousLevel] = {}
    for level, table in (("circle", found.circles), ("district", found.districts)):
        ids = table["circle_id"].to_numpy().astype(np.int64)
        place = {one: i for i, one in enumerate(ids.tolist())}
        of_row = np.array([place[one] for one in groups[level].tolist()])
        levels[level] = PreviousLevel(ids, table["name"].to_pylist(), of_row)
    names = pa.table({"item_id": space.ids, "retired": np.zeros(len(space.ids), bool)})
    return Previous("before", int(found.manifest["next_id"]), levels, ItemTable(names))


def lasting(
    before: Space,
    after: Space,
    case: str,
    labels: dict[Level, list[str]],
    figures: dict[str, list[float]],
) -> None:
    """Add how many ids of circles outlast a retraining, for how many items they stay, and what it
    costs in purity to begin from the circles before. labels: of the items of `after`."""
    first = before.circles()
    previous = previous_of(before, first)
    old = groups_of(first)
    place = {one: i for i, one in enumerate(before.ids)}
    both = [(place[one], i) for i, one in enumerate(after.ids) if one in place]
    was, now = (np.array(side) for side in zip(*both, strict=True))
    follows, alone = after.circles(seed=2, previous=previous), after.circles(seed=2)
    held = previous.of_items(after.items["item_id"].combine_chunks())
    for level, tables in (
        ("circle", (first.circles, follows.circles, alone.circles)),
        ("district", (first.districts, follows.districts, alone.districts)),
    ):
        mine, theirs = groups_of(follows)[level], groups_of(alone)[level]
        _, rows = np.unique(theirs, return_inverse=True)
        matched = identify(
            held[level],
            rows.astype(np.int64),
            1 + np.log1p(after.popularity),
            old_ids=previous.levels[level].ids,
            num_new=int(rows.max()) + 1,
            next_id=10**6,
        )
        ways = {
            "penchant": (mine, follows.manifest[level]["kept"]),
            "matched_only": (matched.ids[rows], matched.changes.kept),
            "rows": (theirs, min(len(tables[0]), len(tables[2]))),
        }
        for name, groups in (("penchant", mine), ("matched_only", theirs)):
            true = purity(groups, labels[level])
            figures.setdefault(f"{case}_{level}_purity_{name}", []).append(true)
        for name, (groups, kept) in ways.items():
            key = f"{case}_{level}_{{}}_{name}"
            share = kept / tables[0].num_rows
            figures.setdefault(key.format("ids_kept"), []).append(share)
            stay = float((old[level][was] == groups[now]).mean())
            figures.setdefault(key.format("items_keep_their_id"), []).append(stay)


def main() -> None:
    """Measure, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[100, 101, 102])
    parser.add_argument("--minutes", type=float, default=MINUTES, help="of each training, at most")
    parser.add_argument("--movielens", type=Path, help="a trained run on MovieLens")
    parser.add_argument("--name", default="circles", help="of the result")
    args = parser.parse_args()
    figures: dict[str, list[float]] = {}
    for seed in args.seeds:
        prepare(args.work, seed, minutes=args.minutes)
        a, b, old = (space_of(args.work / f"r{seed}-{name}") for name in ("a", "b", "old"))
        world = args.work / f"w{seed}"
        judged(a, truth_of(world, a.ids), figures)
        lasting(a, b, "another_seed", truth_of(world, b.ids), figures)
        lasting(old, a, "new_items", truth_of(world, a.ids), figures)
    if args.movielens:
        figures |= genres(space_of(args.movielens))
    write_result(
        args.name,
        title="Circles: how true, and how lasting",
        figures={name: [round(one, 4) for one in values] for name, values in figures.items()},
        table=_table(figures),
        notes=_notes(figures, args.seeds, args.minutes),
        command=f"python benchmarks/circles.py --work DIR --seeds {' '.join(map(str, args.seeds))}"
        + " --movielens RUN" * bool(args.movielens),
    )


def genres(space: Space) -> dict[str, list[float]]:
    """Purity of circles against MovieLens' genres: each movie's first."""
    first = [one[0] if one else "none" for one in space.items["genres"].to_pylist()]
    found: dict[str, list[float]] = {}
    judged(space, {"circle": first, "district": first}, found)
    return {f"genres_{name}": values for name, values in found.items()}


def _shown(values: Sequence[float], form: str) -> str:
    """The mean, and how far the worlds lie apart."""
    spread = f" ± {stdev(values):{form}}" if len(values) > 1 else ""
    return f"{mean(values):{form}}{spread}"


def _table(figures: dict[str, list[float]]) -> list[list[str]]:
    rows = [["", "Penchant", "reference", "reference"]]
    for of in ("", "genres_"):
        for level in LEVELS:
            for what in ("purity", "nmi"):
                key = f"{of}{level}_{what}_"
                if f"{key}penchant" in figures:
                    true = "true interests" if level == "circle" else "true districts"
                    rows.append(
                        [
                            f"{what} of {level}s against {'genres' if of else true}",
                            _shown(figures[key + "penchant"], ".3f"),
                            f"{_shown(figures[key + 'k_means'], '.3f')} (k-means)",
                            f"{_shown(figures[key + 'random'], '.3f')} (random)",
                        ]
                    )
    cases = {"another_seed": "another seed", "new_items": "a tenth of new items"}
    for case, said in cases.items():
        for level in LEVELS:
            for what in ("ids_kept", "items_keep_their_id"):
                key = f"{case}_{level}_{what}_"
                words = "ids that last" if what == "ids_kept" else "items whose id stays"
                rows.append(
                    [
                        f"{words}, {level}s, after {said}",
                        _shown(figures[key + "penchant"], ".1%"),
                        f"{_shown(figures[key + 'matched_only'], '.1%')} (anew, then matched)",
                        f"{_shown(figures[key + 'rows'], '.1%')} (rows as ids)",
                    ]
                )
            key = f"{case}_{level}_purity_"
            rows.append(
                [
                    f"purity of {level}s then",
                    _shown(figures[key + "penchant"], ".3f"),
                    f"{_shown(figures[key + 'matched_only'], '.3f')} (found anew)",
                    "–",
                ]
            )
    return rows


def _notes(figures: dict[str, list[float]], seeds: Sequence[int], minutes: float) -> str:
    worlds = ", ".join(map(str, seeds))
    circles, districts = (mean(figures[name]) for name in ("circles", "districts"))
    return (
        f"Mean and standard deviation over the worlds {worlds}: {USERS} people, {ITEMS:,} items, "
        f"49 true interests in 11 districts; towers of the recipe `demo`, {minutes:g} minutes at "
        f"most each. {circles:.0f} circles, {districts:.0f} districts. An item's "
        "true interest is the strongest of its mixture. Rows as ids: the number means nothing to "
        "start with, so nearly no item keeps it, though every number is there again."
    )


if __name__ == "__main__":
    main()
