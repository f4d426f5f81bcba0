"""How a person reacts to one slot of a feed, for all slots of a day at once.

Pure in its arguments and the random generator: it changes no state. Knows nothing of how the feed
was chosen, and nothing of days.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from training.world.catalogue import ARTICLE, CREATOR, LIVE, PRODUCT, VIDEO, Catalogue
from training.world.config import SECOND, WorldConfig
from training.world.log import Feed, Floats, Ints, Sessions
from training.world.people import People

GOOD_WATCH = 0.6
"""Share of an item's duration from which a watch is good."""
DEPTH_NOISE = 0.8
"""Standard deviation of chance in the log-odds of the share that is watched."""

_KEENNESS = {PRODUCT: -0.2, VIDEO: 0.4, LIVE: 0.3, ARTICLE: -0.2, CREATOR: -1.2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reactions:
    """What happened in the n slots that were reached: [n] arrays, in feed order."""

    user: Ints
    item: Ints
    position: Ints
    propensity: Floats
    time: Ints
    """When the slot was shown, UTC microseconds."""
    over: Ints
    """When the watch ended; `time` where nothing was watched."""
    seconds: Floats
    """Seconds watched or read, whole; 0 where nothing was."""
    depth: Floats
    """Share of the duration that was watched."""
    liking: Floats
    """How much the person cares about what the item is about, 0 to 1."""
    engaged: NDArray[np.bool_]
    """Watched, if the item has a duration; else clicked."""
    likes: NDArray[np.bool_]
    bored: NDArray[np.bool_]
    """Said that they are not interested."""
    shown: Ints
    """A product that the item shows, if it shows any; else -1."""
    opens: NDArray[np.bool_]
    """Went from the item to that product's page."""

    @property
    def good(self) -> NDArray[np.bool_]:
        """Whether it was a good watch."""
        return self.engaged & (self.depth >= GOOD_WATCH)


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """What decides a reaction before chance does: [n] arrays."""

    liking: Floats
    """How much the person cares about what the item is about, 0 to 1."""
    odds: Floats
    """Log-odds of a watch or a click."""
    depth_odds: Floats
    """Log-odds of the share that is watched, in the middle; chance adds DEPTH_NOISE."""


def promise(
    user: Ints,
    item: Ints,
    position: Ints,
    *,
    feel: Floats,
    follows: NDArray[np.bool_],
    config: WorldConfig,
    catalogue: Catalogue,
    people: People,
) -> Promise:
    """What n users feel about n items at n positions, row by row; the rest as in `react`."""
    share = catalogue.share[item]
    affinity = share * feel[user, catalogue.craft[item]]
    affinity += (1.0 - share) * feel[user, catalogue.second[item]]
    liking = np.minimum(affinity, 1.0)
    style = config.taste * liking * (catalogue.taste[item] * people.taste[user]).sum(1)
    maker = catalogue.creator[item]
    fan = np.where(maker >= 0, follows[user, maker.clip(0)], False)
    keen = np.array([_KEENNESS[code] for code in range(len(_KEENNESS))])[catalogue.kind[item]]
    odds = -3.4 + 3.4 * affinity + 1.3 * style + 0.6 * catalogue.appeal[item]
    return Promise(
        liking=liking,
        odds=odds + keen + 0.5 * fan - 0.03 * position,
        depth_odds=-0.3 + 1.3 * affinity + 0.8 * style + 0.7 * catalogue.quality[item],
    )


def react(
    feed: Feed,
    sessions: Sessions,
    *,
    feel: Floats,
    follows: NDArray[np.bool_],
    config: WorldConfig,
    catalogue: Catalogue,
    people: People,
    rng: np.random.Generator,
) -> Reactions:
    """Draw every reaction of a day.

    feel: [U, K], how keen each user is on each interest today. follows: [U, creators].
    Slots after the end of a live room or of the period are never reached, and left out.
    """
    item, num = feed.item, len(feed.item)
    user = sessions.user[feed.session]
    promised = promise(
        user,
        item,
        feed.position,
        feel=feel,
        follows=follows,
        config=config,
        catalogue=catalogue,
        people=people,
    )
    liking = promised.liking
    engaged = rng.random(num) < sigmoid(promised.odds)
    quality, duration = catalogue.quality[item], catalogue.duration[item]
    depth = sigmoid(promised.depth_odds + rng.normal(0, DEPTH_NOISE, num))
    seconds = np.where(engaged, np.ceil(depth * duration), 0.0)
    shown = catalogue.links.draw(item, rng)
    opens = engaged & (shown >= 0) & (rng.random(num) < 0.35 * liking * depth)
    likes = rng.random(num) < sigmoid(-2.4 + quality + 0.8 * liking)
    bored = ~engaged & (rng.random(num) < 0.01 * (1.0 - liking))

    # A slot is shown when the one before it in the session is done with.
    dwell = np.where(engaged & (duration == 0), rng.uniform(8, 45, num), rng.uniform(1, 4, num))
    dwell = np.round((dwell + seconds + 20.0 * opens) * 1000).astype(np.int64) * (SECOND // 1000)
    before = np.cumsum(dwell) - dwell
    first = np.searchsorted(feed.session, feed.session)
    time = sessions.start[feed.session] + before - before[first]
    left = (np.minimum(catalogue.gone[item], config.end) - time) / SECOND
    reached = left > 60
    seconds = np.minimum(seconds, np.floor(left - 30.0))
    depth = np.where(engaged & (duration > 0), seconds / np.maximum(duration, 1.0), 0.0)
    likes &= engaged & (depth >= GOOD_WATCH)
    over = time + seconds.clip(0).astype(np.int64) * SECOND
    return Reactions(
        user=user[reached],
        item=item[reached],
        position=feed.position[reached],
        propensity=feed.propensity[reached],
        time=time[reached],
        over=over[reached],
        seconds=seconds[reached],
        depth=depth[reached],
        liking=liking[reached],
        engaged=engaged[reached],
        likes=likes[reached],
        bored=bored[reached],
        shown=shown[reached],
        opens=opens[reached],
    )


def sigmoid(odds: Floats) -> Floats:
    """The probability of log-odds."""
    probability: Floats = 1.0 / (1.0 + np.exp(-odds))
    return probability
