"""A run from dataset to checkpoints: golden losses, refusals, and that truth/ is never read."""

import ast
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from model.errors import CheckpointError, ConfigError, DatasetError
from tests.training.conftest import Exported, Trained
from tests.training.contract import Dataset, events_of
from tests.training.tiny import TINY, Silent, whole_batch
from training.checkpoint import load_checkpoint, save_checkpoint
from training.dataset import load_user_ids
from training.distributed import join
from training.evaluate import validation_metrics
from training.export import export_run
from training.run import (
    BEST,
    LAST,
    load_best,
    open_run,
    prepare_run,
    refuse_folder,
    start_run,
)
from training.step_loss import StepLoss

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = Path(__file__).parent / "golden"


def test_losses_are_the_golden_ones(trained: Trained, world: Path, tmp_path: Path) -> None:
    """A refactor keeps them. Where training changes on purpose, write the new ones, and say why."""
    golden: dict[str, Any] = json.loads((GOLDEN / "losses.json").read_text())
    assert trained.progress.losses == pytest.approx(golden["sampled"], abs=1e-3)
    full = replace(TINY, content=False, loss="full", num_interests=1, epochs=3)
    progress = start_run(world, tmp_path / "run", full, rank=join("cpu"), reporter=Silent())
    assert progress.losses == pytest.approx(golden["full"], abs=1e-3)


def test_a_run_leaves_what_it_says(trained: Trained, world: Path) -> None:
    names = {p.relative_to(trained.path).as_posix() for p in trained.path.rglob("*.*")}
    assert {"run.json", "encoder.json", BEST, LAST} <= names
    assert not [name for name in names if "partial" in name]
    run = trained.open()
    assert (run.config, run.dataset) == (TINY, world.resolve())
    model, progress = load_best(run)
    assert progress.epoch == trained.progress.best_epoch and not model.training
    best = trained.reporter.metrics[progress.epoch - 1]
    assert best is not None and best["ndcg@10"] == trained.progress.best_score
    # Validated again, the best weights score what they scored.
    again = validation_metrics(run, model)
    assert again == pytest.approx(dict(best))


def test_ids_without_a_training_event_are_never_trained(trained: Trained) -> None:
    run = trained.open()
    events = run.split.training.popularity()
    codes = run.items.id_codes.numpy()
    assert ((codes == 0) == (events == 0)).all() and (codes[events > 0] > 0).all()
    assert len(set(codes[codes > 0])) == (codes > 0).sum() and 0 < (codes == 0).sum() < len(codes)


def start(dataset: Path, path: Path, **given: Any) -> None:
    config = given.pop("config", TINY)
    start_run(dataset, path, config, rank=join("cpu"), reporter=Silent(), **given)


def test_a_folder_that_holds_a_run_is_not_overwritten(trained: Trained, world: Path) -> None:
    before = (trained.path / LAST).read_bytes()
    with pytest.raises(ConfigError, match=r"holds a run already\. Go on with it by --resume"):
        start(world, trained.path)
    with pytest.raises(ConfigError, match="was started with another config"):
        start(world, trained.path, config=replace(TINY, seed=3), resume=True)
    # A finished run has nothing left to do; another limit of minutes is no other config.
    start(world, trained.path, config=replace(TINY, max_minutes=99), resume=True)
    assert (trained.path / LAST).read_bytes() == before


