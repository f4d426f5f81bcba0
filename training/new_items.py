"""How much the vectors of items that were never trained weigh, so that lists hold a share of them.

What content alone says of an item lies further from its users than content and id together, and by
how much differs from one dataset to the next. So a run names the share of lists that new items are
to have, and the weight follows from its own users and items, at each validation.
"""

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from model.towers import TwoTower
from training.splits import filtered
from training.tower_ranker import TowerRanker, item_vectors, search_interests

if TYPE_CHECKING:
    from training.run import Run

Float32 = npt.NDArray[np.float32]

FIRST = 50
"""The places of a list that the share is of."""
_USERS = 2_000
_MOST = 4.0
"""A new item stands in a history with the same vector, and is not to outweigh all others there."""


def weigh_new_items(run: "Run", model: TwoTower, share: float) -> None:
    """Set the model's `new_item_weight` so that `share` of the first FIRST places of the lists of
    validation's users go to items that were never trained.

    It is never below 1: where new items have that share already, nothing changes. Nor does it where
    no item is new, or none was trained.
    """
    weight = model.item_tower.new_item_weight
    weight.fill_(1.0)
    is_new = (run.items.id_codes == 0).cpu().numpy()
    has_content = model.item_tower.content is not None
    if not share or not has_content or is_new.all() or not is_new.any():
        return
    seen = run.config.seen
    asked = run.split.questions("validation", seen=seen).sample(_USERS, seed=run.config.seed)
    ranker = TowerRanker(model, item_vectors(run.items, model), asked, profiles=run.profiles)
    interests = ranker.interests(asked.histories, asked.users)
    gone = filtered(asked.histories, seen)
    place = np.where(is_new, -1, np.cumsum(~is_new) - 1)  # among the trained items
    left_out = [
        rows[rows >= 0]
        for user in asked.users
        for rows in [np.unique(place[gone.items[gone.starts[user] : gone.starts[user + 1]]])]
    ]
    # Interests take turns in a list (model/merge.py), so each fills its part of the places.
    num_interests = interests.shape[1]
    places = -(-FIRST // num_interests)
    each = interests.reshape(-1, 1, interests.shape[2])
    left_out = [rows for rows in left_out for _ in range(num_interests)]
    _, trained = search_interests(each, ranker.vectors[~is_new], places, excluded=left_out)
    _, new = search_interests(each, ranker.vectors[is_new], places, excluded=None)
    weight.fill_(weight_for(trained, new, share))


def weight_for(trained: Float32, new: Float32, share: float) -> float:
    """trained, new: [B, K] the best scores of each user, falling, -inf where there is none.

    Returns the weight w from 1 to _MOST with which `share` of the best K of `trained` and w x `new`
    together are new ones, over all users, or as near to it as one weight comes. Where there are
    fewer than K new ones it is `share` of them.
    """
    # The j-th best new item is among the best K as soon as it outdoes the j-th last of the trained.
    held = trained[:, ::-1]
    with np.errstate(divide="ignore", invalid="ignore"):
        needs = np.where(new > held, 1, np.where(new > 0, held / new, np.inf))
    needs = np.sort(needs[~np.isneginf(new)])
    liftable = int(np.isfinite(needs).sum())  # no weight lifts what scores below zero
    if not liftable:
        return 1.0
    return float(np.clip(needs[min(int(share * len(needs)), liftable - 1)], 1.0, _MOST))
