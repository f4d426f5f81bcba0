"""Maps that are wrong and rows that do not fit them: each refused by name, and nothing is left."""

from pathlib import Path

import pytest

from model.errors import ConfigError, DatasetError
from training.importers.map_file import EXAMPLE, read_map
from training.importers.tables import import_table

EVENTS = "user,item,action,time,amount\nann,flute-7,pv,1772323200,1\nbob,mat-1,order,1772323201,2\n"
ITEMS = "sku,type,name,brand,tags,price\nflute-7,goods,Flute,Feng,a|b,88\nmat-1,goods,Mat,,,12\n"
LINKS = "from,to\nflute-7,mat-1\n"

MAP = """\
name = "shop"
time = "exact"
[events]
files = "events.csv"
user_id = "user"
item_id = "item"
event = "action"
timestamp = { column = "time", format = "unix_s" }
value = "amount"
event_id = "row"
[event_names]
view = { role = "engagement", values = ["pv"] }
order = { role = "conversion" }
[items]
files = "items.csv"
item_id = "sku"
kind = { column = "type", values = { goods = "product" } }
title = "name"
[items.features]
brand = { type = "category" }
tags = { type = "categories", separator = "|" }
price = { type = "number" }
[links]
files = "links.csv"
from_item = "from"
to_item = "to"
relation = { constant = "shows" }
"""


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    for name, text in (
        ("map.toml", MAP),
        ("events.csv", EVENTS),
        ("items.csv", ITEMS),
        ("links.csv", LINKS),
    ):
        (tmp_path / name).write_text(text)
    return tmp_path


