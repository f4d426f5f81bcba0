"""Credit by removal: how much of an order's rate would be gone had the touch not been.

A user's orders are taken for a self-exciting point process (Hawkes and Oakes 1974, Biometrika 61):
they come at a background rate, which knows how much this user cares for each circle, and each touch
adds a rate that fades. The rates are additive, so the share of a touch in the rate at the moment of
the order is what removing it takes away, it is the chance that the touch is the order's cause
(Veen and Schoenberg 2008, JASA 103), and shares and background add up to one. Fitted by
expectation-maximisation, those shares being the E step.

Three things keep what merely coincides from being credited, for who cares for tea both watches and
buys tea. The background reads the user's engagement with the circle over the whole log, before and
after an order alike. Touches after an order, which cannot have caused it, are a negative control
(Lipsitch et al. 2010, Epidemiology 21): a second kernel, the same in both directions of time, takes
what they explain, so only what comes more often after than before is credited. And a kernel has to
explain more than `penalty` orders, or it is dropped. Knows arrays alone.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from training.attribution.log import DEPTHS
from training.attribution.rates import Rates
from training.attribution.touches import RELATIONS

Int64 = npt.NDArray[np.int64]
Float64 = npt.NDArray[np.float64]

_REFRESH = 5
"""Steps between two looks at who differs: users, cells and items, whose factors hold until then."""
_FREE = 25
"""Steps before the penalty counts: at its start a kernel that is real explains little too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """A fitted model, and the credit it gives."""

    credit: Float64
    """[P] of each touch."""
    background: Float64
    """[O] of the order's rate; with the control's, what is unattributed."""
    control: Float64
    """[O] what the negative control takes."""
    orders_per_touch: Float64
    """[depths, relations] orders that one such touch of a usual user and item adds in the end."""
    lags: Float64
    """[relations, B] when they come: the share of each lag bin."""
    steps: int


def fit_removal(
    rates: Rates,
    num_touches: int,
    *,
    steps: int = 150,
    tolerance: float = 1e-4,
    penalty: float = 1.0,
    control: bool = True,
) -> Removal:
    """Fit by expectation-maximisation until the credited share stays within `tolerance`.

    penalty: so many are subtracted from a kernel's orders; one that has no more explains noise.
    control: False leaves the negative control out, for comparison.
    """
    fit = _Fit(rates, control=control)
    share_before, step = -1.0, 0
    for step in range(1, steps + 1):
        fit.share_out()
        if step % _REFRESH == 1:
            fit.expect()
        fit.estimate(penalty if step > _FREE else 0.0)
        if step % _REFRESH == 0 and step > _REFRESH:  # first the rates that all have in common
            fit.tell_apart()
            share = float(fit.caused.sum()) / max(fit.num_orders, 1)
            if step > 2 * _FREE and abs(share - share_before) < tolerance:
                break
            share_before = share
    terms = rates.terms
    before = terms.touch >= 0
    return Removal(
        credit=_sums(terms.touch[before], fit.caused[before], num_touches),
        background=fit.background,
        control=_sums(terms.order, fit.beside, fit.num_orders),
        orders_per_touch=fit.adds,
        lags=fit.fades * fit.width,
        steps=step,
    )


