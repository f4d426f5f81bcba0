"""How well the value model orders exposures, beside the order that retrieval gives them.

`penchant evaluate-value` reads the test part here, once. Knows rankings by their scores alone, so
that a benchmark may add another model's.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from model.atomic import write_text
from model.errors import ConfigError
from model.towers import TwoTower
from training.dataset import read_items_table
from training.run import Run
from training.value.batch import Examples
from training.value.calibration import Reliability, reliability
from training.value.created import created_at
from training.value.exposures import ExposureLog, Part
from training.value.fit import predict
from training.value.inputs import item_arrays, make_examples
from training.value.kin import kin_codes
from training.value.metrics import Interval, Ranking, bootstrap
from training.value.reliability_plot import reliability_plot
from training.value.stored import PLOT, TEST, StoredValue

Float32 = npt.NDArray[np.float32]
Bool = npt.NDArray[np.bool_]
Progress = Callable[[float, str], None]

VALUE, RETRIEVAL = "value", "retrieval"
SAMPLES = 500
"""Draws of users for an interval."""


@dataclass(frozen=True, slots=True)
class HeadRankings:
    """The orders of one head's exposures: by the value model, by retrieval, and by others."""

    rankings: dict[str, Ranking]
    num_people: int
    mean_probability: float
    """The mean of what the value model says; beside the rate of positives, it tells whether
    probabilities are what they are called."""
    reliability: Reliability | None
    """The same, bin by bin; None without examples."""

    @property
    def first(self) -> Ranking:
        """The value model's."""
        return self.rankings[VALUE]

    def to_json(self) -> dict[str, Any]:
        """Counts and, for each ranking, the metrics; null where there is nothing to compare."""
        return {
            **self._counts(),
            **{
                name: {m: _or_none(v) for m, v in ranking.measure().items()}
                for name, ranking in self.rankings.items()
            },
        }

    def with_intervals(self, *, samples: int, seed: int) -> dict[str, Any]:
        """As to_json, each metric with the interval of resampled users; and how far the value
        model is above each other ranking, with the interval of that."""
        own, above = bootstrap(self.rankings, self.num_people, samples=samples, seed=seed)
        return {
            **self._counts(),
            **{name: {m: _interval(i) for m, i in found.items()} for name, found in own.items()},
            "value_above": {
                name: {m: _interval(i) for m, i in found.items()} for name, found in above.items()
            },
        }

    def _counts(self) -> dict[str, Any]:
        one = self.first
        return {
            "num_exposures": one.num_exposures,
            "num_positives": one.num_positives,
            "num_users": one.num_users,
            "mean_probability": _or_none(self.mean_probability),
            "reliability": None if self.reliability is None else asdict(self.reliability),
        }


def rank_heads(
    logits: Float32,
    examples: Examples,
    *,
    slate_logits: Float32,
    slates: Examples,
    others: Mapping[str, tuple[Float32, Float32]] | None = None,
    among: Bool | None = None,
) -> dict[str, HeadRankings]:
    """The rankings of each head over the examples whose label is known.

    logits: [N, T] of the value model. slates: the examples as Exposures.at_once has them, and
    slate_logits [N, T] of these. others: name → both scores [N, T] of other models. among: [N] the
    examples to judge by; None: all.
    """
    found = {}
    for place, head in enumerate(examples.heads):
        known = examples.known[:, place]
        if among is not None:
            known = known & among
        scores = {
            VALUE: (logits[known, place], slate_logits[known, place]),
            RETRIEVAL: (examples.scores[known], slates.scores[known]),
        }
        for name, (own, slate) in (others or {}).items():
            scores[name] = own[known, place], slate[known, place]
        labels, users = examples.labels[known, place], examples.owners[known]
        chances = 1 / (1 + np.exp(-logits[known, place].astype(np.float64)))
        found[head.name] = HeadRankings(
            {
                name: Ranking(users, labels, own, examples.num_owners, slate_scores=slate)
                for name, (own, slate) in scores.items()
            },
            examples.num_owners,
            float(chances.mean()) if len(chances) else float("nan"),
            reliability(chances, labels),
        )
    return found


def evaluate_value(
    run: Run,
    model: TwoTower,
    value: StoredValue,
    *,
    part: Part = "test",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Rank the exposures of a part by the value model and by retrieval, with intervals.

    Where a dataset has several exposure events, also those of each alone: an event of what was
    shown at random tells without the bias of what chose the others.

    Raises ConfigError for a value model that learned from candidates.
    """
    if value.config.candidates:
        raise ConfigError(
            "this value model learned from candidates, not from exposures. What it ranks is judged "
            f"by whole lists: penchant evaluate {run.path}."
        )
    say = progress or (lambda done, what: None)
    say(0.0, "read exposures")
    # The heads as they were learned, whatever dataset.toml declares by now.
    exposures = ExposureLog(run, heads=value.heads).read(part)
    say(0.1, "run the item tower")
    items = item_arrays(run, model, value.stats)
    config = value.network.config
    table = read_items_table(run.dataset)
    kin = kin_codes(table, config.kin, vectors=items.vectors.numpy(), seed=run.config.seed)
    created = created_at(run, table) if config.reads_age else None
    examples = make_examples(
        run,
        model,
        exposures,
        items.vectors,
        kin=kin,
        created=created,
        progress=lambda d, what: say(0.1 + 0.4 * d, what),
    )
    slates = make_examples(
        run,
        model,
        exposures.at_once(),
        items.vectors,
        kin=kin,
        created=created,
        progress=lambda d, what: say(0.5 + 0.1 * d, what),
    )
    say(0.6, "run the value model")
    logits, slate_logits = (
        predict(value.network, items, asked, max_history=value.config.max_history)
        for asked in (examples, slates)
    )
    judged: dict[str, Bool | None] = {"": None}
    ways = [way for way in np.unique(exposures.shown_as).tolist() if len(exposures.ways) > 1]
    judged |= {exposures.ways[way]: exposures.shown_as == way for way in ways}
    heads: dict[str, dict[str, Any]] = {}
    for number, (way, among) in enumerate(judged.items()):
        rankings = rank_heads(
            logits, examples, slate_logits=slate_logits, slates=slates, among=among
        )
        say(0.7 + 0.3 * number / len(judged), f"resample users {way}".rstrip())
        heads[way] = {
            name: ranking.with_intervals(samples=SAMPLES, seed=value.config.seed)
            for name, ranking in rankings.items()
        }
    say(1.0, "done")
    return {
        "dataset": run.data.schema.name,
        "split": run.split.kind,
        "part": part,
        "samples": SAMPLES,
        "heads": heads.pop(""),
        "shown_as": heads,
    }


def write_test(run: Run, found: Mapping[str, Any]) -> None:
    """Write RUN/value/test.json and the reliability plot, each whole or not at all."""
    write_text(run.path / TEST, json.dumps(found, indent=1) + "\n")
    write_text(run.path / PLOT, reliability_plot(found["heads"], title="The test part"))


def _interval(interval: Interval) -> dict[str, float | None]:
    return {name: _or_none(value) for name, value in asdict(interval).items()}


def _or_none(value: float) -> float | None:
    """JSON has no NaN."""
    return value if math.isfinite(value) else None