def _change(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def _import(shop: Path) -> None:
    import_table(shop / "map.toml", shop / "out")


def test_the_shop_is_fine_as_it_is(shop: Path) -> None:
    _import(shop)
    assert read_map(EXAMPLE)[0].name == "my-shop"


# What is changed in the map, and what the error says.
WRONG_MAPS: list[tuple[str, str, str]] = [
    ('user_id = "user"', "", "field 'events.user_id': it is missing, and required"),
    (
        'user_id = "user"',
        "user_id = 7",
        "field 'events.user_id': Input should be a valid string (given: 7)",
    ),
    ('value = "amount"', 'vlaue = "amount"', "Did you mean 'value'? Allowed are: files, format"),
    (
        'name = "shop"',
        'name = "shop"\ncolour = 1',
        "field 'colour': there is no such field. Allowed",
    ),
    ("separator =", "seperator =", "field 'items.features.tags.seperator': there is no such field"),
    ('role = "conversion"', 'role = "bought"', "field 'event_names.order.role': Input should be"),
    ('values = ["pv"]', 'vals = ["pv"]', "Did you mean 'values'? Allowed are: role, weight, unit"),
    # Two sources for one column.
    ('user_id = "user"', 'user_id = "user"\nuser_id = "item"', "Each column may have one source"),
    ("brand = {", 'title = { type = "text", column = "brand" }\nbrand = {', "two sources for one"),
    ("order = {", 'o = { role = "engagement", values = ["order"] }\norder = {', "to event 'o'"),
    ('value = "amount"', 'drop = ["pv"]', "the cell 'pv' is given to event 'view' and to `drop`"),
    (
        '{ column = "type", values',
        '{ constant = "product", column = "type", values',
        "say either column",
    ),
    # What does not go together.
    ('time = "exact"', 'time = "sometimes"', "'exact', 'day', 'order' or 'none'"),
    ("timestamp = {", 'sequence = "file"\n# {', 'time = "exact" needs a timestamp'),
    ('format = "unix_s"', 'format = "%d/%m/%Y"', "the timestamp's format has no time of day"),
    (
        'format = "unix_s"',
        'format = "%d/%m/%Y %H:%M"',
        "'events.timestamp': these times have no zone",
    ),
    ('format = "unix_s"', 'format = "seconds"', "'events.timestamp.format': it is none of unix_s"),
    (
        'format = "unix_s"',
        'format = "unix_s", zone = "Here"',
        "'events.timestamp.zone': it is no IANA",
    ),
    ('event = "action"', 'event = { constant = "rate" }', "the event 'rate' is not among"),
    ('event = "action"', 'event = { column = "action", values = { a = "b" } }', "in [event_names]"),
    ('value = "amount"', 'unknown_items = "add"', "added_kind"),
    ('goods = "product"', 'goods = "prodct"', "'prodct' is not allowed. Did you mean 'product'?"),
    ('constant = "shows"', 'constant = "show"', "'show' is not allowed. Did you mean 'shows'?"),
    ("price = { type", "popularity = { type", "'popularity' is a column that bundles add"),
    ("price = { type", 'kind = { column = "price", type', "'kind' is a fixed column"),
    ('type = "number"', 'type = "number", separator = ","', "for categories and vectors"),
    ('type = "number"', 'type = "vector"', "`dim` is required"),
    ('type = "number"', 'type = "text", filterable = true', "cannot be filterable"),
    # What does not fit the files.
    (
        'user_id = "user"',
        'user_id = "usr"',
        "'events.user_id': events.csv has no column 'usr'. Did you mean 'user'? It has",
    ),
    (
        'price = { type = "number"',
        'price = { type = "number", column = "cost"',
        "'items.features.price': items.csv has no column 'cost'",
    ),
    ('column = "time"', 'column = "when"', "'events.timestamp': events.csv has no column 'when'"),
    ('"events.csv"', '"evnts.csv"', "'events.files': there is no file 'evnts.csv' in"),
    ('"events.csv"', '"logs/*.csv"', "* stands for any part of a name"),
    ('"events.csv"', '["events.csv", "*ents.csv"]', "a file is named twice"),
    ('"events.csv"', '"events.csv"\nformat = "jsonl"\nseparator = ","', "it is for csv and tsv"),
    ('"events.csv"', '"events.csv"\nformat = "xlsx"', "Input should be 'csv', 'tsv', 'parquet' or"),
]


@pytest.mark.parametrize(("old", "new", "says"), WRONG_MAPS)
def test_a_wrong_map_is_refused_by_field(old: str, new: str, says: str, shop: Path) -> None:
    _change(shop / "map.toml", old, new)
    with pytest.raises(ConfigError) as caught:
        _import(shop)
    assert says in str(caught.value)
    assert str(caught.value).startswith("map.toml")
    assert not (shop / "out").exists()


def test_a_map_that_is_not_there_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"table --example > shop\.toml"):
        import_table(tmp_path / "shop.toml", tmp_path / "out")
    (tmp_path / "shop.toml").write_bytes(b"name = '\xff'")
    with pytest.raises(ConfigError, match="not UTF-8"):
        import_table(tmp_path / "shop.toml", tmp_path / "out")


def test_an_unknown_act_lists_those_that_were_met(shop: Path) -> None:
    _change(shop / "events.csv", ",order", ",buy")
    with pytest.raises(DatasetError) as caught:
        _import(shop)
    assert "Here are: 'pv', 'buy'. Add it to the `values` of an event" in str(caught.value)


def test_a_column_called_row_is_not_taken_for_the_row_numbers(shop: Path) -> None:
    _change(shop / "events.csv", "amount", "row")
    _change(shop / "map.toml", 'value = "amount"\n', "")
    with pytest.raises(ConfigError, match=r"For the column say event_id = \{ column = \"row\" \}"):
        _import(shop)
    _change(shop / "map.toml", 'event_id = "row"', 'event_id = { column = "row" }')
    _import(shop)


