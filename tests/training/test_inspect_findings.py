"""Each thing that `penchant inspect` calls suspicious, put alone into a dataset without it."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from tests.training.contract import START, UTC_TIME, Dataset, events_of, good_dataset, put
from training.inspection.dataset import inspect_dataset
from training.inspection.findings import Finding

Row = tuple[str, str, str, float | None]


@pytest.fixture
def clean(tmp_path: Path) -> Dataset:
    """A dataset in which nothing is suspicious."""
    dataset = good_dataset(tmp_path / "shop")
    dataset.items = put(dataset.items, "title", 2, "A live room")
    return dataset


def findings(dataset: Dataset) -> list[Finding]:
    dataset.write()
    return list(inspect_dataset(dataset.folder).findings)


def only(dataset: Dataset) -> Finding:
    """The one finding there is, which says what to do."""
    (found,) = findings(dataset)
    assert found.example and found.remedy.endswith(".")
    assert 0 < found.count <= found.total
    return found


def more(dataset: Dataset, rows: Sequence[Row]) -> pl.DataFrame:
    """Further events: their numbers go on from those that are there, their times too."""
    return events_of(sum(part.height for part in dataset.parts), list(rows))


def days_of(start: datetime, num_days: int, a_day: int, skip: range) -> pl.DataFrame:
    """Events an hour apart from each other, on all days but those in `skip`."""
    days = [day for day in range(num_days) if day not in skip for _ in range(a_day)]
    rows: list[Row] = [(f"u{n % 50}", "film", "watch", None) for n in range(len(days))]
    times = [start + timedelta(days=day, seconds=n) for n, day in enumerate(days)]
    return events_of(100, rows).with_columns(timestamp=pl.Series(times, dtype=UTC_TIME))


def test_nothing_is_suspicious(clean: Dataset) -> None:
    assert findings(clean) == []


def test_a_copied_event(clean: Dataset) -> None:
    copy = (
        clean.parts[0].head(1).with_columns(event_id=pl.lit("again"), sequence=pl.lit(99, pl.Int64))
    )
    clean.parts.append(pl.concat([copy, copy.with_columns(event_id=pl.lit("once more"))]))
    found = only(clean)
    assert found.what.startswith("Events that are copies")
    assert (found.count, found.total) == (2, 6)
    assert found.example == (
        "events/part-00000.parquet, row 0 and events/part-00002.parquet, row 0 "
        "(user 'ann', item 'film', watch)"
    )


def test_the_same_act_at_another_time_is_no_copy(clean: Dataset) -> None:
    clean.parts.append(more(clean, [("ann", "film", "watch", 61.5)]))
    assert findings(clean) == []


def test_copies_by_the_day(clean: Dataset) -> None:
    clean.toml = clean.toml.replace('"exact"', '"day"')
    midnight = pl.col("timestamp").dt.truncate("1d")
    clean.parts.append(more(clean, [("ann", "film", "watch", 61.5), ("ann", "film", "watch", 9.0)]))
    clean.parts = [part.with_columns(midnight) for part in clean.parts]
    clean.items = clean.items.with_columns(expires_at=pl.lit(None, UTC_TIME))
    found = only(clean)
    # The one with another value was another act.
    assert found.count == 1 and "day and value" in found.what
    assert "events/part-00002.parquet, row 0" in found.example


def test_the_same_twice_in_a_row(clean: Dataset) -> None:
    clean.toml = clean.toml.replace('"exact"', '"order"')
    clean.parts.append(
        more(
            clean,
            [
                ("ann", "film", "watch", 1.0),  # after flute: no copy
                ("ann", "film", "watch", 2.0),
                ("bo", "film", "watch", 2.0),  # another user
                ("ann", "film", "order", 2.0),  # another event
            ],
        )
    )
    clean.parts = [part.drop("timestamp") for part in clean.parts]
    found = only(clean)
    assert found.count == 1 and "twice in a row" in found.what


def test_too_fast_for_a_person(clean: Dataset) -> None:
    rows = [("bot", "film", "watch", None)] * 60 + [("bot", "flute", "watch", None)] * 60
    fast = more(clean, rows)
    times = [START + timedelta(seconds=5, milliseconds=8 * n) for n in range(120)]
    clean.parts.append(fast.with_columns(timestamp=pl.Series(times, dtype=UTC_TIME)))
    found = only(clean)
    assert (found.count, found.total) == (120, 124) and "in one second" in found.what
    assert found.example.startswith("120 in one second, from events/part-00002.parquet, row 0")


def test_many_exposures_in_one_second_are_a_page(clean: Dataset) -> None:
    clean.toml += 'show = { role = "exposure" }\n'
    page = more(clean, [("ann", "film", "show", None)] * 99 + [("ann", "flute", "show", None)] * 99)
    times = [START + timedelta(microseconds=n) for n in range(198)]
    clean.parts.append(page.with_columns(timestamp=pl.Series(times, dtype=UTC_TIME)))
    assert findings(clean) == []


def test_a_user_with_far_more_events_than_anybody(clean: Dataset) -> None:
    people = [(f"u{n}", "film", "watch", None) for n in range(50)]
    clean.parts.append(more(clean, [*people, *[("bot", "flute", "watch", None)] * 1_200]))
    (found,) = (f for f in findings(clean) if f.unit == "users")
    assert (found.count, found.total) == (1, 54)
    assert "'bot'" in found.example and "1,200 events" in found.example
    assert "events/part-00002.parquet, row 50" in found.example


def test_a_user_with_many_events_among_such_is_nobody_special(clean: Dataset) -> None:
    rows = [("ann" if n % 2 else "bo", "film", "watch", None) for n in range(2_400)]
    clean.parts.append(more(clean, rows))
    assert [f for f in findings(clean) if f.unit == "users"] == []


def test_one_time_for_many_events(clean: Dataset) -> None:
    rows = [(f"u{n}", "film", "watch", None) for n in range(150)]
    noon = datetime(2024, 5, 1, 12, tzinfo=UTC)
    clean.parts.append(more(clean, rows).with_columns(timestamp=pl.lit(noon, UTC_TIME)))
    found = only(clean)
    assert (found.count, found.total) == (150, 154) and "share their time" in found.what
    assert found.example.startswith("150 at 2024-05-01 12:00:00.000000 UTC")
    assert "events/part-00002.parquet, row 0" in found.example


def test_a_time_of_zero(clean: Dataset) -> None:
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    rows = more(clean, [("dan", "film", "watch", None)])
    clean.parts.append(rows.with_columns(timestamp=pl.lit(epoch, UTC_TIME)))
    found = only(clean)
    assert (found.count, found.total) == (1, 5) and "1970" in found.what
    assert "'dan'" in found.example


def test_days_without_events(clean: Dataset) -> None:
    clean.parts.append(days_of(START, 30, 25, range(10, 13)))
    found = only(clean)
    assert (found.count, found.total, found.unit) == (3, 30, "days")
    assert found.example == "2024-05-11 to 2024-05-13" and "engagement" in found.what
    assert "25" in found.remedy


def test_a_quiet_log_has_days_without_events(clean: Dataset) -> None:
    clean.parts.append(days_of(START, 30, 3, range(10, 13)))
    assert findings(clean) == []


def test_before_and_after_the_life_of_an_item(clean: Dataset) -> None:
    # flute: from START on; room: from START to three hours later.
    early = more(clean, [("ann", "flute", "watch", None), ("ann", "film", "watch", None)])
    early = early.with_columns(timestamp=pl.lit(START - timedelta(hours=1), UTC_TIME))
    late = events_of(50, [("bo", "room", "order", None), ("cy", "room", "watch", None)])
    hours = [START + timedelta(hours=4), START + timedelta(hours=3)]  # the latter: just in time
    late = late.with_columns(timestamp=pl.Series(hours, dtype=UTC_TIME))
    clean.parts += [early, late]
    before, after = findings(clean)
    assert (before.count, before.total) == (1, 8) and "created_at" in before.what
    assert "events/part-00002.parquet, row 0 (user 'ann', item 'flute', watch)" in before.example
    assert "2024-05-01 07:30, created_at is 2024-05-01 08:30" in before.example
    assert after.count == 1 and "expires_at" in after.what
    assert "events/part-00003.parquet, row 0 (user 'bo', item 'room', order)" in after.example


def test_a_day_begins_before_an_item_of_that_day_is_made(clean: Dataset) -> None:
    clean.toml = clean.toml.replace('"exact"', '"day"')
    clean.parts = [part.with_columns(pl.col("timestamp").dt.truncate("1d")) for part in clean.parts]
    assert findings(clean) == []


def test_values_that_look_wrong(clean: Dataset) -> None:
    rows = [(f"u{n}", "film", "watch", 10.0 + n % 7) for n in range(2_000)]
    rows += [("dan", "flute", "watch", -1.0), ("eve", "room", "watch", 61_000.0)]
    many = more(clean, rows)
    clean.parts.append(
        many.with_columns(
            timestamp=pl.lit(START, UTC_TIME) + pl.duration(milliseconds=pl.int_range(pl.len()))
        )
    )
    negative, outlier = findings(clean)
    assert negative.what == "Negative values of 'watch' (seconds)"
    assert (negative.count, negative.total) == (1, 2_005) and "'dan'" in negative.example
    # The 99.9 % quantile is 16, or ann's 61.5 of the first event.
    assert outlier.count == 1 and "10 times" in outlier.what
    assert "61,000" in outlier.example and "'eve'" in outlier.example


def test_titles(clean: Dataset) -> None:
    one = clean.items.head(1)
    same = [
        one.with_columns(item_id=pl.lit(f"copy-{n}"), title=pl.lit("Untitled")) for n in range(10)
    ]
    blank = one.with_columns(item_id=pl.lit("blank"), title=pl.lit("  "))
    clean.items = pl.concat([clean.items, *same, blank])
    empty, shared = findings(clean)
    assert (empty.count, empty.total) == (1, 14) and "'blank'" in empty.example
    assert (shared.count, shared.total) == (10, 14)
    assert "'Untitled' on 10 items, one of them 'copy-0'" in shared.example


def test_features(clean: Dataset) -> None:
    # 38 more products like the first, without its price: one craft and one tag for all.
    rows = [
        clean.items.head(1).with_columns(
            item_id=pl.lit(f"p{n}"),
            title=pl.lit(f"Flute {n}"),
            price=pl.lit(None, pl.Float64),
        )
        for n in range(38)
    ]
    clean.items = pl.concat([clean.items, *rows])
    assert clean.users is not None
    clean.users = clean.users.with_columns(city=pl.Series(["N/A", "Guiyang"]))
    price, same, city = findings(clean)
    assert same.what == "Features with one value nearly everywhere: 'craft', 'tags'"
    assert (same.count, same.total, same.unit) == (2, 5, "features of items.parquet")
    assert same.example == "'craft' is 'bamboo' in 40 of 40 known cells"
    # Only products have any price: film and room are not counted as lacking it.
    assert price.what == "The feature 'price' is mostly missing in product, which alone have it"
    assert (price.count, price.total) == (38, 39) and "'p0'" in price.example
    assert "'city' holds words that stand for an unknown" in city.what
    assert (city.count, city.total) == (1, 2) and "'N/A' at 'ann'" in city.example


def test_a_feature_that_no_row_has(clean: Dataset) -> None:
    clean.items = clean.items.with_columns(price=pl.lit(None, pl.Float64))
    found = only(clean)
    assert found.what == "No row has the feature 'price'" and found.count == 3


@pytest.mark.parametrize("time", ["exact", "none"])
def test_test_pairs_that_are_also_in_train(clean: Dataset, time: str) -> None:
    rows: list[Row] = [("ann", "film", "watch", 1.0), ("bo", "flute", "order", 1.0)]
    test = more(clean, rows).with_columns(split=pl.lit("test"))
    clean.parts.append(test)
    if time == "none":
        clean.toml = clean.toml.replace('"exact"', '"none"')
        clean.parts = [part.drop("timestamp", "sequence") for part in clean.parts]
    found = only(clean)
    assert (found.count, found.total, found.unit) == (1, 2, "test events")
    assert found.example == (
        "events/part-00000.parquet, row 0 and events/part-00002.parquet, row 0 "
        "(user 'ann', item 'film', watch)"
    )
    assert ("take these pairs out of train" in found.remedy) == (time == "none")


@pytest.mark.parametrize("time", ["exact", "order"])
def test_training_events_after_a_held_out_one(clean: Dataset, time: str) -> None:
    clean.parts[0] = clean.parts[0].with_columns(split=pl.Series(["test", "train"]))
    if time == "order":
        clean.toml = clean.toml.replace('"exact"', '"order"')
        clean.parts = [part.drop("timestamp") for part in clean.parts]
    found = only(clean)
    assert found.what == "Users whose train events come after an event that is held out"
    assert (found.count, found.total) == (1, 1)
    assert found.example == "events/part-00000.parquet, row 1 (user 'ann', item 'flute', order)"


def test_an_event_at_the_time_of_a_held_out_one_is_not_after_it(clean: Dataset) -> None:
    clean.parts[0] = clean.parts[0].with_columns(
        split=pl.Series(["test", "train"]), timestamp=pl.lit(START, UTC_TIME)
    )
    assert findings(clean) == []


def test_held_out_events_without_a_time_are_neither_copies_nor_fast(clean: Dataset) -> None:
    rows: list[Row] = [("ann", "room", "watch", 1.0)] * 120
    clean.parts.append(
        more(clean, rows).with_columns(timestamp=pl.lit(None, UTC_TIME), split=pl.lit("test"))
    )
    assert findings(clean) == []
