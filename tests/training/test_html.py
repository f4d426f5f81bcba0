"""Pages stand alone, are well formed, show what they were given, and run nothing of it."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from matplotlib.axes import Axes

from training.html import INK, SERIES, Figure, Page, Prose, Section, Table, draw, render, write_page

HOSTILE = "<script>alert(1)</script> & \"quotes\" 'too' {{ 7 * 7 }}"
_VOID = {"meta", "link", "br", "img"}


class Reader(HTMLParser):
    """Checks that every element is closed in order; gathers the texts and the attributes."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.texts: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append(data.strip())

    def values(self, name: str) -> list[str]:
        return [value for key, value in self.attributes if key == name]


def page_of(*blocks: Prose | Table | Figure) -> str:
    return render(Page(title="T", lead="L", sections=[Section("S", blocks)]))


def line(axes: Axes) -> None:
    axes.plot([0, 1, 2], [3, 1, 2], label="竹笛 costs $5 and $7")


def test_everything_given_is_shown_as_text() -> None:
    page = Page(
        title=HOSTILE,
        lead=HOSTILE,
        sections=[
            Section(
                HOSTILE,
                [
                    Prose(HOSTILE),
                    Table([HOSTILE], [[HOSTILE]], caption=HOSTILE),
                    draw(lambda axes: axes.set_title(HOSTILE), caption=HOSTILE),
                ],
            )
        ],
    )
    reader = Reader(render(page))
    assert "script" not in reader.tags
    # <title>, heading, lead, heading, paragraph, caption, column, cell, caption, drawing.
    assert reader.texts.count(HOSTILE) == 10
    assert reader.values("aria-label") == [HOSTILE]


def test_nothing_is_fetched_and_nothing_runs() -> None:
    page = page_of(Prose("x"), draw(line, caption="c"))
    reader = Reader(page)
    assert not re.search(r"https?:|//|@import|url\((?!#)", page)
    assert {"script", "link", "img", "iframe"} & set(reader.tags) == set()
    assert all(value.startswith("#") for value in reader.values("href"))
    (policy,) = [v for v in reader.values("content") if "default-src" in v]
    assert policy.startswith("default-src 'none'; style-src 'unsafe-inline'")


def test_cells_are_written_for_reading() -> None:
    table = Table(
        ["name", "count", "share", "mixed"],
        [["a", 1_234_567, 0.25, "x"], ["b", None, None, 1]],
        decimals=3,
    )
    assert table.cells() == [["a", "1,234,567", "0.250", "x"], ["b", "–", "–", "1"]]
    assert table.alignment() == ["left", "right", "right", "left"]
    assert Table(["a", "b"], [["x", "y"]], align="rl").alignment() == ["right", "left"]
    reader = Reader(page_of(table))
    assert reader.texts[-8:] == ["a", "1,234,567", "0.250", "x", "b", "–", "–", "1"]
    assert reader.values("class").count("right") == 2 * 3


def test_a_table_without_headings_has_no_head() -> None:
    assert "thead" not in Reader(page_of(Table(["", ""], [["a", "b"]]))).tags
    assert "thead" in Reader(page_of(Table(["", "n"], [["a", "b"]]))).tags


def test_drawings_follow_the_page_in_colour_and_font() -> None:
    def paint(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=SERIES[1])
        axes.axhline(0.5, color=INK)
        axes.axvline(0.5, color="#ab12cd")

    svg = draw(paint, caption="c").svg
    assert "var(--series-2)" in svg and "var(--ink)" in svg
    assert "#ab12cd" in svg  # a colour that the page does not know stays
    assert SERIES[1] not in svg and INK not in svg and "font-family" not in svg
    page = page_of(draw(paint, caption="c"))
    for variable in set(re.findall(r"var\((--[a-z0-9-]+)\)", page)):
        # Once for light, once for dark.
        assert page.count(f"{variable}: #") == 2, variable


def test_text_of_drawings_is_literal_and_in_any_script() -> None:
    figure = draw(line, caption="c", description="a line that falls and rises")
    assert "竹笛 costs $5 and $7" in figure.svg
    assert 'aria-label="a line that falls and rises"' in figure.svg


def test_a_legend_stands_above_what_has_labels_and_only_once() -> None:
    def own(axes: Axes) -> None:
        line(axes)
        axes.legend()

    label = "竹笛 costs $5 and $7"
    assert draw(line, caption="c").svg.count(label) == 1
    assert draw(own, caption="c").svg.count(label) == 1
    assert label not in draw(lambda axes: axes.plot([0, 1], [1, 0]), caption="c").svg


def test_ids_of_several_drawings_do_not_meet() -> None:
    first, second = draw(line, caption="c"), draw(line, caption="c", height=4)
    assert first == draw(line, caption="c")
    ids = {figure: set(re.findall(r'id="([^"]+)"', figure.svg)) for figure in (first, second)}
    for figure, own in ids.items():
        used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', figure.svg))
        assert used == own and own
    assert ids[first] & ids[second] == set()
    reader = Reader(page_of(first, second))
    assert len(reader.values("id")) == len(set(reader.values("id")))


def test_a_page_is_written_whole_over_an_old_one(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")
    write_page(Page(title="竹笛", lead="L", sections=[]), path)
    assert Reader(path.read_text(encoding="utf-8")).texts[0] == "竹笛"
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    with pytest.raises(FileNotFoundError):
        write_page(Page(title="T", lead="L", sections=[]), tmp_path / "absent" / "report.html")
