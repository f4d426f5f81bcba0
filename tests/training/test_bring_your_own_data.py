"""docs/guides/bring-your-own-data.md is true: its files are made and imported as it says."""

import re
from pathlib import Path

import pytest

from model.errors import DatasetError
from training.importers.tables import import_table

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
