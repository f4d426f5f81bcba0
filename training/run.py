"""A run: the folder that training leaves behind, and how one is started, resumed and opened.

run/run.json            config, towers, dataset
run/encoder.json        vocabularies and statistics
run/arrays/             the dataset's events as memory-mapped arrays
run/checkpoints/        last.safetensors, best.safetensors
run/metrics.jsonl       one line an epoch
run/tensorboard/
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from model.atomic import write_text
from model.config import FeatureSpec, TowerConfig, tower_from_json, tower_to_json
from model.encode import Column, Encoder, fit_encoder, read_encoder
from model.errors import CheckpointError, ConfigError
from model.schema import Schema
from model.towers import TwoTower
from training.checkpoint import load_checkpoint, save_checkpoint, unpack_optimizer
from training.config import RunConfig, run_from_json, run_to_json
from training.dataset import (
    Interactions,
    data_digest,
    load_interactions,
    load_user_ids,
    read_items_table,
    read_users_table,
)
from training.distributed import Rank
from training.evaluate import validation_metrics
from training.future import conversions_of, objectives_of, require_future
from training.loop import Progress, Reporter, make_optimizer, progress_to_json, train
from training.new_items import weigh_new_items
from training.splits import Int64, Part, Split, split_events
from training.step_loss import ItemInputs
from training.text_init import start_from_texts

_OURS = {
    "run.json",
    "encoder.json",
    "arrays",
    "checkpoints",
    "metrics.jsonl",
    "tensorboard",
    "value",
}
_OURS |= {f"{part}.{end}" for part in ("test", "validation") for end in ("json", "parquet", "html")}
LAST, BEST = "checkpoints/last.safetensors", "checkpoints/best.safetensors"


@dataclass(frozen=True, slots=True)
class Run:
    """An opened run: its config, its dataset's arrays, and how items and users are encoded."""

    path: Path
    dataset: Path
    config: RunConfig
    tower: TowerConfig
    encoder: Encoder
    data: Interactions
    split: Split
    items: ItemInputs
    profiles: dict[str, Tensor]

    @property
    def arrays(self) -> Path:
        """The cache of load_interactions."""
        return self.path / "arrays"

    @property
    def targets(self) -> Interactions:
        """What the towers learn from, weighed as the config says."""
        return _weighed(self.split.training, self.config)

    @property
    def heads(self) -> Int64 | None:
        """[E + 1] the head that answers for each event code; None where one answers for all."""
        if not self.config.event_heads:
            return None
        names = self.data.schema.history_events
        return np.array([0, *map(self.tower.objectives.index, names)], np.int64)

    def read_items(self) -> pa.Table:
        """items.parquet; row i is item row i."""
        return read_items_table(self.dataset)


def _weighed(training: Interactions, config: RunConfig) -> Interactions:
    """Repeats weigh nothing unless the config learns them; what is not asked for weighs as much as
    it says. Raises ConfigError if nothing weighs anything."""
    if config.other_weight != 1:
        if not config.targets:
            raise ConfigError(
                f"other_weight is {config.other_weight:g}, and no `targets` are named: there are "
                "no others. Name the events that are asked for with --target."
            )
        training = training.weighing_others(config.targets, config.other_weight)
    if not config.learn_repeats:
        training = training.without_repeats()
    if not (training.weights > 0).any():
        raise ConfigError(
            f"no event of the training part weighs anything as a target, with other_weight = "
            f"{config.other_weight:g} and learn_repeats = {config.learn_repeats}: all of "
            f"{', '.join(config.targets) or 'them'} are held out, or repeat an item. Allowed: an "
            "other_weight above 0, learn_repeats = true."
        )
    return training


