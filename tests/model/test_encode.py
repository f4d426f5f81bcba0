"""Raw rows become arrays: tokens, codes, numbers, vectors, and padded histories, by hand."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from model.encode import (
    MAX_CATEGORIES,
    Column,
    Encoder,
    Int64,
    fit_encoder,
    gap_seconds,
    pad_flat,
    pad_histories,
    read_encoder,
)
from model.errors import BundleRejected
from model.schema import KINDS, Event, Feature, Schema
from model.text import MAX_TEXT_TOKENS, NUM_TEXT_BUCKETS, text_tokens

SECOND = 1_000_000


def test_english_words_give_themselves_and_their_trigrams() -> None:
    assert text_tokens("Flutes!") == ["=flutes", "<fl", "flu", "lut", "ute", "tes", "es>"]
    # Three letters or fewer have no trigrams of their own, and each token comes once.
    assert text_tokens("tea, TEA & t") == ["=tea", "=t"]
    shared = set(text_tokens("carving")) & set(text_tokens("carved"))
    assert shared == {"<ca", "car", "arv"}


def test_chinese_runs_give_characters_and_pairs() -> None:
    assert text_tokens("竹笛子") == ["竹", "笛", "子", "竹笛", "笛子"]
    assert text_tokens("手工bamboo笛") == [
        *("手", "工", "手工"),
        "=bamboo",
        "笛",
        *("<ba", "bam", "amb", "mbo", "boo", "oo>"),  # parts of words come after all words
    ]


def test_full_width_letters_and_case_do_not_matter() -> None:
    assert text_tokens("ＡＢＣ１") == text_tokens("abc1") != []
    assert text_tokens("") == text_tokens("!?， 。_") == []


def encoder(**columns: Column) -> Encoder:
    return Encoder(columns, {})


def test_categories_have_codes_from_one_and_zero_for_the_rest() -> None:
    column = Column(feature=Feature(type="category"), vocabulary=("silk", "jade"))
    given = pa.table({"craft": ["jade", None, "silk", "paper"]})
    (array,) = encoder(craft=column).encode_items(given).values()
    assert array.tolist() == [2, 0, 1, 0] and array.dtype == np.int32


def test_lists_of_categories_are_padded_to_the_longest() -> None:
    column = Column(feature=Feature(type="categories"), vocabulary=("silk", "jade", "tea"))
    rows = [["tea"], [], None, ["jade", "paper", "silk"]]
    given = pa.table({"tags": pa.array(rows, pa.list_(pa.string()))})
    (array,) = encoder(tags=column).encode_items(given).values()
    assert array.tolist() == [[3, 0, 0], [0, 0, 0], [0, 0, 0], [2, 0, 1]]
    many = pa.table({"tags": [["tea"] * (MAX_CATEGORIES + 5)]})
    assert encoder(tags=column).encode_items(many)["item.tags"].shape == (1, MAX_CATEGORIES)


def test_a_sliced_and_chunked_column_is_encoded_like_a_whole_one() -> None:
    tags = Column(feature=Feature(type="categories"), vocabulary=("a", "b"))
    point = Column(feature=Feature(type="vector", dim=2))
    table = pa.table({"tags": [["a"], ["b", "a"], [], ["b"]], "point": [[1.0, 2.0], None] * 2})
    chunked = pa.concat_tables([table.slice(0, 1), table.slice(1, 3)])
    whole = encoder(tags=tags, point=point).encode_items(table)
    for cut in (chunked, chunked.slice(1, 2)):
        first = 0 if cut.num_rows == 4 else 1
        for name, array in encoder(tags=tags, point=point).encode_items(cut).items():
            np.testing.assert_array_equal(array, whole[name][first : first + cut.num_rows])


def test_text_is_hashed_into_buckets_that_leave_zero_free() -> None:
    column = Column(feature=Feature(type="text"))
    words = " ".join(f"word{i}" for i in range(100))
    given = pa.table({"title": ["竹笛", None, "", words]})
    (array,) = encoder(title=column).encode_items(given).values()
    assert array.shape == (4, MAX_TEXT_TOKENS) and array.dtype == np.int32
    assert (array[0] > 0).tolist() == [True] * 3 + [False] * (MAX_TEXT_TOKENS - 3)
    assert not array[1].any() and not array[2].any() and (array[3] > 0).all()
    assert array.max() <= NUM_TEXT_BUCKETS
    # The buckets are part of every bundle: xxh32("abc") is 0x32d153ff by the reference
    # implementation, and 0x53ff + 1 its lowest 15 bits past the padding.
    trigrams = encoder(title=column).encode_items(pa.table({"title": ["zabc"]}))["item.title"]
    assert text_tokens("zabc")[3] == "abc" and trigrams[0, 3] == 0x53FF + 1


def test_numbers_are_standardised_and_say_whether_they_are_there() -> None:
    # Mean 2000, standard deviation 10: (1990 - 2000) / 10 = -1. 3000 is cut off at 5.
    column = Column(feature=Feature(type="number"), mean=2000.0, scale=10.0)
    given = pa.table({"year": [1990.0, None, 2000.0, float("nan"), 3000.0]})
    (array,) = encoder(year=column).encode_items(given).values()
    assert array.tolist() == [[-1, 1], [0, 0], [0, 1], [0, 0], [5, 1]]


def test_numbers_over_magnitudes_are_fitted_on_a_log_scale() -> None:
    # 100 > 20 × the median 3, so log1p: ln 1, ln 4, ln 101. Years do not spread so far.
    items = pa.table({"price": [0.0, 3.0, 100.0], "year": [1990.0, 2000.0, 2010.0]})
    schema = Schema(
        name="n",
        time="none",
        item_features={"price": Feature(type="number"), "year": Feature(type="number")},
        events={"watch": Event(role="engagement")},
    )
    columns = fit_encoder(schema, items, None).item_columns
    assert (columns["price"].log, columns["year"].log) == (True, False)
    assert columns["price"].mean == pytest.approx((0 + np.log(4) + np.log(101)) / 3)
    assert columns["year"].mean == 2000.0
    assert columns["year"].scale == pytest.approx((200 / 3) ** 0.5)
    array = fit_encoder(schema, items, None).encode_items(pa.table({"price": [3.0]}))["item.price"]
    logs = np.log1p([0, 3, 100])
    assert array[0, 0] == pytest.approx((logs[1] - logs.mean()) / logs.std(), rel=1e-6)


def test_vectors_are_zero_where_missing() -> None:
    column = Column(feature=Feature(type="vector", dim=2))
    for type_ in (pa.list_(pa.float32()), pa.list_(pa.float32(), 2)):
        given = pa.table({"clip": pa.array([[1.0, 2.0], None, [3.0, 4.0]], type_)})
        (array,) = encoder(clip=column).encode_items(given).values()
        assert array.tolist() == [[1, 2], [0, 0], [3, 4]] and array.dtype == np.float32


FEATURES = {
    "craft": Feature(type="category", filterable=True),
    "tags": Feature(type="categories"),
    "price": Feature(type="number"),
    "title": Feature(type="text"),
    "clip": Feature(type="vector", dim=3),
}
SCHEMA = Schema(
    name="all",
    time="exact",
    item_features=FEATURES,
    user_features={"city": Feature(type="category")},
    events={"watch": Event(role="engagement")},
)
ITEMS = pa.table(
    {
        "item_id": list("abcdef"),
        "kind": ["video", "product", "live", "article", "creator", "video"],
        "craft": ["jade", "silk", "silk", "tea", "jade", None],
        "tags": [["x", "y"], ["y"], [], ["x", "z"], ["w"], ["y"]],
        "price": [1.0, 2.0, None, 4.0, 500.0, 6.0],
        "title": ["竹笛", "flute", "", "Tea", "x", "y"],
        "clip": [[1.0, 2.0, 3.0], None, None, None, None, None],
    }
)
USERS = pa.table({"user_id": ["u", "v", "w"], "city": ["Suzhou", "Suzhou", "Chengdu"]})


def test_vocabularies_hold_what_comes_twice_most_frequent_first() -> None:
    columns = fit_encoder(SCHEMA, ITEMS, USERS).item_columns
    # jade and silk come twice (the tie by name), tea once; y three times, x twice, z and w once.
    assert columns["craft"].vocabulary == ("jade", "silk")
    assert columns["tags"].vocabulary == ("y", "x")
    assert columns["kind"].vocabulary == KINDS and next(iter(columns)) == "kind"
    assert fit_encoder(SCHEMA, ITEMS, USERS).profile_columns["city"].vocabulary == ("Suzhou",)
    assert fit_encoder(SCHEMA, ITEMS, None).profile_columns == {}


def test_array_sizes_are_what_a_network_needs() -> None:
    encoder = fit_encoder(SCHEMA, ITEMS, USERS)
    sizes = {name: column.array_size for name, column in encoder.item_columns.items()}
    assert sizes == {
        "kind": len(KINDS) + 1,
        "craft": 3,
        "tags": 3,
        "price": 2,
        "title": NUM_TEXT_BUCKETS + 1,
        "clip": 3,
    }
    arrays = encoder.encode_items(ITEMS)
    for name in ("kind", "craft", "tags", "title"):
        assert arrays[f"item.{name}"].max() < sizes[name]


def test_an_encoder_written_and_read_encodes_the_same(tmp_path: Path) -> None:
    fitted = fit_encoder(SCHEMA, ITEMS, USERS)
    fitted.write(tmp_path / "encoder.json")
    read = read_encoder(tmp_path / "encoder.json")
    assert read.item_columns == fitted.item_columns
    assert read.profile_columns == fitted.profile_columns
    for before, after in (
        (fitted.encode_items(ITEMS), read.encode_items(ITEMS)),
        (fitted.encode_profiles(USERS), read.encode_profiles(USERS)),
    ):
        assert list(before) == list(after)
        for name, array in before.items():
            np.testing.assert_array_equal(array, after[name])


def test_text_that_was_hashed_otherwise_is_refused(tmp_path: Path) -> None:
    fit_encoder(SCHEMA, ITEMS, USERS).write(tmp_path / "encoder.json")
    body = json.loads((tmp_path / "encoder.json").read_text())
    body["text"]["buckets"] *= 2
    (tmp_path / "encoder.json").write_text(json.dumps(body))
    with pytest.raises(BundleRejected, match=r"encoder\.json: text was hashed as .*65536"):
        read_encoder(tmp_path / "encoder.json")


def test_columns_that_are_not_there_and_tables_without_rows() -> None:
    encoder = fit_encoder(SCHEMA, ITEMS, USERS)
    missing = encoder.encode_items(pa.table({"item_id": ["new"]}))
    assert all(len(array) == 1 and not array.any() for array in missing.values())
    empty = encoder.encode_items(ITEMS.slice(0, 0))
    assert {name: len(array) for name, array in empty.items()} == dict.fromkeys(missing, 0)
    assert empty["item.clip"].shape == (0, 3)


def test_histories_are_padded_on_the_left_and_keep_the_newest() -> None:
    rows = [np.array([7, 8, 9, 10]), np.array([], np.int64), np.array([5])]
    events = [np.array([1, 2, 1, 2]), np.array([], np.int64), np.array([2])]
    times = [np.array([0, 10, 10, 70]) * SECOND, np.array([], np.int64), np.array([100 * SECOND])]
    batch = pad_histories(rows, events, times, now=np.array([75, 80, 160]) * SECOND, max_history=3)
    assert batch.rows.tolist() == [[8, 9, 10], [-1, -1, -1], [-1, -1, 5]]
    assert batch.events.tolist() == [[2, 1, 2], [0, 0, 0], [0, 0, 2]]
    # What came before the window is not known: its first gap is 0, not 10.
    assert batch.gaps.tolist() == [[0, 0, 60], [0, 0, 0], [0, 0, 0]]
    assert batch.mask.tolist() == [[True] * 3, [False] * 3, [False, False, True]]
    assert batch.idle.tolist() == [5, 0, 60]
    assert batch.gaps.dtype == batch.idle.dtype == np.dtype(np.float32)


def test_histories_without_times_have_no_gaps_and_no_idle() -> None:
    rows = [np.array([1, 2]), np.array([3])]
    batch = pad_histories(rows, rows, None, now=9 * SECOND, max_history=50)
    assert batch.rows.tolist() == [[1, 2], [-1, 3]]
    assert not batch.gaps.any() and not batch.idle.any()


def test_empty_histories_keep_one_masked_column() -> None:
    none = np.array([], np.int64)
    batch = pad_histories([none, none], [none, none], [none, none], now=5, max_history=4)
    assert batch.rows.tolist() == [[-1], [-1]] and not batch.mask.any()
    assert pad_histories([], [], None, max_history=4).rows.shape == (0, 1)


def test_time_never_runs_backwards() -> None:
    # A request that comes "before" the last event, by a clock that is off, was idle for 0 seconds.
    times = np.array([10, 5, 6]) * SECOND
    assert gap_seconds(times).tolist() == [0, 0, 1]
    batch = pad_histories([times], [times], [times], now=1, max_history=3)
    assert batch.idle.tolist() == [0]


@given(
    lengths=st.lists(st.integers(0, 9), max_size=12),
    max_history=st.integers(1, 10),
    has_times=st.booleans(),
    seed=st.integers(0, 9),
)
@example(lengths=[], max_history=3, has_times=True, seed=0)
@example(lengths=[0, 0], max_history=3, has_times=True, seed=0)
def test_histories_end_to_end_are_padded_like_single_ones(
    lengths: list[int], max_history: int, has_times: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    rows, events, times = (rng.integers(1, 10**12, sum(lengths)) for _ in range(3))
    now = rng.integers(1, 10**12, len(lengths))

    def cut(flat: Int64) -> list[Int64]:
        return np.split(flat, np.cumsum(lengths)[:-1]) if lengths else []

    flat = pad_flat(
        rows,
        events,
        times if has_times else None,
        np.array(lengths, np.int64),
        now=now,
        max_history=max_history,
    )
    one_by_one = pad_histories(
        cut(rows),
        cut(events),
        cut(times) if has_times else None,
        now=now,
        max_history=max_history,
    )
    for name in ("rows", "events", "gaps", "mask", "idle"):
        one, other = getattr(flat, name), getattr(one_by_one, name)
        np.testing.assert_array_equal(one, other, err_msg=name)
        assert one.dtype == other.dtype
