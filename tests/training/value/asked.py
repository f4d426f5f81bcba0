"""A run on a log of twenty days, and what it tells of one user's exposures."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from tests.training.tiny import TINY
from tests.training.value.shown import act
from training.config import RunConfig
from training.run import Run, open_run, prepare_run
from training.value.exposures import ExposureLog, Exposures, Part

BY_TIME = replace(TINY, split="time", holdout_days=4)
"""Of a log of 20 days: test is the last 4, validation the 4 before, and its last day chooses."""


def run_on(dataset: Path, config: RunConfig = BY_TIME) -> Run:
    path = dataset.parent / "run"
    prepare_run(dataset, path, config)
    return open_run(path)


def filler() -> list[tuple[object, ...]]:
    """The log lasts from day 0 to day 20; user `z` has an exposure in every part, and a click to
    learn, to validate and to test the towers with."""
    return [
        act("z", "f", "click", 0.0),
        act("z", "g", "click", 13.9),
        act("z", "h", "click", 20.0),
        *(act("z", "f", "show", d, exposure=f"z{d}", sequence=5) for d in (5, 13, 15.5, 17)),
    ]


def read(dataset: Path, part: Part, config: RunConfig = BY_TIME) -> Exposures:
    return ExposureLog(run_on(dataset, config)).read(part)


def labels_of(found: Exposures, user: str) -> list[list[bool | None]]:
    """Each of a user's exposures: a label a head, None where it is not known."""
    mine = np.flatnonzero(found.owners == found.people.index(user))
    return [
        [
            bool(yes) if known else None
            for yes, known in zip(found.labels[i], found.known[i], strict=True)
        ]
        for i in mine
    ]
