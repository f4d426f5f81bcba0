"""Why an item is shown, in words: what of the user's history it is most alike, and what they share.

Whole arrays of items at once; a text is made once for all items that it is said of. Knows no
slates and no protos.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from serving.domain import Candidates
from serving.generation import Generation
from serving.live.catalogue import Catalogue
from serving.origins import ADJACENT, EXPLORATORY, FORGOTTEN
from serving.rank.diverse import units
from serving.readers import Reader

Int8 = npt.NDArray[np.int8]
Int64 = npt.NDArray[np.int64]
Words = npt.NDArray[np.object_]
"""[n] strings; empty for none."""

LANGUAGES = ("en", "zh")
NEWEST = 200
"""So many events of a history are looked at, the newest."""

_VERBS = {
    "watch": ("watched", "看过"),
    "view": ("looked at", "看过"),
    "click": ("looked at", "看过"),
    "like": ("liked", "喜欢过"),
    "favorite": ("saved", "收藏过"),
    "favourite": ("saved", "收藏过"),
    "follow": ("followed", "关注过"),
    "share": ("shared", "分享过"),
    "comment": ("commented on", "评论过"),
    "rate": ("rated", "评价过"),
    "rating": ("rated", "评价过"),
    "cart": ("put into your cart", "加购过"),
    "order": ("bought", "买过"),
    "buy": ("bought", "买过"),
    "purchase": ("bought", "买过"),
}
_ENGAGED, _CONVERTED = ("looked at", "看过"), ("bought", "买过")
"""For events of other names, by their role."""

_BECAUSE = ("because you {verb} {what}", "因为你{verb}{what}")
_ONCE = ("because you once {verb} {what}", "因为你曾经{verb}{what}")
_CLOSE = ("close to {what}, which you {verb}", "和你{verb}的{what}相近")
_NEW = ("something new, nearest to {what}", "一种新的兴趣，离{what}最近")
_STRANGER = ("picked for someone new here", "为新朋友挑选")


def explanations(
    catalogue: Catalogue,
    readers: Sequence[Reader],
    candidates: Candidates,
    origins: Int8,
    language: str,
) -> tuple[list[int], list[str]]:
    """[n] why each candidate is shown, as indexes into the texts that occur, and those texts.

    origins: [n], indexes into ORIGINS. language: of LANGUAGES, or empty for the dataset's (English
    where that is another). What the user did that is most alike, by its vector, says why; named by
    the most telling feature value that both share and that is written in the language.
    """
    language = language or catalogue.generation.schema.language
    tongue = LANGUAGES.index(language) if language in LANGUAGES else 0
    found: list[str] = []
    start = 0
    for reader, count in zip(readers, candidates.counts.tolist(), strict=True):
        span = slice(start, start + count)
        found += _of_one(catalogue, reader, candidates.rows[span], origins[span], tongue)
        start += count
    places: dict[str, int] = {}
    indexes = [places.setdefault(text, len(places)) for text in found]
    return indexes, list(places)


def _of_one(
    catalogue: Catalogue, reader: Reader, rows: Int64, origins: Int8, tongue: int
) -> list[str]:
    """The text of each of one user's items."""
    history, events = reader.rows[-NEWEST:], reader.events[-NEWEST:]
    if not len(history) or not len(rows):
        return [_STRANGER[tongue]] * len(rows)
    shown, past = units(catalogue.vectors_of(rows)), units(catalogue.vectors_of(history))
    nearest = (shown @ past.T).argmax(axis=1)
    near = history[nearest]
    shared = _words(catalogue, rows, near, tongue)
    alone = shared == ""
    what = shared.copy()
    if alone.any():
        # Nothing is shared: what it is close to is named by that alone, or by its title.
        what[alone] = _words(catalogue, near[alone], near[alone], tongue)
        nameless = np.flatnonzero(what == "")
        what[nameless] = _titles(catalogue, near[nameless], tongue)
    forms = np.full(len(rows), 0)
    forms[origins == FORGOTTEN] = 1
    forms[alone & (origins == ADJACENT)] = 2
    forms[alone & (origins == EXPLORATORY)] = 3
    verbs = _verbs(catalogue.generation, tongue)
    templates = [form[tongue] for form in (_BECAUSE, _ONCE, _CLOSE, _NEW)]
    return [
        templates[form].format(verb=verbs[event], what=_set(word, tongue)).strip()
        for form, event, word in zip(
            forms.tolist(), events[nearest].tolist(), what.tolist(), strict=True
        )
    ]


