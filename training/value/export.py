"""The value model's part of a bundle: two graphs, the item side of every row, the section `value`.

The graphs are compared with the network at real exposures' shapes: one user and several, empty
histories and full ones, one candidate and many. Knows nothing of the rest of a bundle.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from model import bundle as files
from model.encode import pad_histories
from model.freshness import freshness
from model.past import Past
from model.tower_session import require_vectors
from model.towers import TwoTower
from training.dataset import read_items_table
from training.run import Run
from training.value.candidates import Relations
from training.value.created import created_at
from training.value.evaluate import VALUE
from training.value.inputs import ItemArrays, item_arrays
from training.value.kin import kin_codes
from training.value.onnx import (
    export_item_side,
    export_request_side,
    item_side_error,
    request_side_error,
)
from training.value.stored import StoredValue

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]
Arrays = dict[str, npt.NDArray[Any]]

_COMPARED_ITEMS = 512
_COMPARED_CANDIDATES = 500


@dataclass(frozen=True, slots=True)
class ValueErrors:
    """Largest absolute differences between ONNX Runtime and torch."""

    item_side: float
    request_side: float

    def to_json(self) -> dict[str, float]:
        """For the manifest's `parity`."""
        return {"value_item": self.item_side, "value": self.request_side}

    def sentence(self) -> str:
        """For people."""
        return (
            f"max abs error of the value model: item side {self.item_side:.1e}, request side "
            f"{self.request_side:.1e} (at most 1e-4 passes)"
        )


def export_value(
    run: Run, model: TwoTower, value: StoredValue, order: Int64, folder: Path
) -> tuple[dict[str, Any], ValueErrors]:
    """Write value.onnx, value_item.onnx and value_items.npy into a bundle that is being written.

    order: [N] the item row of each row of the bundle. Returns the manifest's section `value`.

    Raises ParityError if a graph differs from the network, NoVector if an item has no vector.
    """
    network, config = value.network, value.network.config
    item_inputs = export_item_side(network, folder / files.VALUE_ITEM)
    inputs = export_request_side(network, folder / files.VALUE)
    items = item_arrays(run, model, value.stats)
    with torch.no_grad():
        rows = torch.arange(len(items.vectors))
        parts = [network.item_side(*items.take(part)) for part in rows.split(1 << 14)]
        vectors = torch.cat(parts).numpy()
    require_vectors(vectors, read_items_table(run.dataset)["item_id"].combine_chunks(), of="item")
    errors = ValueErrors(
        item_side=item_side_error(network, folder / files.VALUE_ITEM, _some_items(items)),
        request_side=request_side_error(
            network,
            folder / files.VALUE,
            _some_requests(run, value, items.vectors.numpy(), vectors),
        ),
    )
    np.save(folder / files.VALUE_ITEMS, vectors[order])
    section = {
        "heads": [head.model_dump(exclude_none=True) for head in value.heads],
        "dim": config.dim,
        "max_history": config.max_history,
        "kin": list(config.kin),
        "inputs": inputs,
        "item_inputs": item_inputs,
        "stats": {"names": list(value.stats.names), "prior": value.stats.prior.tolist()},
        "metrics": {
            name: {
                **found[VALUE],
                "num_exposures": found["num_exposures"],
                "num_positives": found["num_positives"],
            }
            for name, found in value.facts["choosing_day"].items()
        },
    }
    if value.config.candidates:
        section["candidates"] = {
            "retrieved": value.config.candidates,
            "engaged": value.config.engaged,
            "seen": run.config.seen,
        }
    return section, errors


def _some_items(items: ItemArrays) -> Iterator[Arrays]:
    """Inputs of the item side: one item, and a spread of them."""
    num = len(items.vectors)
    spread = torch.from_numpy(np.unique(np.linspace(0, num - 1, _COMPARED_ITEMS).astype(np.int64)))
    for rows in (spread[:1], spread):
        vector, stats, features = items.take(rows)
        yield {
            "vector": vector.numpy(),
            "stats": stats.numpy(),
            **{name: array.numpy() for name, array in features.items()},
        }


def _some_requests(
    run: Run, value: StoredValue, retrieval: Float32, vectors: Float32
) -> Iterator[Arrays]:
    """Inputs of the request side: users with long, short and no histories, 1 candidate and 500.

    retrieval: [V, D] of the item tower. vectors: [V, E] of the item side.
    """
    data, longest = run.data, value.config.max_history
    rng = np.random.default_rng(value.config.seed)
    past = Past(
        data.items,
        data.events,
        data.starts,
        num_items=data.num_items,
        num_events=run.tower.num_events,
    )
    table, config = read_items_table(run.dataset), value.network.config
    codes = kin_codes(table, config.kin, vectors=retrieval, seed=run.config.seed)
    kin = Relations.of(data, codes) if codes else None
    created = created_at(run, table) if config.reads_age else None
    users = np.argsort(-data.lengths, kind="stable")[[0, len(data.lengths) // 2, -1]]
    for batch, most, num_candidates in (
        (users[:1], longest, 1),
        (users[:1], longest, _COMPARED_CANDIDATES),
        (users[-1:], 1, _COMPARED_CANDIDATES),
        (users[1:2], 0, 1),
        (users, longest, _COMPARED_CANDIDATES),
        (users, 1, 1),
    ):
        spans = [
            slice(data.starts[u], min(data.starts[u] + most, data.starts[u + 1])) for u in batch
        ]
        padded = pad_histories(
            [data.items[s].astype(np.int64) for s in spans],
            [data.events[s].astype(np.int64) for s in spans],
            [data.times[s] for s in spans] if run.data.schema.has_times else None,
            now=int(data.times.max(initial=0)),
            max_history=longest,
        )
        candidates = rng.integers(0, len(vectors), (len(batch), num_candidates))
        now = np.full(len(batch), data.times.max(initial=0))
        # Interests of the towers' scale: other items' vectors do.
        shape = (len(batch), run.tower.num_interests)
        interests = retrieval[rng.integers(0, len(retrieval), shape)]
        scores = np.einsum("bmd,bcd->bcm", interests, retrieval[candidates]).max(axis=-1)
        yield {
            "history": vectors[np.maximum(padded.rows, 0)],
            "events": padded.events,
            "gaps": padded.gaps,
            "mask": padded.mask,
            "idle": padded.idle,
            "interests": interests,
            **{
                name: array[torch.from_numpy(batch)].numpy() for name, array in run.profiles.items()
            },
            "candidates": vectors[candidates],
            "scores": scores,
            "past": past.of(batch, candidates),
            **({} if kin is None else {"kin": kin.of_candidates(batch, candidates)}),
            **({} if created is None else {"age": freshness(created[candidates], now)}),
        }
