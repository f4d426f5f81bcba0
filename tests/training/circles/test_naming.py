"""Names for people: in the words of the data's own language, distinct, and kept while true."""

import pyarrow as pa

from model.schema import Event, Feature, Schema
from training.circles.naming import names_of, top_features

CATEGORY = Feature(type="category")


def features(language: str) -> list[list[str]]:
    """Of two groups of ten items: each with a craft of its own and, four of ten times, a tag."""
    schema = Schema(
        name="n",
        time="none",
        language=language,
        item_features={
            "craft": CATEGORY,
            "craft_en": CATEGORY,
            "tags": Feature(type="categories"),
        },
        events={"watch": Event(role="engagement")},
    )
    items = pa.table(
        {
            "item_id": [f"i{i}" for i in range(20)],
            "craft": ["zhubian"] * 10 + ["cixiu"] * 10,
            "craft_en": ["bamboo"] * 10 + ["embroidery"] * 10,
            "tags": [
                ["竹"] if i % 10 < 4 and i < 10 else ["绣"] if i % 10 < 4 else [] for i in range(20)
            ],
        }
    )
    groups = pa.array([0] * 10 + [1] * 10).to_numpy()
    return top_features(groups, 2, items, schema, least=0.15)


def test_the_language_of_the_data_comes_first() -> None:
    # A Chinese word says more to its readers than a slug that more of the items have.
    assert features("zh") == [["竹", "zhubian"], ["绣", "cixiu"]]


def test_a_latin_language_has_no_script_of_its_own() -> None:
    # Of `craft` and its English words, English readers want the latter.
    assert features("en") == [["bamboo", "竹"], ["embroidery", "绣"]]


def test_as_many_words_as_tell_apart() -> None:
    values = [["a", "b", "c"], ["a", "b", "d"], ["e"], [], []]
    names = names_of(
        values, ["t1", "t2", "t3", "t4", ""], [1, 2, 3, 4, 5], held=[None] * 5, word="circle"
    )
    assert names == ["a · b · c", "a · b · d", "e", "t4", "circle 5"]


def test_titles_and_at_last_ids_tell_apart() -> None:
    values = [["a"], ["a"], ["a"]]
    names = names_of(values, ["x", "x", "y"], [7, 8, 9], held=[None] * 3, word="circle")
    assert names == ["a (x) [7]", "a (x) [8]", "a (y)"]


def test_a_name_stays_while_it_is_true() -> None:
    values = [["a", "b", "c"], ["d", "b"], ["c", "b"]]
    held = ["c · b", "d · z", None]
    names = names_of(values, ["", "", "t"], [1, 2, 3], held=held, word="circle")
    # The first keeps its name, whatever is most telling now; the second's is no longer true; the
    # third would have the first's.
    assert names == ["c · b", "d · b", "c · b (t)"]