class _Fit:
    """The rates while they are fitted, and each order's shares (the last E step)."""

    user_strength, cell_strength, item_strength = 1.0, 1.0, 3.0
    """Of the Gamma priors around 1 of a user's scale, of a user's background rate in a circle and
    of an item's stirring power: so many orders weigh as much as the prior."""

    def __init__(self, rates: Rates, *, control: bool) -> None:
        self.rates, self.has_control = rates, control
        terms, cells = rates.terms, rates.cells
        self.num_orders, self.num_cells = len(rates.user_of_order), len(cells.user)
        self.width = np.diff(rates.edges)
        self.shape = (len(DEPTHS), len(RELATIONS), len(self.width))
        self.place = terms.kind * len(self.width) + terms.lag
        # The terms of one order and one item: an item's power is not judged by the order in hand.
        pairs = terms.order * rates.num_items + terms.item
        self.pair: Int64 = np.unique(pairs, return_inverse=True)[1]
        self.user_orders = np.bincount(rates.user_of_order, minlength=rates.num_users)

        even = 1 / rates.edges[-1]
        open_days = cells.days.sum() * self.num_cells / max(rates.num_users, 1)
        self.level_rate = np.full(rates.num_levels, self.num_orders / max(open_days, 1e-9))
        """Background orders a day, by how much the user engaged with the circle."""
        self.adds = np.full(self.shape[:2], 0.002)
        """Orders that a touch of a depth and relation adds in the end."""
        self.fades = np.full(self.shape[1:], even)
        """When they come: a density over days."""
        self.coincides = np.full(self.shape[:2], 0.002 if control else 0.0)
        self.coincides_lag = np.full(len(self.width), even)
        """The same of the control, which looks both ways."""
        self.scale, self.power = np.ones(rates.num_users), np.ones(rates.num_items)
        self.cell_factor = np.ones(self.num_cells)
        # As the order in hand sees them: without itself.
        self.order_factor, self.term_power = np.ones(self.num_orders), np.ones(len(terms.order))

    def share_out(self) -> None:
        """E: each part's share in the rate at the moment of the order."""
        terms, cells = self.rates.terms, self.rates.cells
        background = self.level_rate[cells.level[cells.of_order]] * self.order_factor * cells.share
        relation = terms.kind % len(RELATIONS)
        caused = self.adds.ravel()[terms.kind] * self.fades[relation, terms.lag] * terms.share
        caused *= self.term_power * (terms.touch >= 0)
        beside = self.coincides.ravel()[terms.kind] * self.coincides_lag[terms.lag] * terms.share
        total = background + _sums(terms.order, caused + beside, self.num_orders)
        self.background: Float64 = background / total
        self.caused: Float64 = caused / total[terms.order]
        self.beside: Float64 = beside / total[terms.order]

    def expect(self) -> None:
        """How many orders the rates expect of each user and item, and how long, so weighted, each
        kind of episode stood open."""
        rates, openings, cells = self.rates, self.rates.openings, self.rates.cells
        stirred = self._stirs()
        beside = (openings.holds * self.coincides[openings.depth]).sum(1)
        beside *= openings.around @ self.coincides_lag
        expected = _sums(
            cells.user, self.level_rate[cells.level] * self.cell_factor, rates.num_users
        )
        expected = expected * cells.days + _sums(
            openings.user, stirred * self.power[openings.item] + beside, rates.num_users
        )
        self.scale = (self.user_strength + self.user_orders) / (self.user_strength + expected)
        weight = self.scale[openings.user]
        self.open_after = self._open(weight * self.power[openings.item], openings.after)
        self.open_around = self._open(weight, openings.around)
        self.spent = (self.scale * cells.days)[cells.user]

    def estimate(self, penalty: float) -> None:
        """M: the rates, as orders that each part brought for the time that it stood open."""
        rates, cells = self.rates, self.rates.cells
        stood = _sums(cells.level, self.spent * self.cell_factor, rates.num_levels)
        brought = _sums(cells.level[cells.of_order], self.background, rates.num_levels)
        self.level_rate = brought / np.maximum(stood, 1e-9)
        brought = self._by_kind(self.caused)
        expects = np.einsum("drb,rb->dr", self.open_after, self.fades)
        self.adds = np.maximum(brought.sum(2) - penalty, 0) / np.maximum(expects, 1e-9)
        opened = np.einsum("dr,drb->rb", self.adds, self.open_after)
        self.fades = _densities(brought.sum(0), opened, self.width)
        if self.has_control:
            brought = self._by_kind(self.beside)
            expects = self.open_around @ self.coincides_lag
            self.coincides = brought.sum(2) / np.maximum(expects, 1e-9)
            opened = np.einsum("dr,drb->b", self.coincides, self.open_around)
            self.coincides_lag = _densities(brought.sum((0, 1))[None], opened[None], self.width)[0]

    def tell_apart(self) -> None:
        """Who orders more from a circle, and which item stirs more, than the common rates say."""
        terms, cells, openings = self.rates.terms, self.rates.cells, self.rates.openings
        strength, at = self.cell_strength, cells.of_order
        found = _sums(at, self.background, self.num_cells)
        due = strength + self.level_rate[cells.level] * self.spent
        self.cell_factor = (strength + found) / due
        self.order_factor = (strength + found[at] - self.background) / due[at]
        strength = self.item_strength
        found = _sums(terms.item, self.caused, self.rates.num_items)
        expected = self._stirs() * self.scale[openings.user]
        due = strength + _sums(openings.item, expected, self.rates.num_items)
        self.power = (strength + found) / due
        mine = _sums(self.pair, self.caused, int(self.pair.max(initial=-1)) + 1)[self.pair]
        self.term_power = (strength + found[terms.item] - mine) / due[terms.item]

    def _stirs(self) -> Float64:
        """[J] orders that an episode of a usual user and item adds within the log."""
        openings = self.rates.openings
        within = openings.after @ self.fades.T
        stirs: Float64 = (openings.holds * self.adds[openings.depth] * within).sum(1)
        return stirs

    def _open(self, weight: Float64, days: Float64) -> Float64:
        """[depths, relations, B] weighted days; weight: [J], days: [J, B]."""
        openings = self.rates.openings
        return np.stack(
            [(openings.holds[s] * weight[s, None]).T @ days[s] for s in openings.slices]
        )

    def _by_kind(self, shares: Float64) -> Float64:
        """[depths, relations, B] orders; shares: [N] of the terms."""
        return _sums(self.place, shares, int(np.prod(self.shape))).reshape(self.shape)


def _sums(place: Int64, values: Float64, size: int) -> Float64:
    """[size] the sum of the values at each place."""
    return np.bincount(place, values, minlength=size).astype(np.float64)


def _densities(brought: Float64, open_days: Float64, width: Float64) -> Float64:
    """[n, B] densities over days: orders brought in each lag bin, for the time that stood open.

    A bin that never stood open gets none; where no bin brought anything, all are alike.
    """
    rate = np.where(open_days > 0, (brought + 0.01) / np.maximum(open_days, 1e-9), 0.0)
    mass = (rate * width).sum(1, keepdims=True)
    even = np.full(brought.shape, 1 / width.sum())
    return np.where(mass > 0, rate / np.where(mass > 0, mass, 1), even)
