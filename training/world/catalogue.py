"""The items of the synthetic world: what each is, what it is truly about, and when it exists.

Makes creators first, then what they make and film. Knows nothing of users, exposures or orders.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.schema import KINDS
from training.world.config import DAY, NEVER, SECOND, WorldConfig
from training.world.crafts import adjacency, crafts
from training.world.links import Links, draw_links
from training.world.titles import (
    PLACES,
    Creator,
    name_creator,
    price_band,
    round_price,
    title_item,
)

PRODUCT, VIDEO, LIVE, ARTICLE, CREATOR = (
    KINDS.index("product"),
    KINDS.index("video"),
    KINDS.index("live"),
    KINDS.index("article"),
    KINDS.index("creator"),
)
TASTE_DIM = 4
"""Length of the hidden taste vectors of items and users."""

_SHARES = {PRODUCT: 0.44, VIDEO: 0.38, LIVE: 0.05, ARTICLE: 0.07}
_PREFIX = {PRODUCT: "p", VIDEO: "v", LIVE: "l", ARTICLE: "a", CREATOR: "c"}
_SOLD_OUT = 0.04
_UNLABELLED = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalogue:
    """N items as arrays; row i of each is one item. The hidden truth stands beside the columns."""

    ids: list[str]
    kind: NDArray[np.int8]
    """[N], positions in model.schema.KINDS."""
    craft: NDArray[np.int64]
    """[N], the true main interest, 0 to K - 1."""
    second: NDArray[np.int64]
    """[N], the true second interest; equal to `craft` where there is none."""
    share: NDArray[np.float64]
    """[N], weight of the main interest in the mixture; 1 where there is no second."""
    labelled: NDArray[np.bool_]
    """[N], whether the `craft` column says the main interest."""
    creator: NDArray[np.int64]
    """[N], the row of its creator; -1 for a creator."""
    created: NDArray[np.int64]
    """[N], UTC microseconds."""
    gone: NDArray[np.int64]
    """[N], when a live room ends or a product sells out, UTC microseconds; else NEVER."""
    air: NDArray[np.int64]
    """[N], when a live room goes on air, UTC microseconds; `created` for every other kind."""
    duration: NDArray[np.float64]
    """[N], seconds to watch or read it whole; 0 for products and creators."""
    price: NDArray[np.float64]
    """[N], CNY; NaN for all but products."""
    appeal: NDArray[np.float64]
    """[N], how much its cover promises: drives watches and clicks. Standard normal."""
    quality: NDArray[np.float64]
    """[N], how good it is: drives watched seconds and likes. Standard normal."""
    power: NDArray[np.float64]
    """[N], how much a full watch stirs, around 0.5; 0 for products and creators."""
    reach: NDArray[np.float64]
    """[N], how widely its creator is known; Zipf over creators, mean 1 over items."""
    taste: NDArray[np.float64]
    """[N, TASTE_DIM], unit vectors: the hidden style, from its maker, materials and techniques."""
    titles: list[tuple[str, str]]
    """Chinese and English."""
    cultures: list[str]
    tags: list[list[str]]
    links: Links

    @property
    def num_creators(self) -> int:
        """Creators are the rows [0, num_creators)."""
        return int((self.kind == CREATOR).sum())

    def price_bands(self) -> list[str | None]:
        """The `price_band` column."""
        return [None if np.isnan(price) else price_band(price) for price in self.price]


def draw_catalogue(config: WorldConfig) -> Catalogue:
    """Draw every item of the world, seeded by the config alone."""
    rng = np.random.default_rng([config.seed, 1])
    all_crafts = crafts()
    num_crafts = len(all_crafts)
    counts = {kind: round(share * config.num_items) for kind, share in _SHARES.items()}
    num_creators = config.num_items - sum(counts.values())
    kind = np.repeat(
        np.array([CREATOR, *counts], np.int8),
        np.array([num_creators, *counts.values()]),
    )
    size = len(kind)
    is_creator = kind == CREATOR
    is_live = kind == LIVE
    content = is_live | (kind == VIDEO) | (kind == ARTICLE)

    # Creators: every craft has some, popular crafts more; how widely each is known is Zipf.
    loved = rng.permutation(num_crafts) + 1.0
    loved = loved**-0.6 / (loved**-0.6).sum()
    maker_craft = rng.choice(num_crafts, num_creators, p=loved)
    covered = min(num_crafts, num_creators)
    maker_craft[:covered] = rng.permutation(num_crafts)[:covered]
    maker_side = np.where(
        rng.random(num_creators) < 0.2,
        _neighbours(maker_craft, rng, wild=0.2),
        maker_craft,
    )
    fame = 1.0 / (rng.permutation(num_creators) + 1.0)
    maker_created = config.begin - (rng.uniform(60, 900, num_creators) * DAY).astype(np.int64)
    late = np.flatnonzero(rng.random(num_creators) < 0.06)
    maker_created[late] = config.begin + _within_period(config, len(late), rng)

    # Everything else belongs to a creator; the first product of each craft is always there.
    creator = rng.choice(num_creators, size, p=fame**0.45 / (fame**0.45).sum())
    settled = np.setdiff1d(np.arange(num_creators), late)
    creator[is_live] = rng.choice(
        settled, counts[LIVE], p=fame[settled] ** 0.45 / (fame[settled] ** 0.45).sum()
    )
    craft = np.where(rng.random(size) < 0.85, maker_craft[creator], maker_side[creator])
    staple = np.flatnonzero(kind == PRODUCT)[:num_crafts]
    craft[staple] = np.arange(num_crafts)
    for row in staple:
        makers = settled[maker_craft[settled] == craft[row]]
        creator[row] = rng.choice(makers if len(makers) else settled)
    craft[:num_creators], creator[:num_creators] = maker_craft, -1
    blends = content & (rng.random(size) < config.cross_interest)
    second = np.where(blends, _neighbours(craft, rng, wild=0.3), craft)
    second[:num_creators] = maker_side
    share = np.where(second == craft, 1.0, rng.uniform(0.5, 0.8, size))

    age = np.where(kind == PRODUCT, rng.exponential(90, size), rng.exponential(20, size))
    created = config.begin - ((age.clip(0, 500) + 0.05) * DAY).astype(np.int64)
    fresh = np.flatnonzero((rng.random(size) < config.new_items) & ~is_live)
    created[fresh] = config.begin + _within_period(config, len(fresh), rng)
    created[staple] = config.begin - 600 * DAY
    air = created.copy()
    # Rooms open mostly in the Chinese evening, 10:00 to 14:00 UTC, from two days before the start.
    air[is_live] = config.begin + _seconds(
        rng.integers(-2, config.num_days, counts[LIVE]) * 86_400
        + rng.triangular(0, 11.5, 21, counts[LIVE]) * 3600
    )
    created[is_live] = air[is_live] - _seconds(rng.uniform(1, 12, counts[LIVE]) * 3600)
    made = creator.clip(0)
    early = ~is_creator & (created <= maker_created[made])
    slack = config.end - DAY // 24 - maker_created[made][early]
    created[early] = maker_created[made][early] + (
        slack * rng.uniform(0.02, 1, early.sum())
    ).astype(np.int64)
    created[:num_creators] = maker_created
    air = np.where(is_live, air, created)
    gone = np.full(size, NEVER)
    gone[is_live] = air[is_live] + _seconds(rng.uniform(2, 6, counts[LIVE]) * 3600)
    sold = (kind == PRODUCT) & (rng.random(size) < _SOLD_OUT) & (created < config.end - DAY)
    sold[staple] = False
    since = np.maximum(created, config.begin)[sold]
    gone[sold] = since + ((config.end - since) * rng.uniform(0.05, 1, sold.sum())).astype(np.int64)

    make = rng.integers(0, 5, size)
    material, technique = rng.integers(0, 4, (2, size))
    kinds_of = rng.normal(size=(2, num_crafts, 4, TASTE_DIM))
    maker_taste = rng.normal(size=(num_creators, TASTE_DIM))
    taste = 0.55 * maker_taste[made] + 0.5 * rng.normal(size=(size, TASTE_DIM))
    taste += 0.45 * (kinds_of[0][craft, material] + kinds_of[1][craft, technique])
    taste[:num_creators] = maker_taste
    taste /= np.linalg.norm(taste, axis=1, keepdims=True)
    quality, appeal, hidden = rng.normal(size=(3, size))
    quality = 0.4 * rng.normal(size=num_creators)[made] + np.sqrt(0.84) * quality
    appeal = 0.3 * quality + np.sqrt(0.91) * appeal
    power = np.where(content, 0.5 * np.exp(0.45 * quality + 0.4 * hidden - 0.18), 0.0)
    reach = (fame**0.7)[made] * np.exp(rng.normal(0, 0.6, size))
    reach[:num_creators] = fame**0.7
    duration = np.zeros(size)
    duration[kind == VIDEO] = np.exp(rng.normal(4.0, 0.5, counts[VIDEO])).clip(12, 240)
    duration[kind == ARTICLE] = np.exp(rng.normal(4.3, 0.4, counts[ARTICLE])).clip(25, 300)
    duration[is_live] = rng.uniform(240, 720, counts[LIVE])

    medians = np.array([one.price for one in all_crafts])[craft]
    premium = np.exp(rng.normal(0, 0.55, size) + 0.15 * quality)
    price = np.full(size, np.nan)
    product = np.flatnonzero(kind == PRODUCT)
    price[product] = [round_price(value) for value in (medians * premium)[product]]

    titles, cultures, tags = _words(
        kind=kind, craft=craft, second=second, creator=creator, make=make, material=material,
        technique=technique, rng=rng,
    )  # fmt: skip
    ids = _ids(kind, rng)
    return Catalogue(
        ids=ids, kind=kind, craft=craft, second=second, share=share,
        labelled=~content | (rng.random(size) >= _UNLABELLED),
        creator=creator, created=created, gone=gone, air=air, duration=np.round(duration),
        price=price, appeal=appeal, quality=quality, power=power, reach=reach / reach.mean(),
        taste=taste, titles=titles, cultures=cultures, tags=tags,
        links=draw_links(
            rng, content=content, live=is_live, product=kind == PRODUCT, craft=craft,
            second=second, share=share, creator=creator, created=created, air=air, gone=gone,
            reach=reach,
        ),
    )  # fmt: skip


def _words(
    *,
    kind: NDArray[np.int8],
    craft: NDArray[np.int64],
    second: NDArray[np.int64],
    creator: NDArray[np.int64],
    make: NDArray[np.int64],
    material: NDArray[np.int64],
    technique: NDArray[np.int64],
    rng: np.random.Generator,
) -> tuple[list[tuple[str, str]], list[str], list[list[str]]]:
    """Titles, cultures and tags of all items; tags say some of what is true, and some noise."""
    moods = (
        "治愈",
        "送礼",
        "新手友好",
        "非遗",
        "慢生活",
        "源头好物",
        "一人食",
        "宝藏店铺",
    )
    titles: list[tuple[str, str]] = []
    cultures: list[str] = []
    tags: list[list[str]] = []
    makers: list[tuple[Creator, str]] = []
    for row in range(len(kind)):
        its = crafts()[craft[row]]
        place = its.places[int(rng.integers(len(its.places)))]
        mood = moods[int(rng.integers(len(moods)))]
        if kind[row] == CREATOR:
            maker, title = name_creator(its, place, rng=rng)
            makers.append((maker, place))
            words = [its.name[0], mood]
        else:
            maker, home = makers[creator[row]]
            place = home if home in its.places else place
            other = crafts()[second[row]] if second[row] != craft[row] else None
            title = title_item(
                KINDS[kind[row]], its, make=make[row], material=material[row],
                technique=technique[row], place=place, creator=maker, second=other, rng=rng,
            )  # fmt: skip
            words = [
                its.materials[material[row]][0],
                its.techniques[technique[row]][0],
                mood,
            ]
            words += [other.name[0]] if other is not None else []
        keep = rng.random(len(words)) < 0.6
        tags.append([word for word, kept in zip(words, keep, strict=True) if kept])
        titles.append(title)
        cultures.append(PLACES[place].culture)
    return titles, cultures, tags


def _neighbours(
    craft: NDArray[np.int64], rng: np.random.Generator, *, wild: float
) -> NDArray[np.int64]:
    """For each craft another one: adjacent, or any other with probability `wild`."""
    near = adjacency() / adjacency().sum(1, keepdims=True)
    anywhere = (1.0 - np.eye(len(near))) / (len(near) - 1)
    cumulative = np.cumsum((1 - wild) * near + wild * anywhere, axis=1)
    drawn = rng.random((len(craft), 1)) * cumulative[craft, -1:]
    another: NDArray[np.int64] = (cumulative[craft] <= drawn).sum(1)
    return another


def _within_period(config: WorldConfig, count: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Microseconds after the start, up to an hour before the end."""
    return (rng.uniform(0, 1, count) * (config.end - config.begin - DAY // 24)).astype(np.int64)


def _seconds(values: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.round(values).astype(np.int64) * SECOND


def _ids(kind: NDArray[np.int8], rng: np.random.Generator) -> list[str]:
    """Ids such as v00123; their order says nothing about the items."""
    numbers = np.empty(len(kind), np.int64)
    for code in np.unique(kind):
        rows = np.flatnonzero(kind == code)
        numbers[rows] = rng.permutation(len(rows))
    width = max(5, len(str(len(kind))))
    return [f"{_PREFIX[code]}{n:0{width}d}" for code, n in zip(kind.tolist(), numbers, strict=True)]
