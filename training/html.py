"""Reports as one HTML file: a title, a lead paragraph, and sections of prose, tables and figures.

    page = Page(title="ml-1m", lead="What it holds.", sections=[
        Section("Tail", [Prose("…"), Table(["items", "share"], [["top 1 %", 0.12]]),
                         draw(lambda axes: axes.plot(xs, ys), caption="…")]),
    ])
    write_page(page, Path("report.html"))

The file stands alone: styles and figures are inside it, it runs no script and asks no server for
anything (its own Content-Security-Policy forbids it). Everything that was given as text is escaped.
Figures are inline SVG whose colours are the page's, so they follow light and dark.

Knows nothing of what is reported.
"""

import io
import re
import warnings
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from cycler import cycler
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure as MatplotlibFigure

from model.atomic import write_text

# Drawn with these, shown with the page's own: each is replaced by the variable of its name.
INK, FAINT, PAPER = "#1b1f24", "#d4d8de", "#fefefe"
SERIES = ("#0b63b0", "#c2410c", "#15803d", "#8a3ab9", "#8f6b00", "#4b5563")
"""Colours to draw with; text, lines of the grid, the background, and one a series."""
_VARIABLES = {INK: "ink", FAINT: "faint", PAPER: "paper"} | {
    colour: f"series-{number}" for number, colour in enumerate(SERIES, start=1)
}

Cell = str | int | float | None


@dataclass(frozen=True, slots=True)
class Prose:
    """One paragraph."""

    text: str


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under headings; numbers stand to the right, None is a dash."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    """One cell a column. An int is shown with thousands separators, a float with `decimals`."""
    caption: str = ""
    decimals: int = 4
    """Digits after the point of every float."""
    align: str = ""
    """A letter a column, `l` or `r`; where empty, columns of numbers alone stand to the right."""

    def alignment(self) -> list[str]:
        """CSS's word for each column's alignment."""
        if self.align:
            return [{"l": "left", "r": "right"}[letter] for letter in self.align]
        columns = range(len(self.columns))
        return ["right" if self._is_numeric(column) else "left" for column in columns]

    def cells(self) -> list[list[str]]:
        """Every cell as it is shown."""
        return [[self._shown(cell) for cell in row] for row in self.rows]

    def _is_numeric(self, column: int) -> bool:
        cells = [row[column] for row in self.rows if row[column] is not None]
        return bool(cells) and not any(isinstance(cell, str) for cell in cells)

    def _shown(self, cell: Cell) -> str:
        if cell is None:
            return "–"
        if isinstance(cell, float):
            return f"{cell:,.{self.decimals}f}"
        return cell if isinstance(cell, str) else f"{cell:,}"


@dataclass(frozen=True, slots=True)
class Figure:
    """A drawing; made by `draw`."""

    svg: str
    """An <svg> element, put into the page as it is: never text from elsewhere."""
    caption: str


Block = Prose | Table | Figure


@dataclass(frozen=True, slots=True)
class Section:
    """A heading and what stands below it."""

    title: str
    blocks: Sequence[Block]


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A whole report."""

    title: str
    lead: str
    """The first paragraph: what a hurried reader has to know."""
    sections: Sequence[Section]
    language: str = "en"
    """Of the page's own words, ISO 639-1."""


def draw(
    paint: Callable[[Axes], object],
    *,
    caption: str,
    description: str = "",
    height: float = 2.6,
) -> Figure:
    """Let `paint` draw on empty axes; the result is the same for the same drawing.

    paint: given matplotlib axes whose colours are SERIES, in turn; use INK, FAINT and PAPER for
        anything else. Text is taken literally ($ is a dollar), and any script may be used. What
        is drawn with a `label` gets a legend above the axes, unless `paint` made one.
    description: what it shows, in words, for those who cannot see it; the caption if left out.
    height: in inches where the width is 7.5; on the page it is scaled to the page's width.
    """
    return Figure(_inline(draw_svg(paint, height=height), description or caption), caption)


