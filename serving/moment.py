"""What a user did just now, put together with what the store has of them. Arrays and ids alone."""

import numpy as np

from serving.domain import History


def with_moment(past: History, moment: History) -> History:
    """Both by time; of equal times the past comes first. An act that both have counts once.

    past, moment: oldest first, with an event name and a time for each event. The same item, event
    and time are the same act.
    """
    acts = _acts(past)
    known = set(acts)
    acts += [act for act in dict.fromkeys(_acts(moment)) if act not in known]
    times = np.array([time for _, _, time in acts], np.int64)
    order = np.argsort(times, kind="stable")
    places = order.tolist()
    return History([acts[i][0] for i in places], [acts[i][1] for i in places], times[order])


def _acts(history: History) -> list[tuple[str, str, int]]:
    times = np.asarray(history.timestamps_us, np.int64).tolist()
    return list(zip(history.item_ids, history.events, times, strict=True))
