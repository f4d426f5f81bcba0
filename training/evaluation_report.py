"""What an evaluation tells people: tables in the terminal, one page with plots.

Knows how to show an Evaluation and a comparison; computes nothing but differences' intervals.
"""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from rich import box
from rich.table import Table
from rich.text import Text

from training.compare import Difference
from training.evaluate import Evaluation
from training.html import INK, Page, Prose, Section, draw
from training.html import Table as HtmlTable

_LIST_METRICS = ("coverage", "gini", "novelty")
_EXPLAINED = {
    "filter": "nothing of a user's history is listed",
    "converted": "what a user bought is not listed",
    "keep": "anything may be listed, also what the user had before",
}


def protocol_line(found: Evaluation) -> str:
    """The protocol in one sentence."""
    protocol = found.protocol
    left, everyone = protocol["num_targets_left_out"], protocol["num_users_in_part"]
    sampled = protocol["num_users"] < everyone
    users = f"{protocol['num_users']:,}" + (f" of {everyone:,}" if sampled else "")
    return (
        f"{protocol['split']} split, {protocol['part']} part: {users} users, "
        f"{protocol['num_targets']:,} targets, each ranked among all {protocol['num_items']:,} "
        f"items; {_EXPLAINED[protocol['seen']]}"
        + (
            f" ({left:,} targets {'of all users ' if sampled else ''}left out for that)"
            if left
            else ""
        )
    )


def evaluation_tables(found: Evaluation) -> list[Table]:
    """Metrics of every ranker, the towers' differences to each, and the towers by bucket."""
    (towers, *baselines), ks = found.metrics, found.protocol["ks"]
    near, depth = min(ks), max(ks)
    # What fits 80 columns; the page has the rest.
    found_share = "recall" if "recall" in _accuracy(found) else "hr"
    names = [f"{metric}@{k}" for k in ks for metric in (found_share, "ndcg")]
    names += [f"{metric}@{depth}" for metric in ("discovery", "coverage")]
    names = [name for name in names if name in found.metrics[towers]]
    metrics = _plain(protocol_line(found), "", *names)
    for ranker, values in found.metrics.items():
        metrics.add_row(ranker, *(f"{values[name]:.4f}" for name in names))
    buckets = _plain(f"{towers}, by what was asked", "", "users", "targets", *names[:-2])
    for bucket, values in found.buckets[towers].items():
        counts = (f"{values[name]:,.0f}" for name in ("num_users", "num_targets"))
        buckets.add_row(bucket, *counts, *(f"{values[name]:.4f}" for name in names[:-2]))
    if not baselines:
        return [metrics, buckets]
    differences = _plain(f"{towers} better by, mean over users", "than", f"ndcg@{near}", "95 %")
    for ranker, gaps in found.differences([f"ndcg@{near}"]).items():
        differences.add_row(ranker, *shown(gaps[f"ndcg@{near}"]))
    return [metrics, differences, buckets]


def comparison_table(found: Mapping[str, Difference], *, candidate: str, reference: str) -> Table:
    """How much better the towers of one run are than those of another, metric by metric."""
    table = _plain(
        f"{candidate} minus {reference}, mean over users (paired bootstrap)",
        *("towers", "difference", "95 %", "users", "verdict"),
    )
    for metric, gap in found.items():
        verdict = "no clear difference"
        if gap.is_clear:
            verdict = "better" if gap.mean > 0 else "worse"
        table.add_row(metric, *shown(gap), f"{gap.num_users:,}", verdict)
    return table


def shown(gap: Difference) -> tuple[str, str]:
    """`+0.0123` and `+0.0101 to +0.0144`."""
    return f"{gap.mean:+.4f}", f"{gap.low:+.4f} to {gap.high:+.4f}"


def _plain(title: str, first: str, *others: str) -> Table:
    """A table without a frame: names to the left, figures to the right."""
    table = Table(title=Text(title), title_justify="left", box=box.SIMPLE, pad_edge=False)
    table.add_column(first, no_wrap=True, min_width=10)
    for name in others:
        # A long name takes two lines rather than the width of three figures.
        shown = name.replace("@", "\n@") if len(name) > 9 else name
        table.add_column(shown, justify="right", no_wrap=True)
    return table