def draw_svg(paint: Callable[[Axes], object], *, height: float = 2.6) -> str:
    """An SVG document of its own, as `draw` makes it for a page; its background is transparent."""
    written = io.StringIO()
    with (
        rc_context(
            {
                "axes.axisbelow": True,
                "axes.edgecolor": FAINT,
                "axes.grid": True,
                "axes.grid.axis": "y",
                "axes.labelcolor": INK,
                "axes.prop_cycle": cycler(color=SERIES),
                "axes.spines.right": False,
                "axes.spines.top": False,
                "date.converter": "concise",
                "font.size": 9,
                "grid.color": FAINT,
                "grid.linewidth": 0.6,
                "legend.frameon": False,
                "lines.linewidth": 1.6,
                "svg.fonttype": "none",  # the reader's fonts, which have more scripts than ours
                "svg.hashsalt": "penchant",
                "text.color": INK,
                "text.parse_math": False,
                "xtick.color": FAINT,
                "xtick.labelcolor": INK,
                "ytick.color": FAINT,
                "ytick.labelcolor": INK,
            }
        ),
        warnings.catch_warnings(),
    ):
        # Its own font only measures the text; a missing glyph is measured as a box.
        warnings.filterwarnings(
            "ignore", message="Glyph .* missing from font", category=UserWarning
        )
        figure = MatplotlibFigure(figsize=(7.5, height), layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.subplots()
        paint(axes)
        if axes.get_legend_handles_labels()[1] and axes.get_legend() is None:
            figure.legend(loc="outside upper left", ncols=5)
        figure.savefig(written, format="svg", transparent=True, metadata={"Date": None})
    return written.getvalue()


def render(page: Page) -> str:
    """The page as HTML."""
    return _TEMPLATE.render(page=page, policy=_POLICY, style=Markup(_STYLE), safe=Markup)


def write_page(page: Page, path: Path) -> None:
    """Write the page whole or not at all, replacing a file that is there."""
    write_text(path, render(page))


def _inline(document: str, description: str) -> str:
    """An SVG document as an element of an HTML page, in the page's colours."""
    root = ElementTree.fromstring(document)
    # Ids are global in a page. Equal prefixes mean equal drawings, whose ids mean the same.
    prefix = f"f{zlib.crc32(document.encode()):08x}-"
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', document))
    for parent in list(root.iter()):
        parent.tag = _local(parent.tag)
        for child in list(parent):
            if _local(child.tag) in ("metadata", "style"):
                parent.remove(child)
        attributes = {_local(name): value for name, value in parent.attrib.items()}
        if attributes.get("id") not in used:
            attributes.pop("id", None)
        parent.attrib.clear()
        for name, value in attributes.items():
            parent.set(name, _with_page(name, value, prefix))
    for size in ("width", "height", "version"):
        root.attrib.pop(size, None)
    root.set("role", "img")
    root.set("aria-label", description)
    return ElementTree.tostring(root, encoding="unicode")


def _local(name: str) -> str:
    """The name without its namespace: in HTML, everything inside <svg> is SVG."""
    return name.rpartition("}")[2]


def _with_page(name: str, value: str, prefix: str) -> str:
    """An attribute's value with ids of this figure, and the page's colours and font."""
    if name == "id":
        return prefix + value
    if name in ("href", "clip-path"):
        return value.replace("#", f"#{prefix}", 1)
    if name == "style":
        value = re.sub(r"font-family: [^;]*;?", "", value)
        for colour, variable in _VARIABLES.items():
            value = value.replace(colour, f"var(--{variable})")
    return value


_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"

_STYLE = """\
:root { color-scheme: light dark;
  --paper: #ffffff; --ink: #1b1f24; --soft: #59636e; --faint: #d4d8de;
  --series-1: #0b63b0; --series-2: #c2410c; --series-3: #15803d; --series-4: #8a3ab9;
  --series-5: #8f6b00; --series-6: #4b5563; }
@media (prefers-color-scheme: dark) { :root {
  --paper: #14171a; --ink: #e3e6ea; --soft: #9aa4af; --faint: #363c44;
  --series-1: #63adf2; --series-2: #f58f5b; --series-3: #5cc487; --series-4: #c594ea;
  --series-5: #d9b24a; --series-6: #a3adb8; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2.5rem 1.25rem 4rem; max-width: 58rem; background: var(--paper);
  color: var(--ink); font: 16px/1.55 system-ui, -apple-system, "Segoe UI", "Noto Sans",
  "Noto Sans CJK SC", "PingFang SC", "Microsoft YaHei", sans-serif; }
h1 { font-size: 1.75rem; line-height: 1.25; margin: 0 0 .5rem; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 2.75rem 0 .75rem; padding-top: .9rem;
  border-top: 1px solid var(--faint); }
p { margin: .6rem 0; max-width: 44rem; overflow-wrap: anywhere; white-space: pre-line; }
.lead { font-size: 1.05rem; color: var(--soft); }
.table { overflow-x: auto; margin: 1rem 0; }
table { border-collapse: collapse; font-size: .875rem; line-height: 1.4;
  font-variant-numeric: tabular-nums; }
.caption, figcaption { color: var(--soft); font-size: .875rem; margin: 0 0 .4rem; }
th, td { padding: .35rem .9rem .35rem 0; vertical-align: top; border-bottom: 1px solid var(--faint);
  overflow-wrap: break-word; max-width: 26rem; }
th { font-weight: 600; color: var(--soft); white-space: nowrap; }
.right { text-align: right; white-space: nowrap; }
.left { text-align: left; }
figure { margin: 1.25rem 0; }
svg { display: block; width: 100%; height: auto; }
svg * { stroke-linejoin: round; stroke-linecap: butt; }
@media print { body { max-width: none; padding: 0; } h2 { break-after: avoid; }
  figure, tr { break-inside: avoid; } }
"""

_TEMPLATE = Environment(
    autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
).from_string("""\
<!DOCTYPE html>
<html lang="{{ page.language }}">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{{ policy }}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ page.title }}</title>
<style>
{{ style }}</style>
</head>
<body>
<h1>{{ page.title }}</h1>
<p class="lead">{{ page.lead }}</p>
{% for section in page.sections %}
<section>
<h2>{{ section.title }}</h2>
{% for block in section.blocks %}
{% if block.text is defined %}
<p>{{ block.text }}</p>
{% elif block.svg is defined %}
<figure>
<figcaption>{{ block.caption }}</figcaption>
{{ safe(block.svg) }}
</figure>
{% else %}
{% set sides = block.alignment() %}
<div class="table">
{% if block.caption %}
<p class="caption">{{ block.caption }}</p>
{% endif %}
<table>
{% if block.columns | select | list %}
<thead><tr>
{% for column in block.columns %}
<th class="{{ sides[loop.index0] }}" scope="col">{{ column }}</th>
{% endfor %}
</tr></thead>
{% endif %}
<tbody>
{% for row in block.cells() %}
<tr>{% for cell in row %}<td class="{{ sides[loop.index0] }}">{{ cell }}</td>{% endfor %}</tr>
{% endfor %}
</tbody>
</table>
</div>
{% endif %}
{% endfor %}
</section>
{% endfor %}
</body>
</html>
""")