def _words(catalogue: Catalogue, rows: Int64, others: Int64, tongue: int) -> Words:
    """[n] the most telling feature value that rows[i] and others[i] share; in another language
    where there is none in this one."""
    found, second = np.full(len(rows), "", object), np.full(len(rows), "", object)
    for name, counts in telling(catalogue.generation):
        if (found != "").all():
            break
        ours, theirs = catalogue.column(name, rows), catalogue.column(name, others)
        if counts is not None:
            owner, values = _common(ours, theirs)
            # The rarest says most, and is put down last.
            order = np.argsort([-counts.get(one, 0) for one in values.tolist()], kind="stable")
            owner, values = owner[order], values[order]
        else:
            owner = np.flatnonzero(
                pc.fill_null(pc.equal(ours, theirs), False).to_numpy(zero_copy_only=False)
            )
            values = np.array(ours.take(pa.array(owner)).to_pylist(), object)
        distinct, code = np.unique(values.astype(str), return_inverse=True)
        words = _readable(catalogue, distinct.tolist(), tongue)
        spoken = np.array([_is_in(word, tongue) for word in words], bool)
        for target, use in ((found, spoken), (second, ~spoken)):
            mine = np.flatnonzero(use[code])
            fitting = mine[target[owner[mine]] == ""]
            target[owner[fitting]] = np.array(words, object)[code[fitting]]
    missing = found == ""
    found[missing] = second[missing]
    return found


def _common(ours: pa.Array, theirs: pa.Array) -> tuple[Int64, Words]:
    """Of two arrays of lists the values that ours[i] has in common with theirs[i], and each i."""
    owners, values = [], []
    for lists in (ours, theirs):
        owners.append(np.asarray(pc.list_parent_indices(lists)).astype(np.int64))
        values.append(np.array(pc.list_flatten(lists).to_pylist(), object))
    code = np.unique(np.concatenate(values).astype(str), return_inverse=True)[1]
    split, num = len(values[0]), int(code.max(initial=0)) + 1
    mine, other = owners[0] * num + code[:split], owners[1] * num + code[split:]
    both = np.isin(mine, other)
    return owners[0][both], values[0][both]


def telling(generation: Generation) -> Sequence[tuple[str, Mapping[str, int] | None]]:
    """The features that words are taken from, with how many items have each value where these are
    lists: categories of which there are many before those of few, then lists, then categories that
    name items (a creator)."""
    if generation.telling is None:
        single: list[tuple[int, str]] = []
        lists: list[tuple[str, Mapping[str, int] | None]] = []
        items: list[tuple[str, Mapping[str, int] | None]] = []
        for name, feature in generation.schema.item_features.items():
            if feature.type not in ("category", "categories"):
                continue
            column = generation.items.table[name]
            if feature.type == "categories":
                values = pc.list_flatten(column.combine_chunks()).cast(pa.string())
                counted = pc.value_counts(values)
                counts = zip(
                    counted.field("values").to_pylist(),
                    counted.field("counts").to_pylist(),
                    strict=True,
                )
                lists.append((name, dict(counts)))
                continue
            values = pc.drop_null(pc.unique(column)).cast(pa.string())
            some = values.slice(0, 64).to_pylist()
            if some and int(generation.rows_of(some).max()) >= 0:
                items.append((name, None))
            else:
                single.append((-len(values), name))
        generation.telling = [*((name, None) for _, name in sorted(single)), *lists, *items]
    return generation.telling


def _readable(catalogue: Catalogue, values: list[str], tongue: int) -> list[str]:
    """Values as a person reads them; empty for what is no word: a code or a quantity."""
    rows = catalogue.rows_of(values)
    named = np.flatnonzero(rows >= 0)
    words = [
        "" if any(map(str.isdigit, one)) else one.replace("-", " ").replace("_", " ")
        for one in values
    ]
    for place, title in zip(
        named.tolist(), _titles(catalogue, rows[named], tongue).tolist(), strict=True
    ):
        words[place] = title
    return words


def _titles(catalogue: Catalogue, rows: Int64, tongue: int) -> Words:
    titles = catalogue.column("title", rows).cast(pa.string()).fill_null("").to_pylist()
    left, right = ('"', '"') if tongue == 0 else ("《", "》")
    return np.array([f"{left}{one or '…'}{right}" for one in titles], object)


def _is_in(word: str, tongue: int) -> bool:
    """Whether a word is written in a language: with Chinese characters, or without any."""
    return bool(word) and any("\u4e00" <= one <= "\u9fff" for one in word) == (tongue == 1)


def _set(word: str, tongue: int) -> str:
    """A word as it stands in a text: Latin letters in Chinese between blanks."""
    return f" {word} " if tongue == 1 and word.isascii() else word


def _verbs(generation: Generation, tongue: int) -> dict[int, str]:
    """By event code, what the user did."""
    verbs = {}
    for name, code in generation.event_codes.items():
        usual = _CONVERTED if generation.conversions[code] else _ENGAGED
        verbs[code] = _VERBS.get(name, usual)[tongue]
    return verbs