def evaluation_page(found: Evaluation, *, title: str) -> Page:
    """The whole evaluation as one page."""
    ks = found.protocol["ks"]
    towers, *baselines = found.metrics
    depth, near = max(ks), min(ks)
    accuracy = [f"{metric}@{k}" for k in ks for metric in _accuracy(found)]
    lists = [f"{metric}@{depth}" for metric in _LIST_METRICS]
    gaps = found.differences([f"ndcg@{near}", f"recall@{depth}", f"discovery@{depth}"])
    buckets = found.buckets[towers]
    sections = [
        Section(
            "How much of what people did is found",
            [
                HtmlTable(
                    ["", *accuracy],
                    [[n, *(m.get(name) for name in accuracy)] for n, m in found.metrics.items()],
                    caption="Means over users. Recall is the share of a user's targets in the "
                    "list; discovery is the recall of targets in circles of taste that the user "
                    "had never engaged with before.",
                ),
                draw(
                    lambda axes: _bars(
                        axes, {n: m[f"recall@{depth}"] for n, m in found.metrics.items()}
                    ),
                    caption=f"recall@{depth}",
                ),
            ],
        ),
        Section(
            "Is the difference real?",
            [
                HtmlTable(
                    [f"{towers} minus", "metric", "difference", "low", "high", "users"],
                    [
                        [ranker, metric, gap.mean, gap.low, gap.high, gap.num_users]
                        for ranker, metrics in gaps.items()
                        for metric, gap in metrics.items()
                    ],
                    caption="Paired over users; the interval is that of 2,000 bootstrap samples, "
                    "95 %. One that holds zero is no clear difference.",
                ),
                draw(
                    lambda axes: _intervals(axes, {n: g[f"ndcg@{near}"] for n, g in gaps.items()}),
                    caption=f"{towers} minus each baseline, ndcg@{near}",
                ),
            ]
            if baselines
            else [Prose("No baseline was asked for.")],
        ),
        Section(
            "Whom and what does it serve?",
            [
                HtmlTable(
                    ["", "users", "targets", *(f"recall@{k}" for k in ks)],
                    [
                        [
                            bucket,
                            int(m["num_users"]),
                            int(m["num_targets"]),
                            *(m[f"recall@{k}"] for k in ks),
                        ]
                        for bucket, m in buckets.items()
                    ],
                    caption=f"{towers}. Head: the most popular tenth of items; torso: the next "
                    "four tenths; tail: the rest; new items: no training event.",
                ),
                draw(
                    lambda axes: _grouped(axes, found, f"recall@{depth}"),
                    caption=f"recall@{depth} by bucket",
                ),
            ],
        ),
        Section(
            "What are the lists made of?",
            [
                HtmlTable(
                    ["", *lists, "seconds"],
                    [
                        [n, *(m[name] for name in lists), round(found.seconds[n], 1)]
                        for n, m in found.metrics.items()
                    ],
                    caption="Coverage: share of the catalogue in any list. Gini: 0 where all items "
                    "are listed alike, near 1 where a few take all. Novelty: bits of surprise of "
                    "a listed item, by its popularity. Seconds: what ranking took.",
                    decimals=3,
                )
            ],
        ),
    ]
    return Page(title=title, lead=protocol_line(found) + ".", sections=sections)


def _accuracy(found: Evaluation) -> list[str]:
    """The metrics of a list's accuracy that this evaluation has."""
    several = found.protocol["num_targets"] > found.protocol["num_users"]
    names = ["hr", "recall"] if several else ["hr"]  # with one target a user they are equal
    names += ["ndcg", "mrr"]
    return [*names, "discovery"] if found.protocol.get("num_discoveries") else names


def _bars(axes: Axes, values: Mapping[str, float]) -> None:
    axes.bar(list(values), list(values.values()), width=0.6)
    for place, value in enumerate(values.values()):
        axes.annotate(f"{value:.3f}", (place, value), ha="center", va="bottom", fontsize=8)


def _intervals(axes: Axes, gaps: Mapping[str, Difference]) -> None:
    places = np.arange(len(gaps))[::-1]
    for place, gap in zip(places, gaps.values(), strict=True):
        axes.plot([gap.low, gap.high], [place, place], color="#0b63b0", linewidth=3)
        axes.plot([gap.mean], [place], "o", color="#0b63b0")
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.set_yticks(places, list(gaps))
    axes.set_ylim(-0.7, len(gaps) - 0.3)
    axes.grid(axis="x")


def _grouped(axes: Axes, found: Evaluation, metric: str) -> None:
    """Bars of every ranker, side by side within each bucket."""
    names = list(found.buckets[next(iter(found.metrics))])
    width = 0.8 / len(found.metrics)
    for number, ranker in enumerate(found.metrics):
        values = [found.buckets[ranker][bucket][metric] for bucket in names]
        axes.bar(np.arange(len(names)) + number * width, values, width=width, label=ranker)
    axes.set_xticks(np.arange(len(names)) + 0.4 - width / 2, names)
    axes.legend(ncols=4, fontsize=8)