# The file, what is changed in it, and what the error says.
WRONG_ROWS: list[tuple[str, str, str, str]] = [
    ("events.csv", "ann,", ",", "column 'user': line 2: there is no user_id. Mend the row; or say"),
    ("events.csv", ",mat-1", ",", "column 'item': line 3: there is no item_id"),
    ("events.csv", ",order", ",", "column 'action': line 3: there is no event"),
    ("events.csv", ",1772323201", ",", "column 'time': line 3: there is no timestamp"),
    ("events.csv", "1772323201", "soon", "column 'time': line 3: 'soon' is no finite number"),
    ("events.csv", "201,2", "201,two", "column 'amount': line 3: 'two' is no finite number"),
    (
        "events.csv",
        ",order",
        ",oder",
        "line 3: 'oder' is none of the cells that the map knows: pv, order. Did you mean 'order'",
    ),
    (
        "events.csv",
        "mat-1",
        "mat-2",
        "column 'item': line 3: the item 'mat-2' has no row in [items]. Add",
    ),
    ("events.csv", "201,2", "201,2,3", "line 3: Expected 5 columns, got 6"),
    ("items.csv", "mat-1", "flute-7", "column 'sku': line 3: 'flute-7' has an earlier row"),
    ("items.csv", "mat-1", "", "column 'sku': line 3: there is no id"),
    (
        "items.csv",
        "mat-1,goods",
        "mat-1,good",
        "column 'type': line 3: 'good' is none of the cells",
    ),
    ("items.csv", ",12", ",12 CNY", "column 'price': line 3: '12 CNY' is no finite number"),
    (
        "links.csv",
        ",mat-1",
        ",mat-3",
        "column 'to': line 2: the item 'mat-3' has no row in [items]",
    ),
]


@pytest.mark.parametrize(("file", "old", "new", "says"), WRONG_ROWS)
def test_a_row_that_does_not_fit_is_named(
    file: str, old: str, new: str, says: str, shop: Path
) -> None:
    _change(shop / file, old, new)
    with pytest.raises(DatasetError) as caught:
        _import(shop)
    assert says in str(caught.value)
    assert caught.value.file == file
    assert not (shop / "out").exists()
    assert not list(shop.glob(".out*"))


@pytest.mark.parametrize("file", ["events.csv", "items.csv"])
def test_a_table_without_rows_is_refused(file: str, shop: Path) -> None:
    head = (shop / file).read_text().split("\n")[0]
    (shop / file).write_text(head + "\n")
    with pytest.raises(DatasetError, match=r"no row"):
        _import(shop)


def test_an_event_of_two_positions_is_refused(shop: Path) -> None:
    _change(shop / "map.toml", 'time = "exact"', 'time = "order"')
    _change(shop / "map.toml", 'value = "amount"', 'sequence = "amount"')
    _change(shop / "events.csv", "bob", "ann")
    _change(shop / "events.csv", "201,2", "201,1")
    with pytest.raises(DatasetError, match="'ann' and 1 was already used") as caught:
        _import(shop)
    assert caught.value.column == "sequence"


def test_a_key_that_no_line_has_is_missed_at_the_end(shop: Path) -> None:
    lines = '{"user": "ann", "item": "mat-1", "action": "pv", "time": 1772323200}\n' * 200
    (shop / "events.csv").write_text(lines)
    _change(shop / "map.toml", '"events.csv"', '"events.csv"\nformat = "jsonl"')
    with pytest.raises(ConfigError, match=r"'events.value': .* no column 'amount'"):
        _import(shop)
    # One line far down is enough.
    late = (
        lines
        + '{"user": "bob", "item": "mat-1", "action": "pv", "time": 1772323200, "amount": 3}\n'
    )
    (shop / "events.csv").write_text(late)
    _import(shop)


def test_a_taken_folder_is_left_alone(shop: Path) -> None:
    (shop / "out").mkdir()
    (shop / "out/mine.txt").write_text("keep")
    with pytest.raises(DatasetError, match="Choose another output folder"):
        _import(shop)
    assert [path.name for path in (shop / "out").iterdir()] == ["mine.txt"]
