"""docs/guides/bring-your-own-data.md is true: its files are made and imported as it says."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from model.errors import DatasetError
from tests.training.tiny import TINY, Silent
from training.compare import compare_results
from training.dataset import load_user_ids
from training.distributed import join
from training.embed_files import embed_items, embed_users
from training.evaluate import evaluate_run, write_evaluation
from training.export import export_run
from training.importers.tables import import_table
from training.inspection.dataset import inspect_dataset
from training.run import load_best, open_run, start_run

GUIDE = Path(__file__).parents[2] / "docs/guides/bring-your-own-data.md"


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    """The guide's files, as its first commands write them."""
    text = GUIDE.read_text(encoding="utf-8")
    for name, content in re.findall(r"cat > (\S+) <<'END'\n(.*?)END\n", text, flags=re.DOTALL):
        (tmp_path / name).write_text(content, encoding="utf-8")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "events.csv",
        "items.csv",
        "shop.toml",
    ]
    return tmp_path


def test_the_report_is_the_one_that_the_guide_shows(shop: Path) -> None:
    report = import_table(shop / "shop.toml", shop / "data/shop")
    lines = [
        f"{title:8s} {count:>12,} {what}"
        for title, counts in (("written", report.written), ("dropped", report.dropped))
        for what, count in counts.items()
    ]
    assert "\n".join(lines) in GUIDE.read_text(encoding="utf-8")


def test_without_the_choice_the_guide_s_error_comes(shop: Path) -> None:
    text = (shop / "shop.toml").read_text().replace('drop = ["login"]\n', "")
    (shop / "shop.toml").write_text(text.replace('values = ["pv"]', 'values = ["pv", "login"]'))
    with pytest.raises(DatasetError, match="line 14: there is no item_id"):
        import_table(shop / "shop.toml", shop / "data/shop")
    assert "`line 14: there is no item_id`" in GUIDE.read_text(encoding="utf-8")


def test_from_tables_to_vectors_in_folders_with_odd_names(shop: Path) -> None:
    """Nothing takes a name for a pattern: every step of the guide, with brackets in its path."""
    odd = shop / "my [shop] *?"
    dataset, folder, bundle, snapshot = (odd / n for n in ("data", "run", "bundle", "snapshot"))
    import_table(shop / "shop.toml", dataset)
    assert inspect_dataset(dataset).summary.num_events == 21
    start_run(dataset, folder, replace(TINY, epochs=1), rank=join("cpu"), reporter=Silent())
    run = open_run(folder)
    model, _ = load_best(run)
    found = evaluate_run(run, model)
    result, users = folder / "test.json", load_user_ids(run.arrays)
    write_evaluation(found, result, user_ids=users, item_ids=run.read_items()["item_id"])
    assert compare_results(result, result)["ndcg@10"].mean == 0
    export_run(run, model, bundle=bundle, snapshot=snapshot)
    items = embed_items(bundle, dataset, odd / "items", workers=1)
    assert items.written is not None and items.written.num_rows == 7
    people = embed_users(bundle, snapshot, odd / "users", workers=1)
    assert people.written is not None and people.written.num_rows == 6