def start_run(
    dataset: Path,
    path: Path,
    config: RunConfig,
    *,
    rank: Rank,
    reporter: Reporter,
    resume: bool = False,
) -> Progress:
    """Train on a dataset into the folder `path`; with resume, go on where its checkpoint stands.

    Raises ConfigError if `path` holds another run (or any run, without resume), DatasetError if the
    dataset is broken, CheckpointError if a checkpoint is damaged.
    """
    # Rank 0 looks for all: another that is slow may look when rank 0 has written the folder.
    if rank.agree((path / LAST).exists()):
        if not resume:
            raise ConfigError(
                f"{path} holds a run already. Go on with it by --resume, or name another folder."
            )
        held, _ = _configs_of(path, _read_json(path / "run.json"))
        if replace(held, max_minutes=None) != replace(config, max_minutes=None):
            raise ConfigError(
                f"{path} was started with another config: {_difference(held, config)}."
            )
    elif rank.leads:
        prepare_run(dataset, path, config)
    rank.agree(True)  # the others wait here until rank 0 has written the folder
    run = open_run(path, device=rank.device, dataset=dataset)
    torch.manual_seed(config.seed)
    model = TwoTower(run.tower).to(rank.device)
    optimizer = make_optimizer(model, config)
    progress = Progress()
    if resume and (path / LAST).exists():
        tensors, state = load_checkpoint(path / LAST)
        _require_towers(state, run.tower, path / LAST)
        model.load_state_dict({k: v for k, v in tensors.items() if not k.startswith("optimizer.")})
        unpack_optimizer(optimizer, [name for name, _ in model.named_parameters()], tensors)
        progress = Progress(**state["progress"])
    elif config.text_start:
        start_from_texts(
            model.item_tower, run.items.features, length=config.text_start, seed=config.seed
        )
    data = run.targets

    def validate(trained: TwoTower) -> Mapping[str, float]:
        weigh_new_items(run, trained, config.new_item_share)
        return validation_metrics(run, trained)

    def save(
        weights: Mapping[str, Tensor],
        moments: dict[str, Tensor],
        progress: Progress,
        is_best: bool,
    ) -> None:
        state = {"progress": progress_to_json(progress), "tower": tower_to_json(run.tower)}
        if is_best:
            save_checkpoint(path / BEST, weights, state)
        save_checkpoint(path / LAST, {**weights, **moments}, state)

    return train(
        model,
        data,
        run.items,
        config,
        objectives=objectives_of(run),
        profiles=run.profiles,
        popularity=data.popularity().astype(np.float64),
        rank=rank,
        validate=validate,
        save=save,
        report=reporter,
        progress=progress,
        optimizer=optimizer,
        has_order=data.schema.has_order,
        heads=run.heads,
    )


def refuse_folder(path: Path, *, resume: bool) -> None:
    """Raise ConfigError if a run cannot be started (or gone on with) in this folder."""
    if path.exists() and not path.is_dir():
        raise ConfigError(f"{path} is a file; name a folder.")
    if resume and not (path / LAST).exists():
        raise ConfigError(f"{path} holds no run to go on with; leave out --resume to start one.")
    foreign = [p.name for p in path.iterdir() if p.name not in _OURS] if path.exists() else []
    if foreign:
        raise ConfigError(
            f"{path} holds what is no run's ({sorted(foreign)[0]}); name another folder."
        )


def open_run(path: Path, *, device: torch.device | None = None, dataset: Path | None = None) -> Run:
    """Open a run folder. dataset: where the dataset is now, if it moved.

    Raises ConfigError if `path` is no run, or its dataset is gone or has other items.
    """
    if not (path / "run.json").exists():
        raise ConfigError(f"{path} holds no run (no run.json). `penchant train` makes one.")
    body = _read_json(path / "run.json")
    dataset = dataset or Path(body["dataset"])
    if not (dataset / "dataset.toml").exists():
        raise ConfigError(f"the run's dataset {dataset} is gone; name where it is with --dataset.")
    encoder = read_encoder(path / "encoder.json")
    data = load_interactions(dataset, path / "arrays")
    config, tower = _configs_of(path, body)
    items = read_items_table(dataset)
    if data_digest(data, items["item_id"]) != body["data"]:
        raise ConfigError(
            f"{dataset} is not what the run in {path} was made for: its items, their order or its "
            "events were changed. Start a new run."
        )
    place = device or torch.device("cpu")
    split = split_events(data, config)
    trained = split.training.popularity() > 0
    codes = torch.from_numpy(np.where(trained, np.arange(1, data.num_items + 1), 0))
    features = _as_tensors(encoder.encode_items(items)) if tower.item_features else {}
    return Run(
        path=path,
        dataset=dataset,
        config=config,
        tower=tower,
        encoder=encoder,
        data=data,
        split=split,
        items=ItemInputs(features, codes, place),
        profiles={k: v.to(place) for k, v in _profiles(dataset, path, encoder, tower).items()},
    )


def load_best(run: Run, device: torch.device | None = None) -> tuple[TwoTower, Progress]:
    """The best weights of a run, in evaluation mode. Raises CheckpointError if there are none."""
    tensors, state = load_checkpoint(run.path / BEST)
    _require_towers(state, run.tower, run.path / BEST)
    model = TwoTower(run.tower)
    model.load_state_dict(tensors)
    return model.to(device or torch.device("cpu")).eval(), Progress(**state["progress"])


