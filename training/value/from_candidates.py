"""Validation's questions become lists to learn from: some users fit, the others say when to stop.

Which user does what follows from a hash of the id, so that more data moves nobody.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from model.errors import ConfigError
from model.items import hash_ids
from model.schema import Head
from model.towers import TwoTower
from training.dataset import load_user_ids, read_items_table
from training.evaluate import DistinctItems
from training.run import Run
from training.splits import filtered
from training.tower_ranker import TowerRanker
from training.value.candidates import ListMaker, Lists, target_keys
from training.value.config import ValueRunConfig
from training.value.created import created_at
from training.value.inputs import ItemArrays
from training.value.kin import kin_codes, kin_columns

Int64 = npt.NDArray[np.int64]
Progress = Callable[[float, str], None]

_TOGETHER = 1024
"""Users whose lists are made at once."""


def fit_and_choose(
    run: Run,
    model: TwoTower,
    items: ItemArrays,
    config: ValueRunConfig,
    *,
    progress: Progress,
) -> tuple[Lists, Lists, list[str]]:
    """The lists to fit, those to choose by, and what was left out, in words.

    Raises DatasetError where validation asks for nothing, ConfigError where there are too few users
    or no answer is among its user's candidates.
    """
    seen = run.config.seen
    questions = run.split.questions("validation", seen=seen)
    chooses = _choosers(run, config)[questions.users]
    if chooses.all() or not chooses.any():
        raise ConfigError(
            f"validation asks {len(questions.users):,} users, of whom {int(chooses.sum()):,} would "
            "choose when to stop and the others be learned from; both must be some. The value "
            "model needs more users, or another seed."
        )
    towers = TowerRanker(model, items.vectors, questions, profiles=run.profiles)
    table = read_items_table(run.dataset)
    maker = ListMaker.of(
        towers,
        questions,
        kin=kin_codes(
            table,
            kin_columns(table, run.data.schema, most=config.num_kin),
            vectors=items.vectors.numpy(),
            seed=run.config.seed,
        ),
        created=created_at(run, table),
        profiles=run.profiles,
        retrieved=config.candidates,
        engaged=config.engaged,
    )
    wanted = run.config.targets or tuple(run.data.schema.history_events)
    heads = tuple(Head(name=name, event=name) for name in wanted)
    gone = None if seen == "keep" else DistinctItems(filtered(questions.histories, seen))
    keys = target_keys(run.split, heads)
    parts: list[Lists] = []
    for index, users in enumerate((questions.users[~chooses], questions.users[chooses])):
        made = []
        for start in range(0, len(users), _TOGETHER):
            some = users[start : start + _TOGETHER]
            excluded = None if gone is None else gone.of(some)
            made.append(maker.lists(some, excluded=excluded, heads=heads))
            progress((index + start / len(users)) / 2, "retrieve candidates")
        parts.append(_labelled(Lists.joined(made), keys, run.data.num_items))
    fit, choose = parts
    kept, notes = _heads_to_learn(fit)
    return fit.with_heads(kept), choose.with_heads(kept), notes


def counts_of(lists: Lists) -> dict[str, Any]:
    """What a part is made of, for value.json."""
    found = np.unique(lists.owners[lists.labels.any(axis=1)])
    return {
        "users": lists.num_owners,
        "candidates": len(lists.items),
        "users_whose_answer_is_among_them": len(found),
        "positives": {
            head.name: int(lists.labels[:, place].sum()) for place, head in enumerate(lists.heads)
        },
    }


def _choosers(run: Run, config: ValueRunConfig) -> npt.NDArray[np.bool_]:
    """[U] which users choose when to stop."""
    hashes = hash_ids([f"{config.seed}/{name}" for name in load_user_ids(run.arrays)])
    return hashes / 2.0**64 < config.choosing_share


def _labelled(lists: Lists, keys: list[Int64], num_items: int) -> Lists:
    """The lists with their labels. keys: as of target_keys."""
    pairs = lists.users[lists.owners] * num_items + lists.items
    for place, wanted in enumerate(keys):
        lists.labels[:, place] = np.isin(pairs, wanted)
    return lists


def _heads_to_learn(fit: Lists) -> tuple[tuple[int, ...], list[str]]:
    """Places of the heads that came true for some candidate, and why others cannot be learned.

    Raises ConfigError where none is left.
    """
    kept, notes = [], []
    for place, head in enumerate(fit.heads):
        if fit.labels[:, place].any():
            kept.append(place)
            continue
        notes.append(
            f"head {head.name!r} is left out: none of the {len(fit.items):,} candidates of "
            f"{fit.num_owners:,} users is what validation asks for."
        )
    if not kept:
        raise ConfigError(
            "no head can be learned. " + " ".join(notes) + " Give more --candidates, or train the "
            "towers again: what is held out must be among what they find."
        )
    return tuple(kept), notes
