"""Draw the districts and circles of a run as a map: docs/images/circles.svg.

    python benchmarks/circle_map.py RUN

Places are the first two principal directions of the districts' centroids, so that near districts
lie near each other as far as a plane allows; a disc is as large as what it holds. Names are in the
language of the data.
"""

import argparse
from pathlib import Path

import numpy as np
from circles import space_of
from matplotlib import rcParams
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from results import ROOT

PLOT = ROOT / "docs" / "images" / "circles.svg"
LABELLED = 24
"""Circles that are named: the largest."""


def main() -> None:
    """Find the circles, draw them."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path)
    args = parser.parse_args()
    found = space_of(args.run).circles()
    # Text stays text, in whatever fonts the reader has: paths would need a Chinese one here.
    rcParams["svg.fonttype"] = "none"
    rcParams["svg.hashsalt"] = "circles"
    places = plane(np.array(found.districts["centroid"].to_pylist()))
    figure = Figure(figsize=(9, 6.4), layout="constrained")
    FigureCanvasSVG(figure)
    axes = figure.add_subplot()
    axes.set_axis_off()
    row_of = {one: i for i, one in enumerate(found.districts["circle_id"].to_pylist())}
    district = np.array([row_of[one] for one in found.circles["district_id"].to_pylist()])
    sizes = found.circles["size"].to_numpy()
    for row, name in enumerate(found.districts["name"].to_pylist()):
        mine = np.flatnonzero(district == row)
        mine = mine[np.argsort(-sizes[mine])]
        spots = places[row] + around(len(mine)) * 0.055
        colour = f"C{row % 10}"
        axes.scatter(*spots.T, s=8 * sizes[mine], alpha=0.45, color=colour, linewidths=0)
        axes.annotate(
            name,
            (places[row][0], spots[:, 1].max() + 0.04),
            ha="center",
            fontsize=11,
            color=colour,
            fontweight="bold",
        )
        for spot, one in zip(spots, mine, strict=True):
            if one in np.argsort(-sizes)[:LABELLED]:
                title = found.circles["name"][int(one)].as_py()
                axes.annotate(title, spot, ha="center", va="center", fontsize=6.5)
    PLOT.parent.mkdir(exist_ok=True)
    figure.savefig(PLOT, format="svg", metadata={"Date": None})


def plane(centroids: np.ndarray) -> np.ndarray:
    """[K, 2] the first two principal directions of [K, D], spread over a unit square."""
    centred = centroids - centroids.mean(axis=0)
    left, scale, _ = np.linalg.svd(centred, full_matrices=False)
    spots = left[:, :2] * scale[:2]
    spots = (spots - spots.min(axis=0)) / np.ptp(spots, axis=0)
    for _ in range(200):  # discs that lie on each other are pushed apart
        gaps = spots[:, None] - spots[None]
        far = np.linalg.norm(gaps, axis=2) + np.eye(len(spots))
        push = np.maximum(0.3 - far, 0)[:, :, None] * gaps / far[:, :, None]
        spots = spots + 0.1 * push.sum(axis=1)
    return spots


def around(num: int) -> np.ndarray:
    """[num, 2] places about a middle, from the middle out: a sunflower's."""
    turn = np.arange(num) * np.pi * (3 - np.sqrt(5))
    return np.sqrt(np.arange(num))[:, None] * np.stack([np.cos(turn), np.sin(turn)], axis=1)


if __name__ == "__main__":
    main()