def _read_json(path: Path) -> dict[str, Any]:
    try:
        body: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{path} is damaged ({error}). Start a new run.") from None
    return body


def _configs_of(path: Path, body: Mapping[str, Any]) -> tuple[RunConfig, TowerConfig]:
    try:
        return run_from_json(body["config"]), tower_from_json(body["tower"])
    except ConfigError as error:
        raise ConfigError(f"{path} was made by another version: {error} Start a new run.") from None


def _difference(held: RunConfig, given: RunConfig) -> str:
    """The fields in which two configs differ, in words."""
    before, now = run_to_json(held), run_to_json(given)
    return ", ".join(
        f"{name} is {before[name]!r} in the run and {now[name]!r} now"
        for name in before
        if before[name] != now[name] and name != "max_minutes"
    )


def _require_towers(state: Mapping[str, Any], tower: TowerConfig, checkpoint: Path) -> None:
    if tower_from_json(state["tower"]) != tower:
        raise CheckpointError(f"{checkpoint} was made by other towers than run.json says.")


def prepare_run(dataset: Path, path: Path, config: RunConfig) -> None:
    """Write a new run folder: arrays, encoder and run.json, the last one last."""
    path.mkdir(parents=True, exist_ok=True)
    data = load_interactions(dataset, path / "arrays")
    # Or raise before anything is trained.
    split = split_events(data, config)
    _weighed(split.training, config)
    require_future(data.schema, config, split.kind)
    for part in get_args(Part):
        split.questions(part, seen=config.seen)
    schema = data.schema
    items = read_items_table(dataset)
    encoder = fit_encoder(schema, items, read_users_table(dataset))
    encoder.write(path / "encoder.json")
    # One kind alone tells no item from another: as content it would be a vector that all share, and
    # the towers would learn many times slower what tells them apart.
    tells = len(encoder.item_columns) > 1 or len(items["kind"].unique()) > 1
    tower = config.tower(
        num_items=data.num_items,
        num_events=len(schema.history_events),
        item_features=_specs(encoder.item_columns) if tells else (),
        profile_features=_specs(encoder.profile_columns),
        has_order=schema.has_order,
        has_times=schema.has_times,
        heads=_heads(schema, config.targets),
    )
    body = {
        "config": run_to_json(config),
        "tower": tower_to_json(tower),
        "dataset": str(dataset.resolve()),
        "dataset_name": schema.name,
        "data": data_digest(data, items["item_id"]),
        "torch": torch.__version__,
    }
    write_text(path / "run.json", json.dumps(body, indent=1))


def _heads(schema: Schema, targets: tuple[str, ...]) -> tuple[str, ...]:
    """The events that enter histories: those asked for first, then conversions."""
    conversions = conversions_of(schema)
    return tuple(
        sorted(
            schema.history_events,
            key=lambda name: (
                targets.index(name) if name in targets else len(targets),
                name not in conversions,
            ),
        )
    )


def _specs(columns: Mapping[str, Column]) -> tuple[FeatureSpec, ...]:
    return tuple(
        FeatureSpec(name=name, type=column.feature.type, size=column.array_size)
        for name, column in columns.items()
    )


def _profiles(dataset: Path, path: Path, encoder: Encoder, tower: TowerConfig) -> dict[str, Tensor]:
    """Encoded user features by user row."""
    if not tower.profile_features:
        return {}
    users = read_users_table(dataset)
    assert users is not None  # profile features were fitted on it
    return encode_profiles(encoder, users, load_user_ids(path / "arrays"))


def encode_profiles(encoder: Encoder, users: pa.Table, names: list[str]) -> dict[str, Tensor]:
    """Encoded features of the users of these ids, in order; one without a row in `users` (that is
    users.parquet) has none known."""
    known = {name: row for row, name in enumerate(users["user_id"].to_pylist())}
    rows = np.array([known.get(name, -1) for name in names], np.int64)
    encoded = encoder.encode_profiles(users)
    return _as_tensors(
        {
            name: np.where((rows < 0).reshape(-1, *[1] * (values.ndim - 1)), 0, values[rows])
            for name, values in encoded.items()
        }
    )


def _as_tensors(arrays: Mapping[str, Any]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in arrays.items()}
