"""What people are shown says what was measured."""

import polars as pl
import pytest
from rich.console import Console

from training.compare import Difference
from training.evaluate import Evaluation
from training.evaluation_report import comparison_table, evaluation_page, evaluation_tables
from training.html import render

METRICS = ("hr", "recall", "ndcg", "mrr")


def evaluation(
    *,
    rankers: tuple[str, ...],
    ks: tuple[int, int] = (5, 20),
    num_targets: int = 4,
    num_users_in_part: int = 3,
) -> Evaluation:
    lists = ("coverage", "gini", "novelty", "discovery")
    metrics = {
        name: {
            **{f"{metric}@{k}": 0.1 * (i + 1) for k in ks for metric in METRICS},
            **{f"{metric}@{ks[1]}": 0.5 for metric in lists},
        }
        for i, name in enumerate(rankers)
    }
    buckets = {
        name: {"head": {"num_users": 3, "num_targets": 4, **metrics[name]}} for name in rankers
    }
    columns = {f"{n}/{m}@{k}": [0.0, 0.2, 0.4] for n in rankers for m in METRICS for k in ks}
    protocol = {
        **{"split": "time", "part": "test", "seen": "converted", "num_items": 1234, "ks": [*ks]},
        **{"num_users": 3, "num_targets": num_targets, "num_targets_left_out": 2},
        **{"num_users_in_part": num_users_in_part, "num_discoveries": 1},
    }
    seconds = dict.fromkeys(rankers, 1.5)
    return Evaluation(
        protocol, metrics, buckets, pl.DataFrame({"user": [0, 1, 2], **columns}), seconds
    )


def printed(*tables: object) -> str:
    console = Console(width=200, record=True)
    for table in tables:
        console.print(table)
    return console.export_text()


def test_tables_show_every_ranker_the_protocol_and_the_differences() -> None:
    shown = printed(*evaluation_tables(evaluation(rankers=("towers", "popularity"))))
    assert "time split, test part: 3 users, 4 targets" in shown and "1,234 items" in shown
    assert "2 targets left out" in shown and "bought" in shown
    assert "recall@5" in shown and "discovery" in shown and "0.2000" in shown
    assert "towers better by" in shown and "+0.0000 to +0.0000" in shown
    sampled = printed(*evaluation_tables(evaluation(rankers=("towers",), num_users_in_part=5000)))
    sampled = " ".join(sampled.split())
    assert "3 of 5,000 users" in sampled and "2 targets of all users left out" in sampled


def test_tables_fit_a_terminal_of_80_columns() -> None:
    found = evaluation(rankers=("towers", "popularity"), ks=(10, 50))
    console = Console(width=80, record=True)
    for table in evaluation_tables(found):
        console.print(table)
    shown = console.export_text()
    assert "…" not in shown
    assert "recall@10" in shown and "ndcg@50" in shown and shown.count("@50") >= 4


def test_hit_rate_is_recall_where_each_user_has_one_target() -> None:
    shown = printed(*evaluation_tables(evaluation(rankers=("towers",), num_targets=3)))
    assert "hr@5" in shown and "recall@5" not in shown and "better by" not in shown


def test_a_comparison_says_what_is_clear() -> None:
    found = {
        "ndcg@5": Difference(0.02, 0.01, 0.03, 1000),
        "hr@5": Difference(-0.02, -0.03, -0.01, 1000),
        "mrr@5": Difference(0.02, -0.01, 0.05, 1000),
    }
    lines = printed(comparison_table(found, candidate="a", reference="b")).splitlines()
    verdicts = {line.split()[0]: line for line in lines if "@" in line}
    assert "better" in verdicts["ndcg@5"] and "worse" in verdicts["hr@5"]
    assert "no clear difference" in verdicts["mrr@5"]


@pytest.mark.parametrize("rankers", [("towers",), ("towers", "popularity", "als")])
def test_the_page_holds_tables_and_plots(rankers: tuple[str, ...]) -> None:
    html = render(evaluation_page(evaluation(rankers=rankers), title="shop <1>"))
    assert "shop &lt;1&gt;" in html and html.count("<svg") == (3 if len(rankers) > 1 else 2)
    for name in rankers:
        assert f">{name}<" in html
