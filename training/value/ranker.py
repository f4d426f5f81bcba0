"""Towers and value model together as a ranker: what a server with the same bundle would show.

Candidates are what retrieval finds and what the user engaged with and did not convert on; the value
model orders them by what its heads' events are worth, as serving/rank/value.py does.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

from training.dataset import Interactions, read_items_table
from training.evaluate import Reranker
from training.run import Run
from training.splits import Questions
from training.tower_ranker import TowerRanker
from training.value.candidates import ListMaker
from training.value.created import created_at
from training.value.fit import item_side, predict_from
from training.value.inputs import ItemArrays
from training.value.kin import kin_codes
from training.value.stored import StoredValue, has_value, load_value

Int64 = npt.NDArray[np.int64]


def reranker_of(run: Run) -> Reranker | None:
    """The run's value model for an evaluation; None where there is none, or where it learned from
    exposures: what is shown in vain tells how to order what is shown, not what to show.

    Raises as load_value does.
    """
    if not has_value(run):
        return None
    value = load_value(run)
    if not value.config.candidates:
        return None
    return lambda towers, questions: ValueRanker(run, value, towers, questions)


class ValueRanker:
    """A value model that was trained on candidates, behind its towers (training/ranking.py)."""

    name = "towers + value model"

    def __init__(
        self,
        run: Run,
        value: StoredValue,
        towers: TowerRanker,
        questions: Questions,
    ) -> None:
        """towers: of the run, for these questions."""
        self._value = value
        items = ItemArrays.of(run, torch.from_numpy(towers.vectors), value.stats)
        self._vectors = item_side(value.network, items)
        self._weights = np.array([run.data.schema.worth(head.event) for head in value.heads])
        table, config = read_items_table(run.dataset), value.network.config
        self._maker = ListMaker.of(
            towers,
            questions,
            kin=kin_codes(table, config.kin, vectors=towers.vectors, seed=run.config.seed),
            created=created_at(run, table) if config.reads_age else None,
            profiles=run.profiles,
            retrieved=value.config.candidates,
            engaged=value.config.engaged,
        )

    def top(
        self, histories: Interactions, users: Int64, k: int, *, excluded: Sequence[Int64] | None
    ) -> Int64:
        """See Ranker; histories are those of the questions."""
        retrieved = max(self._value.config.candidates, k)
        lists = self._maker.lists(
            users, excluded=excluded, heads=self._value.heads, retrieved=retrieved
        )
        logits = predict_from(
            self._value.network, self._vectors, lists, max_history=self._value.config.max_history
        )
        chances = 1 / (1 + np.exp(-logits))
        values = (chances @ self._weights).astype(np.float32)
        owners = lists.owners
        order = np.lexsort((-values, owners))
        rank = np.arange(len(order)) - lists.starts[owners]
        rows = np.full((len(users), k), -1, np.int64)
        shown = rank < k
        rows[owners[shown], rank[shown]] = lists.items[order[shown]]
        return rows
