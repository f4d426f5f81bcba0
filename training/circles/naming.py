"""What circles are called: by the feature values that are most their own, in the words of the data.

Names are for people: values in the script of the dataset's language come first, names within a
level are distinct, and a circle that lasts keeps its name while it is still true. Knows no vectors.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from model.circles import Level
from model.schema import Schema

Int64 = npt.NDArray[np.int64]

NUM_TOP_FEATURES = 5
MIN_SHARES: dict[Level, float] = {"circle": 0.15, "district": 0.03}
"""A value may name a group if at least this share of its items have it. The circles of a district
have little more in common than their place."""
_BETWEEN = " · "
_SCRIPTS = {
    "ar": "\u0600-\u06ff",
    "el": "\u0370-\u03ff",
    "fa": "\u0600-\u06ff",
    "he": "\u0590-\u05ff",
    "hi": "\u0900-\u097f",
    "ja": "\u3040-\u30ff\u3400-\u9fff",
    "ko": "\uac00-\ud7af",
    "ru": "\u0400-\u04ff",
    "th": "\u0e00-\u0e7f",
    "uk": "\u0400-\u04ff",
    "zh": "\u3400-\u9fff",
}
"""The letters of languages that are not written in Latin ones."""


def top_features(
    groups: npt.NDArray[np.integer], num: int, items: pa.Table, schema: Schema, *, least: float
) -> list[list[str]]:
    """The values that are most each group's own: share × log(share / share in the catalogue).

    groups: [N] the group of each item, of `num`. least: the share of a group's items that need to
    have a value.

    Values in the script of the dataset's language come before all others. Only the pairs of group
    and value that occur are counted: a catalogue of a million items has thousands of circles and
    may have as many creators as it likes.
    """
    groups = groups.astype(np.int64)
    found: list[list[tuple[bool, float, str]]] = [[] for _ in range(num)]
    sizes = np.bincount(groups, minlength=num)
    own = _SCRIPTS.get(schema.language)
    script = re.compile(f"[{own}]") if own else None
    for rows, codes, names in _values(items, schema):
        pairs, counts = np.unique(groups[rows] * len(names) + codes, return_counts=True)
        group, code = np.divmod(pairs, len(names))
        share = counts / sizes[group]
        often = share >= least
        group, code, share = group[often], code[often], share[often]
        overall = np.bincount(codes, minlength=len(names))[code] / len(groups)
        lift = share * np.log(share / overall)
        for place in np.flatnonzero(lift > 0).tolist():
            name = names[code[place]]
            # A quantity ("50-150") or a code ("c0042") sets items apart, but is no name for people.
            if not any(map(str.isdigit, name)):
                is_own = script is not None and script.search(name) is not None
                found[group[place]].append((is_own, float(lift[place]), name))
    return [
        list(dict.fromkeys(name for _, _, name in sorted(pairs, reverse=True)))[:NUM_TOP_FEATURES]
        for pairs in found
    ]


def names_of(
    features: Sequence[Sequence[str]],
    titles: Sequence[str | None],
    ids: Sequence[int],
    *,
    held: Sequence[str | None],
    word: str,
) -> list[str]:
    """Distinct names of G groups.

    The two most telling values; where groups share them, as many more as tell them apart, and where
    they share all of them, the title of the best-known item as well. A group without any has its
    id, and so have the last that nothing else tells apart.

    features: [G] top_features. titles: [G] of each one's best-known item. held: [G] the name that
    each had before, None for none; it stays where all of its words are still telling. word: what a
    group is called, such as `circle`.
    """
    kept = [
        name if name and set(name.split(_BETWEEN)) <= set(values) else None
        for name, values in zip(held, features, strict=True)
    ]
    taken = Counter(name for name in kept if name)
    kept = [name if name and taken[name] == 1 else None for name in kept]
    names = [old or _BETWEEN.join(values[:2]) for old, values in zip(kept, features, strict=True)]
    for depth in range(3, NUM_TOP_FEATURES + 1):
        counts = Counter(names)
        names = [
            _BETWEEN.join(values[:depth]) if counts[name] > 1 and not old else name
            for name, old, values in zip(names, kept, features, strict=True)
        ]
    counts = Counter(names)
    names = [
        name
        if old or (name and counts[name] == 1)
        else f"{name} ({title})"
        if name and title
        else name or title or f"{word} {one}"
        for name, old, title, one in zip(names, kept, titles, ids, strict=True)
    ]
    counts = Counter(names)
    return [
        name if old or counts[name] == 1 else f"{name} [{one}]"
        for name, old, one in zip(names, kept, ids, strict=True)
    ]


def _values(items: pa.Table, schema: Schema) -> Iterator[tuple[Int64, Int64, list[str]]]:
    """Every category feature that a person can read: item rows and value codes [n] of all its
    cells, and the values that the codes stand for.

    `kind` says nothing of interest, a value that is itself an item's id (a creator) is no word, and
    what is there in the dataset's language is not wanted in another.
    """
    ids = items["item_id"].combine_chunks()
    for name, feature in schema.item_features.items():
        if feature.type not in ("category", "categories") or _is_translation(name, schema):
            continue
        column = items[name].combine_chunks()
        if feature.type == "category":
            rows = np.flatnonzero(np.asarray(pc.is_valid(column)))
            values = pc.drop_null(column).dictionary_encode()
        else:
            rows = np.asarray(pc.list_parent_indices(column)).astype(np.int64)
            values = pc.list_flatten(column).dictionary_encode()
        if len(rows) and not pc.any(pc.is_in(values.dictionary, value_set=ids)).as_py():
            yield rows, values.indices.to_numpy().astype(np.int64), values.dictionary.to_pylist()


def _is_translation(name: str, schema: Schema) -> bool:
    """Whether a feature says in another language what one beside it says: craft_en, of craft."""
    base, _, language = name.rpartition("_")
    if len(language) != 2 or language == schema.language:
        return f"{name}_{schema.language}" in schema.item_features
    return base in schema.item_features
