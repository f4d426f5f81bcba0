"""A baseline that factorises: alternating least squares on implicit feedback, by `implicit`.

Hu, Koren and Volinsky, "Collaborative Filtering for Implicit Feedback Datasets", ICDM 2008. Items
keep the vectors that training gave them; a user's vector is solved anew from the history at the
question, so that what was done since training counts. The defaults did best, or nearly so, on the
validation parts of five public datasets. Runs on the CPU.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import scipy.sparse as sp
from implicit.cpu.als import AlternatingLeastSquares
from threadpoolctl import threadpool_limits

from model.ann import exact_search
from training.dataset import Interactions
from training.ranking import fill, last_events, popularity_order

Int64 = npt.NDArray[np.int64]
Bool = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class ALS:
    """Users and items as vectors whose inner product is near 1 where there is an event, else 0.

    A cell's confidence is 1 + alpha · (the sum of its events' weights). An item without a training
    event has no vector, a user without a history none either: popularity stands in for both.
    """

    model: Any
    """implicit's model, with the items' factors alone."""
    alpha: float
    trained: Bool
    """[V] True on items with a training event."""
    order: Int64
    """[V] item rows by popularity."""
    name: str = "als"

    @classmethod
    def fit(
        cls,
        training: Interactions,
        items: pa.Table,
        *,
        seed: int,
        factors: int = 128,
        regularization: float = 0.1,
        alpha: float = 5.0,
        iterations: int = 15,
    ) -> "ALS":
        """Factorise the training events. items: not needed.

        factors: length of the vectors. regularization: weight of their squared length. iterations:
        each solves all users, then all items.
        """
        # implicit runs a thread a core and warns unless BLAS, inside each of them, keeps to one.
        everyone = np.arange(training.num_users)
        with threadpool_limits(1, "blas"):
            model = AlternatingLeastSquares(
                factors=factors,
                regularization=regularization,
                alpha=1.0,  # it is in the confidences
                iterations=iterations,
                random_state=seed,
            )
            model.fit(_confidences(training, everyone, alpha), show_progress=False)
        model.user_factors = None
        return cls(model, alpha, training.popularity() > 0, popularity_order(training))

    def top(
        self, histories: Interactions, users: Int64, k: int, *, excluded: Sequence[Int64] | None
    ) -> Int64:
        """See Ranker."""
        with threadpool_limits(1, "blas"):
            vectors = self.model.recalculate_user(users, _confidences(histories, users, self.alpha))
        rows, _ = exact_search(
            vectors, self.model.item_factors, k, allowed=self.trained, excluded=excluded
        )
        rows[~vectors.any(axis=1)] = -1
        return fill(rows, self.order, excluded=excluded)


def _confidences(histories: Interactions, users: Int64, alpha: float) -> Any:
    """Users as sparse rows over items: CSR [B, V] float32, 1 + alpha · the weights at that item."""
    places, starts = last_events(histories, users, len(histories.items))
    cells = sp.csr_matrix(
        (histories.weights[places], histories.items[places], starts),
        shape=(len(users), histories.num_items),
    )
    cells.sum_duplicates()
    cells.eliminate_zeros()
    cells.data = 1 + alpha * cells.data
    return cells