def test_a_damaged_or_foreign_checkpoint_is_refused(trained: Trained, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(trained.path, copy)
    tensors, state = load_checkpoint(copy / LAST)
    state["tower"]["num_layers"] += 1
    for name in (LAST, BEST):
        save_checkpoint(copy / name, tensors, state)
    with pytest.raises(CheckpointError, match=r"was made by other towers than run\.json says"):
        start(trained.open().dataset, copy, resume=True)
    with pytest.raises(CheckpointError, match=r"was made by other towers than run\.json says"):
        load_best(open_run(copy))
    content = (trained.path / LAST).read_bytes()
    (copy / LAST).write_bytes(content[:-100])
    with pytest.raises(CheckpointError, match="damaged or not a Penchant checkpoint"):
        start(trained.open().dataset, copy, resume=True)
    (copy / BEST).unlink()
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        load_best(open_run(copy))


def test_what_is_no_run_or_has_lost_its_dataset_is_refused(
    trained: Trained, world: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="holds no run"):
        open_run(tmp_path)
    with pytest.raises(ConfigError, match="is gone; name where it is with --dataset"):
        open_run(trained.path, dataset=tmp_path / "gone")
    copy, run = tmp_path / "world", tmp_path / "run"
    shutil.copytree(world, copy)
    shutil.copytree(trained.path, run)
    assert open_run(run, dataset=copy).dataset == copy
    shutil.copy(_more_items(world, tmp_path), copy / "items.parquet")
    with pytest.raises(ConfigError, match="its items, their order or its"):
        open_run(run, dataset=copy)


def _more_items(world: Path, folder: Path) -> Path:
    items = pl.read_parquet(world / "items.parquet")
    added = items.tail(1).with_columns(item_id=pl.lit("one-more"))
    pl.concat([items, added]).write_parquet(folder / "items.parquet")
    return folder / "items.parquet"


def test_without_its_truth_a_world_teaches_the_same(
    trained: Trained, exported: Exported, world: Path, tmp_path: Path
) -> None:
    blind = tmp_path / "world"
    shutil.copytree(world, blind)
    shutil.rmtree(blind / "truth")
    progress = start_run(blind, tmp_path / "run", TINY, rank=join("cpu"), reporter=Silent())
    assert progress.losses == trained.progress.losses
    run, seeing = open_run(tmp_path / "run"), trained.open()
    model, _ = load_best(run)
    for name, value in load_best(seeing)[0].state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name
    report = export_run(run, model, bundle=tmp_path / "bundle", snapshot=tmp_path / "snapshot")
    assert report.metrics == exported.report.metrics
    for name in ("vectors.npy", "items.arrow", "index.faiss", "circles.parquet", "gate.parquet"):
        assert (tmp_path / "bundle" / name).read_bytes() == (exported.bundle / name).read_bytes()
    for name in ("users.parquet", "histories.parquet"):
        theirs = (exported.snapshot / name).read_bytes()
        assert (tmp_path / "snapshot" / name).read_bytes() == theirs


def test_no_module_but_the_world_names_truth() -> None:
    """Strings that are code, not documentation: a path would have to be one of them."""
    found = set()
    for path in sorted(
        p for name in ("model", "training", "serving") for p in (ROOT / name).rglob("*.py")
    ):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        documentation = {
            id(node.value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        }
        for node in ast.walk(tree):
            if (
                isinstance(node, ast.Constant)
                and isinstance(node.value, str)
                and "truth" in node.value
                and id(node) not in documentation
            ):
                found.add(path.relative_to(ROOT).as_posix())
    assert "training/world/simulate.py" in found  # so the search works
    assert all(name.startswith("training/world/") for name in found), found


def test_profiles_of_users_without_a_row_are_unknown(trained: Trained, tmp_path: Path) -> None:
    run = trained.open()
    copy = tmp_path / "world"
    shutil.copytree(run.dataset, copy)
    users = pl.read_parquet(copy / "users.parquet")
    users.head(len(users) // 2).write_parquet(copy / "users.parquet")
    shutil.copytree(trained.path, tmp_path / "run")
    half = open_run(tmp_path / "run", dataset=copy)
    listed = set(users.head(len(users) // 2)["user_id"])
    known = np.array([name in listed for name in load_user_ids(run.arrays)])
    assert 0 < known.sum() < len(known)
    for name, value in run.profiles.items():
        assert torch.equal(half.profiles[name][known], value[known])
        assert not half.profiles[name][~known].any()


def test_a_run_knows_when_its_dataset_was_changed(
    trained: Trained, world: Path, tmp_path: Path
) -> None:
    copy, run = tmp_path / "world", tmp_path / "run"
    shutil.copytree(world, copy)
    shutil.copytree(trained.path, run)
    items = pl.read_parquet(copy / "items.parquet")
    items.reverse().write_parquet(copy / "items.parquet")
    with pytest.raises(ConfigError, match="is not what the run"):
        open_run(run, dataset=copy)
    items.write_parquet(copy / "items.parquet")
    assert open_run(run, dataset=copy).data.num_items == len(items)
    part = next((copy / "events").glob("part-*.parquet"))
    events = pl.read_parquet(part)
    events.head(len(events) // 2).write_parquet(part)
    with pytest.raises(ConfigError, match="is not what the run"):
        open_run(run, dataset=copy)
    part.write_bytes(part.read_bytes()[:-100])
    with pytest.raises(DatasetError, match="part-"):
        open_run(run, dataset=copy)
    (run / "run.json").write_text('{"config": ')
    with pytest.raises(ConfigError, match=r"run.json is damaged"):
        open_run(run, dataset=copy)


def test_folders_in_which_no_run_can_start(trained: Trained, tmp_path: Path) -> None:
    refuse_folder(tmp_path / "new", resume=False)
    refuse_folder(trained.path, resume=True)
    with pytest.raises(ConfigError, match="no run to go on with"):
        refuse_folder(tmp_path / "new", resume=True)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"notes\.txt"):
        refuse_folder(tmp_path, resume=False)
    with pytest.raises(ConfigError, match="is a file"):
        refuse_folder(tmp_path / "notes.txt", resume=False)


def test_a_run_of_another_version_says_so(trained: Trained, tmp_path: Path) -> None:
    old = tmp_path / "old"
    shutil.copytree(trained.path, old)
    body = json.loads((old / "run.json").read_text())
    for part in ("tower", "config"):
        changed = {**body, part: {**body[part], "new_item_weight": 1.5}}
        (old / "run.json").write_text(json.dumps(changed))
        says = f"{old} was made by another version: unknown field 'new_item_weight'"
        with pytest.raises(ConfigError, match=re.escape(says)):
            open_run(old)


def test_towers_that_would_learn_from_nothing_are_refused(world: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with pytest.raises(ConfigError, match=r"no `targets` are named.*--target"):
        prepare_run(world, folder, replace(TINY, other_weight=0.5))
    config = replace(TINY, targets=("like",), other_weight=0.5)
    worthless = tmp_path / "worthless"
    shutil.copytree(world, worthless)
    text = (worthless / "dataset.toml").read_text()
    assert 'like = { role = "engagement", weight = 2.0 }' in text
    (worthless / "dataset.toml").write_text(text.replace("weight = 2.0", "weight = 0.0"))
    with pytest.raises(ConfigError, match=r"no event of the training part weighs anything"):
        prepare_run(worthless, folder, replace(config, other_weight=0))
    prepare_run(world, folder, config)
    run = open_run(folder)
    is_like = run.data.events == run.data.schema.history_events.index("like") + 1
    learned = run.split.learned
    expected = np.where(is_like, 1, 0.5) * run.data.weights
    assert 0 < (is_like & learned).sum() < learned.sum()
    assert run.targets.weights.tolist() == pytest.approx(expected[learned].tolist())


def test_each_event_has_a_head_that_learns_from_it_alone(world: Path, tmp_path: Path) -> None:
    config = replace(TINY, event_heads=True, targets=("click",), epochs=1)
    start_run(world, tmp_path / "run", config, rank=join("cpu"), reporter=Silent())
    run = open_run(tmp_path / "run")
    # What is asked for first, then conversions, then as the dataset has them.
    names = ("click", "order", "watch", "like", "follow", "cart")
    assert run.tower.objectives == names and run.heads is not None
    known = run.data.schema.history_events
    assert [names[head] for head in run.heads[1:]] == list(known)
    model, _ = load_best(run)
    assert model.user_tower.heads is not None
    for name in ("watch", "cart"):
        # A batch whose targets weigh nothing but where they are of this event.
        data = run.targets.weighing_others((name,), 0)
        batch = whole_batch(data, max_history=config.max_history, heads=run.heads)
        model.zero_grad()
        StepLoss(model, run.items, run.profiles, config.temperature)(batch).backward()
        found = model.user_tower.heads.grad
        assert found is not None
        moved = (found.abs().amax(dim=(1, 2)) > 0).nonzero().squeeze(1).tolist()
        assert moved == [names.index(name)]


def test_a_split_that_asks_for_nothing_is_refused_before_training(
    good: Dataset, tmp_path: Path
) -> None:
    """Validation would say so after the first epoch, and export after the last one."""
    good.write()
    with pytest.raises(DatasetError, match=r"validation part .* asks for nothing"):
        start_run(good.folder, tmp_path / "run", TINY, rank=join("cpu"), reporter=Silent())
    assert not (tmp_path / "run/run.json").exists()
    # Something to validate on, and nothing to test on.
    days: list[tuple[str, str, str, float | None]] = [
        (user, item, "watch", 1.0) for user in ("ann", "bo") for item in ("film", "room")
    ]
    good.parts = [events_of(100, days).with_columns(split=pl.Series(["train", "validation"] * 2))]
    good.parts.append(events_of(200, days[:1]).with_columns(split=pl.lit("test")))
    good.folder = good.folder.with_name("published")
    good.write()
    with pytest.raises(DatasetError, match=r"test part .* asks for nothing .* seen"):
        start_run(good.folder, tmp_path / "run", TINY, rank=join("cpu"), reporter=Silent())


@pytest.mark.parametrize(("kinds", "told"), [(["video"], ()), (["video", "live"], ("kind",))])
def test_one_kind_alone_is_no_content(tmp_path: Path, kinds: list[str], told: Any) -> None:
    """As content it would be a vector that all items share, which hides what tells them apart."""
    ids = [f"i{n}" for n in range(60)]
    dataset = Dataset(
        folder=tmp_path / "dataset",
        toml='format = 1\nname = "bare"\ntime = "none"\n\n'
        '[events]\nview = { role = "engagement" }\nbuy = { role = "conversion" }\n',
        items=pl.DataFrame(
            {"item_id": ids, "kind": [kinds[n % len(kinds)] for n in range(60)], "title": ids}
        ),
        users=None,
        links=None,
        parts=[
            pl.DataFrame(
                {
                    "event_id": [f"e{n}" for n in range(60)],
                    "user_id": [f"u{n % 6}" for n in range(60)],
                    "item_id": ids,
                    "event": ["buy" if n % 4 == 0 else "view" for n in range(60)],
                }
            )
        ],
    )
    dataset.write()
    prepare_run(dataset.folder, tmp_path / "run", replace(TINY, split="leave-one-out"))
    tower = json.loads((tmp_path / "run" / "run.json").read_text())["tower"]
    assert tuple(spec["name"] for spec in tower["item_features"]) == told
    assert (tower["id_dropout"] == 0) == (not told)
