"""The reliability plot: of what is given a chance, how much comes true, head by head.

Knows the figures of evaluate.py; no runs and no files.
"""

import io
import math
from collections.abc import Mapping
from typing import Any

from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

_ACROSS = 4


def reliability_plot(heads: Mapping[str, Mapping[str, Any]], *, title: str) -> str:
    """An SVG. heads: HeadRankings.to_json of each, those without examples left out."""
    shown = {name: head["reliability"] for name, head in heads.items() if head["reliability"]}
    across = min(max(len(shown), 1), _ACROSS)
    down = max(math.ceil(len(shown) / across), 1)
    figure = Figure(figsize=(2.4 * across, 2.5 * down + 0.4), layout="constrained")
    FigureCanvasSVG(figure)
    figure.suptitle(f"{title}: predicted against observed", fontsize=10)
    for place, (name, found) in enumerate(shown.items(), 1):
        axes = figure.add_subplot(down, across, place)
        least, most = _range(found)
        axes.plot([least, most], [least, most], color="0.7", linewidth=1)
        drawn = [
            (p, o) for p, o in zip(found["predicted"], found["observed"], strict=True) if p and o
        ]
        axes.plot([p for p, _ in drawn], [o for _, o in drawn], marker="o", markersize=3)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_title(f"{name}, ECE {found['error']:.4f}", fontsize=9)
        axes.tick_params(labelsize=7)
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()


def _range(found: Mapping[str, Any]) -> tuple[float, float]:
    """The least and the most that is drawn; both axes are logarithmic, for rare heads' sake."""
    values = [v for v in (*found["predicted"], *found["observed"]) if v > 0] or [0.01, 1.0]
    return min(values), max(values)
