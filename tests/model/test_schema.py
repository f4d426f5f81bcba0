"""dataset.toml: written and read back whatever the strings, and refused with the field's name."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from model.errors import DatasetError
from model.schema import (
    ADDED_COLUMNS,
    ITEM_COLUMNS,
    KINDS,
    Event,
    Feature,
    Head,
    Schema,
    parse_schema,
    read_schema,
    write_schema,
)

GOOD: dict[str, Any] = {
    "format": 1,
    "name": "shop",
    "time": "exact",
    "item_features": {"price": {"type": "number", "filterable": True}},
    "events": {
        "show": {"role": "exposure"},
        "watch": {"role": "engagement"},
        "order": {"role": "conversion", "weight": 5.0},
        "hide": {"role": "negative"},
    },
}

# Every character that TOML gives a meaning to, and those that it forbids unescaped.
awkward = st.text(
    st.one_of(
        st.characters(exclude_categories=["Cs"]), st.sampled_from("\"\\\t\n\r\x00\x7f#=[].'")
    ),
    min_size=1,
    max_size=12,
)
features = st.one_of(
    st.builds(
        Feature,
        type=st.sampled_from(["category", "categories", "number"]),
        filterable=st.booleans(),
    ),
    st.builds(Feature, type=st.just("text")),
    st.builds(Feature, type=st.just("vector"), dim=st.integers(1, 8192)),
)
fixed = {*ITEM_COLUMNS, *ADDED_COLUMNS, "user_id"}
columns = st.dictionaries(awkward.filter(lambda n: n not in fixed), features, max_size=3)
events = st.dictionaries(
    awkward,
    st.builds(
        Event,
        role=st.sampled_from(["exposure", "engagement", "conversion", "negative"]),
        weight=st.floats(0, 1000),
        unit=st.none() | awkward,
    ),
    max_size=3,
)


@st.composite
def schemas(draw: st.DrawFn) -> Schema:
    names = {**draw(events), draw(awkward): Event(role="engagement")}
    heads = st.builds(
        Head,
        name=awkward,
        event=st.sampled_from(sorted(n for n, e in names.items() if e.role != "exposure")),
        threshold=st.none() | st.floats(allow_nan=False, allow_infinity=False),
        window_days=st.none() | st.floats(0, 36_500, exclude_min=True),
    )
    return Schema(
        name=draw(awkward),
        time=draw(st.sampled_from(["exact", "day", "order", "none"])),
        language=draw(st.sampled_from(["en", "zh"])),
        item_features=draw(columns),
        user_features=draw(columns),
        events=names,
        heads=draw(st.lists(heads, max_size=2, unique_by=lambda head: head.name)),
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("schema")


@settings(max_examples=150, deadline=None)
@given(schema=schemas())
@example(schema=Schema(name="\x7f\x1f", time="none", events={"'\"\\": Event(role="conversion")}))
def test_what_is_written_is_read_back(schema: Schema, folder: Path) -> None:
    write_schema(schema, folder)
    assert read_schema(folder) == schema
    # The order of the events gives them their codes, so it must stay.
    assert read_schema(folder).history_events == schema.history_events


def test_a_written_file_is_one_that_people_can_read(tmp_path: Path) -> None:
    schema = Schema(
        name='竹 "bamboo"',
        time="day",
        item_features={"价格": Feature(type="number", filterable=True)},
        events={"like": Event(role="engagement", weight=2.0, unit="stars")},
        heads=[Head(name="like", event="like", window_days=7)],
    )
    write_schema(schema, tmp_path)
    assert (tmp_path / "dataset.toml").read_text(encoding="utf-8") == (
        'format = 1\nname = "竹 \\"bamboo\\""\ntime = "day"\nlanguage = "en"\n'
        '\n[item_features]\n"价格" = { type = "number", filterable = true }\n'
        '\n[events]\nlike = { role = "engagement", weight = 2.0, unit = "stars" }\n'
        '\n[[heads]]\nname = "like"\nevent = "like"\nwindow_days = 7.0\n'
    )


def broken(**changes: Any) -> dict[str, Any]:
    return {**GOOD, **changes}


REFUSED: list[tuple[dict[str, Any], str]] = [
    (broken(langauge="en"), r"field 'langauge': Extra inputs are not permitted \(given: 'en'\)"),
    (broken(time="hour"), r"field 'time': .*'exact', 'day', 'order' or 'none' \(given: 'hour'\)"),
    ({k: v for k, v in GOOD.items() if k != "time"}, r"field 'time': Field required\."),
    (broken(format=2), r"field 'format': .*1 \(given: 2\)"),
    (broken(name=""), r"field 'name': .*at least 1 character"),
    (broken(events={"show": {"role": "exposure"}}), "at least one event needs the role engagement"),
    (
        broken(events={"watch": {"role": "enjoyment"}}),
        r"field 'events\.watch\.role': .*\(given: 'enjoyment'\)",
    ),
    (
        broken(events={"watch": {"role": "engagement", "weight": -1}}),
        r"field 'events\.watch\.weight': .*greater than or equal to 0 \(given: -1\)",
    ),
    (
        broken(item_features={"clip": {"type": "vector"}}),
        r"field 'item_features\.clip': .*`dim` is required for type = \"vector\"",
    ),
    (broken(item_features={"x": {"type": "text", "dim": 3}}), "allowed for no other"),
    (
        broken(item_features={"x": {"type": "text", "filterable": True}}),
        "a text feature cannot be filterable",
    ),
    (broken(item_features={"kind": {"type": "category"}}), "'kind' is a fixed column of items"),
    (broken(item_features={"title": {"type": "category"}}), "'title' is a fixed column of items"),
    (
        broken(item_features={"popularity": {"type": "number"}}),
        "'popularity' is a column that bundles add; rename the feature",
    ),
    (broken(user_features={"user_id": {"type": "category"}}), "'user_id' is a fixed column of use"),
    (
        broken(heads=[{"name": "buy", "event": "ordre"}]),
        r"heads\.0\.event, of head 'buy', names an undeclared event: 'ordre'; allowed are watch, "
        r"order, hide\.",
    ),
    (
        broken(heads=[{"name": "seen", "event": "show"}]),
        r"heads\.0\.event, of head 'seen', names an exposure: 'show'; allowed are watch,",
    ),
    (
        broken(heads=[{"name": "buy", "event": "order"}, {"name": "buy", "event": "watch"}]),
        r"heads\.1\.name is 'buy', which another head has",
    ),
    *(
        (
            broken(heads=[{"name": "buy", "event": "order", field: value}]),
            rf"field 'heads\.0\.{field}': .*\(given: ",
        )
        for field, value in (
            ("name", ""),
            ("threshold", float("nan")),
            ("threshold", float("inf")),
            ("threshold", True),
            ("window_days", float("inf")),
            ("window_days", 1e300),  # microseconds that no integer holds
            ("window_days", 0.0),
        )
    ),
]


@pytest.mark.parametrize(("body", "says"), REFUSED)
def test_what_is_not_allowed_is_refused_with_its_field(body: dict[str, Any], says: str) -> None:
    with pytest.raises(DatasetError, match=says) as caught:
        parse_schema(body, file="dataset.toml")
    assert caught.value.file == "dataset.toml"
    assert "docs/dataset.md" in str(caught.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    for content, says in (
        (None, "there is no such file in .*penchant import"),
        (b"name = \xff", "not UTF-8"),
        (b"name = ", "not valid TOML"),
    ):
        if content is not None:
            (tmp_path / "dataset.toml").write_bytes(content)
        with pytest.raises(DatasetError, match=rf"^dataset\.toml: {says}"):
            read_schema(tmp_path)


def test_what_a_schema_says_of_events_and_filters() -> None:
    schema = parse_schema(GOOD, file="dataset.toml")
    assert schema.history_events == ("watch", "order")
    assert list(schema.filterable()) == ["kind", "price"]
    assert (schema.has_order, schema.has_times) == (True, True)
    assert KINDS == ("product", "video", "live", "article", "creator")
    for time, order, times in (("day", True, True), ("order", True, False), ("none", False, False)):
        other = parse_schema(broken(time=time), file="dataset.toml")
        assert (other.has_order, other.has_times) == (order, times)
    # `title` may be a text feature as well.
    parse_schema(broken(item_features={"title": {"type": "text"}}), file="dataset.toml")
