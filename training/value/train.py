"""A run's towers, and its exposures or candidates, become a value model in RUN/value."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from model.config import ValueConfig
from model.errors import ConfigError
from model.towers import TwoTower
from model.value import ValueNetwork
from training.dataset import read_items_table
from training.run import Run
from training.value.batch import Examples
from training.value.config import ValueRunConfig
from training.value.created import created_at
from training.value.evaluate import HeadRankings, rank_heads
from training.value.exposures import ExposureLog, Exposures
from training.value.fit import fit_network, predict
from training.value.from_candidates import counts_of, fit_and_choose
from training.value.inputs import ItemArrays, item_arrays, make_examples, read_features
from training.value.item_stats import ItemStats, count_stats
from training.value.kin import kin_codes, kin_columns
from training.value.stored import StoredValue, save_value

Int64 = npt.NDArray[np.int64]
Progress = Callable[[float, str], None]


@dataclass(frozen=True, slots=True)
class ValueReport:
    """What was trained."""

    value: StoredValue
    choosing: dict[str, HeadRankings]
    """Head → how the value model and the retrieval order do on the choosing day."""
    notes: list[str]
    """What was left out, in words."""


@dataclass(frozen=True, slots=True)
class _Material:
    """All that a fit needs."""

    stats: ItemStats
    items: ItemArrays
    fit: Examples
    choose: Examples
    slates: Examples
    """As `choose`, each user asked at one moment."""
    parts: dict[str, dict[str, Any]]
    notes: list[str]


def train_value(
    run: Run, model: TwoTower, config: ValueRunConfig, *, progress: Progress | None = None
) -> ValueReport:
    """Train a value model on the frozen towers of a run, and write it into RUN/value.

    model: the run's towers, on the CPU, in evaluation mode.

    Raises ConfigError or DatasetError where the dataset or its split leaves nothing to learn from.
    """
    say = progress or (lambda done, what: None)
    gather = _from_candidates if config.candidates else _from_exposures
    found = gather(run, model, config, lambda done, what: say(0.4 * done, what))
    table = read_items_table(run.dataset)
    kin, reads_age = _kin_columns(run, config), created_at(run, table) is not None
    torch.manual_seed(config.seed)
    heads = tuple(head.name for head in found.fit.heads)
    network = ValueNetwork(
        network_config(run, config, heads, found.stats, kin=kin, reads_age=reads_age)
    )
    fitted = fit_network(
        network,
        found.items,
        found.fit,
        found.choose,
        config,
        progress=lambda done, what: say(0.4 + 0.58 * done, what),
    )
    logits, slate_logits = (
        predict(network, found.items, examples, max_history=config.max_history)
        for examples in (found.choose, found.slates)
    )
    choosing = rank_heads(logits, found.choose, slate_logits=slate_logits, slates=found.slates)
    facts: dict[str, Any] = {
        "parts": found.parts,
        "notes": found.notes,
        "choosing_day": {name: ranking.to_json() for name, ranking in choosing.items()},
        "best_epoch": fitted.best_epoch,
        "losses": fitted.losses,
        "choosing_losses": fitted.choosing_losses,
        "calibration": {name: asdict(line) for name, line in zip(heads, fitted.lines, strict=True)},
        "seconds": fitted.seconds,
    }
    value = StoredValue(network, config, found.fit.heads, found.stats, facts)
    save_value(run, value)
    say(1.0, "done")
    return ValueReport(value, choosing, found.notes)


def _from_exposures(run: Run, model: TwoTower, config: ValueRunConfig, say: Progress) -> _Material:
    """What was shown in the validation part."""
    say(0.0, "read exposures")
    log = ExposureLog(run)
    parts = {part: log.read(part) for part in ("before", "fit", "choose")}
    kept, notes = _heads_to_learn(parts["fit"])
    parts = {name: part.with_heads(kept) for name, part in parts.items()}
    notes += _left_out(log, parts)
    if not parts["choose"].known.any():
        notes.append(
            "no label of the choosing day can be told, so nothing says when to stop: it is trained "
            f"for all {config.epochs} epochs. Hold out more days, or declare shorter windows."
        )
    stats = count_stats(run.split.training, parts["before"])
    say(0.25, "run the item tower")
    items = item_arrays(run, model, stats)
    examples = {}
    table, columns = read_items_table(run.dataset), _kin_columns(run, config)
    kin = kin_codes(table, columns, vectors=items.vectors.numpy(), seed=run.config.seed)
    created = created_at(run, table)
    shown = {"fit": parts["fit"], "choose": parts["choose"], "slates": parts["choose"].at_once()}
    for name, begin, share in (("fit", 0.25, 0.5), ("choose", 0.75, 0.17), ("slates", 0.92, 0.08)):
        examples[name] = make_examples(
            run,
            model,
            shown[name],
            items.vectors,
            kin=kin,
            created=created,
            progress=lambda done, what, b=begin, s=share: say(b + s * done, what),  # type: ignore[misc]
        )
    counts = {name: _counts(parts[name]) for name in parts}
    return _Material(stats, items, **examples, parts=counts, notes=notes)


def _from_candidates(run: Run, model: TwoTower, config: ValueRunConfig, say: Progress) -> _Material:
    """What might be shown to users whom validation asks."""
    say(0.0, "count item statistics")
    stats = count_stats(run.split.training, None)
    items = item_arrays(run, model, stats)
    fit, choose, notes = fit_and_choose(run, model, items, config, progress=say)
    parts = {"fit": counts_of(fit), "choose": counts_of(choose)}
    return _Material(stats, items, fit, choose, choose, parts, notes)


def _kin_columns(run: Run, config: ValueRunConfig) -> tuple[str, ...]:
    table = read_items_table(run.dataset)
    return kin_columns(table, run.data.schema, most=config.num_kin)


def network_config(
    run: Run,
    config: ValueRunConfig,
    heads: tuple[str, ...],
    stats: ItemStats,
    *,
    kin: tuple[str, ...],
    reads_age: bool,
) -> ValueConfig:
    """The network of a run. kin: columns of kin_columns."""
    return ValueConfig(
        vector_dim=run.tower.dim,
        num_interests=run.tower.num_interests,
        num_events=run.tower.num_events,
        heads=heads,
        stats=stats.names,
        item_features=read_features(run),
        profile_features=run.tower.profile_features,
        has_order=run.data.schema.has_order,
        has_times=run.data.schema.has_times,
        kin=kin,
        reads_age=reads_age,
        bottom=config.bottom,
        num_experts=config.num_experts,
        dim=config.dim,
        max_history=config.max_history,
        attention_heads=config.attention_heads,
        hidden=config.hidden,
        dropout=config.dropout,
        profile_dropout=config.profile_dropout,
    )


def _heads_to_learn(fit: Exposures) -> tuple[tuple[str, ...], list[str]]:
    """The heads that came true, and did not, among the exposures to fit; and why others cannot be
    learned. Raises ConfigError where none is left."""
    kept: list[str] = []
    notes: list[str] = []
    for place, head in enumerate(fit.heads):
        known = fit.known[:, place]
        positives = int((fit.labels[:, place] & known).sum())
        if 0 < positives < known.sum():
            kept.append(head.name)
        elif not known.any():
            notes.append(
                f"head {head.name!r} is left out: its window of {head.window_days:g} days is over "
                "for no exposure to fit before the test part begins. Hold out more days, or "
                "declare a shorter window."
            )
        else:
            what = "all" if positives else "none"
            notes.append(
                f"head {head.name!r} is left out: {what} of {int(known.sum()):,} exposures to fit "
                "led to it."
            )
    if not kept:
        raise ConfigError("no head can be learned. " + " ".join(notes))
    return tuple(kept), notes


def _left_out(log: ExposureLog, parts: dict[str, Exposures]) -> list[str]:
    notes = []
    if log.num_undated:
        notes.append(
            f"{log.num_undated:,} exposures without a time are in no part: when they were is not "
            "known."
        )
    for name, part in parts.items():
        for place, head in enumerate(part.heads):
            open_ = int((~part.known[:, place]).sum())
            if open_:
                notes.append(
                    f"head {head.name!r}, part {name!r}: {open_:,} of {len(part.items):,} "
                    "exposures are left out, for their window was not over."
                )
    return notes


def _counts(part: Exposures) -> dict[str, Any]:
    """How many exposures, users and positives a part has."""
    return {
        "exposures": len(part.items),
        "users": len(np.unique(part.owners)),
        "positives": {
            head.name: int((part.labels[:, place] & part.known[:, place]).sum())
            for place, head in enumerate(part.heads)
        },
        "known": {
            head.name: int(part.known[:, place].sum()) for place, head in enumerate(part.heads)
        },
    }
