"""Whether chances are true: of what is given 10 %, does one in ten come true?

The order of a slate needs no true chances; adding heads up by what their events are worth does. The
ranking loss and weights of rare heads bend them, so each head's logits are straightened by a line
that is fitted on the choosing day (Platt, 1999), and folded into its last layer: nothing is added
to a request. Knows arrays alone.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]
Bool = npt.NDArray[np.bool_]

NUM_BINS = 15
LEAST_POSITIVES = 20
"""With fewer, a line would follow chance; the logits stay as they are."""
_ITERATIONS = 50
_PRIOR = 1.0
"""How strongly the slope is held to 1, in observations of unit variance."""


@dataclass(frozen=True, slots=True)
class Line:
    """logit → slope × logit + shift."""

    slope: float = 1.0
    shift: float = 0.0


def fit_line(logits: npt.NDArray[np.floating], labels: Bool) -> Line:
    """The line with the least log loss, by Newton steps; the identity with too few of a kind.

    logits, labels: [N], of the examples whose label is known.
    """
    positives = int(labels.sum())
    if min(positives, len(labels) - positives) < LEAST_POSITIVES:
        return Line()
    x = np.stack([logits.astype(np.float64), np.ones(len(logits))], axis=1)
    start = np.array([1.0, 0.0])
    prior = np.diag([_PRIOR, 0.0])

    def loss(line: Float64) -> float:
        away = line - start
        return _log_loss(x @ line, labels) + float(away @ prior @ away) / 2

    line, least = start, loss(start)
    for _ in range(_ITERATIONS):
        chances = _chances(x @ line)
        slope = x.T @ (chances - labels) + prior @ (line - start)
        curve = (x * (chances * (1 - chances))[:, None]).T @ x + prior + 1e-9 * np.eye(2)
        step = np.linalg.solve(curve, slope)
        # A whole step may leap past the lowest point: as much of it as goes down.
        while loss(line - step) > least and np.abs(step).max() > 1e-9:
            step = step / 2
        line, before = line - step, least
        least = loss(line)
        if before - least <= 1e-9 * before:
            break
    if line[0] <= 0:
        return Line()  # it would turn the order round
    return Line(float(line[0]), float(line[1]))


@dataclass(frozen=True, slots=True)
class Reliability:
    """Chances beside what came true, in bins of about as many examples each."""

    predicted: list[float]
    """The mean chance of each bin, rising."""
    observed: list[float]
    """The share of each bin that came true."""
    counts: list[int]
    error: float
    """Expected calibration error (Naeini et al., AAAI 2015): the mean over examples of the gap
    between the two."""


def reliability(chances: npt.NDArray[np.floating], labels: Bool) -> Reliability | None:
    """chances, labels: [N]. None where N is 0. Equal chances stay in one bin."""
    if not len(chances):
        return None
    order = np.argsort(chances, kind="stable")
    sorted_chances = chances[order].astype(np.float64)
    edges = np.linspace(0, len(order), min(NUM_BINS, len(order)) + 1).astype(np.int64)[1:-1]
    # A border inside a run of equal chances moves to its start.
    edges = np.unique(np.searchsorted(sorted_chances, sorted_chances[edges]))
    starts = np.concatenate([[0], edges[edges > 0]])
    counts = np.diff(np.append(starts, len(order)))
    predicted = np.add.reduceat(sorted_chances, starts) / counts
    observed = np.add.reduceat(labels[order].astype(np.float64), starts) / counts
    error = float((counts * np.abs(predicted - observed)).sum() / len(order))
    return Reliability(predicted.tolist(), observed.tolist(), counts.tolist(), error)


def _chances(logits: Float64) -> Float64:
    return np.asarray(np.exp(-np.logaddexp(0, -logits)))


def _log_loss(logits: Float64, labels: Bool) -> float:
    """The log loss of all examples together."""
    return float(np.sum(np.logaddexp(0, logits) - logits * labels))
