"""The bundle: all that serving needs to know of a trained model, in one verified folder.

Opened once, memory-mapped, read by several workers. Which file holds what: docs/bundle.md.
Knows nothing of training, requests or users (they are in the snapshot).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from model.circles import read_circles
from model.encode import Encoder, read_encoder
from model.errors import BundleRejected
from model.items import ItemTable, read_items
from model.manifest import Manifest, open_verified
from model.schema import Head, Schema

USER_TOWER, ITEM_TOWER = "user_tower.onnx", "item_tower.onnx"
ITEMS, VECTORS, INDEX = "items.arrow", "vectors.npy", "index.faiss"
ID_VECTORS = "id_vectors.npy"
ID_HASHES, ID_ROWS = "id_hashes.npy", "id_rows.npy"
"""Where each id lies in items.arrow (model.items.IdIndex), so that workers need not reckon it out,
and share it; a bundle without them is opened all the same."""
GATE, ENCODER = "gate.parquet", "vocab/encoder.json"
VALUE, VALUE_ITEM, VALUE_ITEMS = "value.onnx", "value_item.onnx", "value_items.npy"
"""The value model: all three, and the manifest's section `value`, or none of them."""
_BLOCK = 1 << 16
"""Vectors looked at together."""


@dataclass(frozen=True, slots=True)
class CandidateRule:
    """How the lists were made that a value model learned to rank."""

    retrieved: int
    """How many of retrieval's best."""
    engaged: int
    """How many at most of what the user engaged with and did not convert on."""
    seen: str
    """What lists leave out: `filter` all of a user's history, `converted` only what the user
    converted on, `keep` nothing."""


@dataclass(frozen=True, slots=True)
class ValueModel:
    """The value model of a bundle: how likely a user is to click, buy, … (model/value.py)."""

    path: Path
    """value.onnx, the request side: history and candidates → probabilities [B, C, T]."""
    item_path: Path
    """value_item.onnx, the item side: vector, features and statistics → [B, E]."""
    inputs: tuple[str, ...]
    """Names of the inputs that value.onnx takes, the truth about what to feed it."""
    item_inputs: tuple[str, ...]
    """Names of the inputs that value_item.onnx takes."""
    heads: tuple[Head, ...]
    """The columns of `probabilities`, in order."""
    max_history: int
    """The most events of a history that value.onnx reads, the newest."""
    stats: tuple[str, ...]
    """Names of the columns of the input `stats`."""
    prior: npt.NDArray[np.float32]
    """[S] float32, the statistics of an item of which nothing is known."""
    items: npt.NDArray[np.float32]
    """[N, E] float32, memory-mapped: the item side's output for every item row."""
    kin: tuple[str, ...]
    """Item columns whose values make kin (model/past.py); none in bundles before format 4."""
    candidates: CandidateRule | None
    """None: it learned from exposures, and ranks what retrieval finds."""

    @property
    def dim(self) -> int:
        """E, the length of an item's vector in the value model."""
        return int(self.items.shape[1])


@dataclass(frozen=True, slots=True)
class Bundle:
    """An opened bundle; every file's checksum held when it was opened."""

    path: Path
    identity: tuple[int, int]
    """Device and inode of the folder that was verified."""
    manifest: Manifest
    items: ItemTable
    vectors: npt.NDArray[np.float32]
    """[N, D] float32, memory-mapped; row i is the vector of item row i."""
    id_vectors: npt.NDArray[np.float32]
    """[N, D] float32, memory-mapped: what the item tower has learned of row i's id; zeros where it
    was never trained."""
    encoder: Encoder
    circles: pa.Table
    """model.circles.CIRCLE_SCHEMA; row c is circle c of the items."""
    districts: pa.Table
    """The same, of the clusters of circles; no row in a bundle from before there were any."""
    value: ValueModel | None = None
    """None where the run had no value model when it was exported."""

    @property
    def schema(self) -> Schema:
        """The dataset's schema, as it was trained on."""
        return self.manifest.schema

    @property
    def dim(self) -> int:
        """Length of every vector."""
        return int(self.vectors.shape[1])

    @property
    def num_interests(self) -> int:
        """M, the interest vectors a user."""
        return int(self.manifest.body["num_interests"])

    @property
    def max_history(self) -> int:
        """The most events of a history that the user tower reads, the newest."""
        return int(self.manifest.body["max_history"])

    @property
    def event_codes(self) -> dict[str, int]:
        """Event name → its code in the user tower's `events` input, from 1."""
        return dict(self.manifest.body["event_codes"])

    @property
    def objectives(self) -> tuple[str, ...]:
        """Names of the user-side heads; position is the code in the `objective` input."""
        return tuple(self.manifest.body["objectives"])

    @property
    def ann(self) -> Mapping[str, Any]:
        """What the manifest says of index.faiss: its kind, its recall, how to search it."""
        ann: Mapping[str, Any] = self.manifest.body["ann"]
        return ann

    @property
    def user_tower_inputs(self) -> tuple[str, ...]:
        """Names of the inputs that user_tower.onnx takes, the truth about what to feed it."""
        return tuple(self.manifest.body["user_tower"]["inputs"])

    @property
    def item_tower_inputs(self) -> tuple[str, ...]:
        """Names of the inputs that item_tower.onnx takes."""
        return tuple(self.manifest.body["item_tower"]["inputs"])

    def require_in_place(self) -> None:
        """Raise BundleRejected if another folder has taken the place of the verified one.

        Files are opened by their path: call it after the last of them is open.
        """
        if _identity(self.path) != self.identity:
            raise BundleRejected(f"{self.path} was replaced while it was being opened; try again.")

    @property
    def user_tower_path(self) -> Path:
        """user_tower.onnx."""
        return self.path / USER_TOWER

    @property
    def item_tower_path(self) -> Path:
        """item_tower.onnx."""
        return self.path / ITEM_TOWER

    @property
    def index_path(self) -> Path:
        """index.faiss, over rows [0, num_active)."""
        return self.path / INDEX


def open_bundle(path: Path) -> Bundle:
    """Verify and open a bundle. Raises BundleRejected naming the file that is wrong."""
    identity = _identity(path)
    manifest = open_verified(path, kind="bundle")
    circles, districts = read_circles(path)
    bundle = Bundle(
        path=path,
        identity=identity,
        manifest=manifest,
        items=read_items(path / ITEMS, id_index(path)),
        vectors=np.load(path / VECTORS, mmap_mode="r"),
        id_vectors=np.load(path / ID_VECTORS, mmap_mode="r"),
        encoder=read_encoder(path / ENCODER),
        circles=circles,
        districts=districts,
        value=_open_value(path, manifest),
    )
    bundle.require_in_place()
    _require_shape(bundle, bundle.vectors, VECTORS, dim=manifest.body["dim"])
    _require_finite(bundle, bundle.vectors, VECTORS)
    _require_shape(bundle, bundle.id_vectors, ID_VECTORS, dim=manifest.body["dim"])
    if bundle.value is not None:
        _require_shape(bundle, bundle.value.items, VALUE_ITEMS, dim=manifest.body["value"]["dim"])
        _require_finite(bundle, bundle.value.items, VALUE_ITEMS)
    return bundle


def id_index(path: Path) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]] | None:
    """The index of ids that was made at export; None where there is none."""
    if not (path / ID_HASHES).exists():
        return None
    # Plain arrays over the mapped files: indexing a numpy.memmap is slow.
    hashes, rows = (np.asarray(np.load(path / n, mmap_mode="r")) for n in (ID_HASHES, ID_ROWS))
    return hashes, rows


def _open_value(path: Path, manifest: Manifest) -> ValueModel | None:
    """The value model; None where there is none. Raises BundleRejected where parts are missing."""
    names = (VALUE, VALUE_ITEM, VALUE_ITEMS)
    found = [name for name in names if (path / name).exists()]
    body = manifest.body.get("value")
    if body is None and not found:
        return None
    if body is None or len(found) < len(names):
        absent = next((n for n in names if n not in found), "the manifest's section `value`")
        raise BundleRejected(
            f"{path}: {absent} is missing; a value model is {', '.join(names)} and the manifest's "
            "section `value`, or nothing of them. Export it again."
        )
    return ValueModel(
        path=path / VALUE,
        item_path=path / VALUE_ITEM,
        inputs=tuple(body["inputs"]),
        item_inputs=tuple(body["item_inputs"]),
        heads=tuple(Head.model_validate(head) for head in body["heads"]),
        max_history=int(body["max_history"]),
        stats=tuple(body["stats"]["names"]),
        prior=np.asarray(body["stats"]["prior"], np.float32),
        items=np.load(path / VALUE_ITEMS, mmap_mode="r"),
        kin=tuple(body.get("kin", ())),
        candidates=CandidateRule(**body["candidates"]) if "candidates" in body else None,
    )


def _require_shape(
    bundle: Bundle, vectors: npt.NDArray[np.float32], file: str, *, dim: int
) -> None:
    """Raise BundleRejected where there are not as many vectors as items."""
    num_items = bundle.items.num_items
    shape = (num_items, dim)
    if vectors.shape != shape or vectors.dtype != np.float32:
        raise BundleRejected(
            f"{bundle.path}: {file} holds {vectors.dtype} of shape {list(vectors.shape)}; "
            f"{num_items} items need float32 of shape {list(shape)}. Export it again."
        )


def _require_finite(bundle: Bundle, vectors: npt.NDArray[np.float32], file: str) -> None:
    """Raise BundleRejected where an item has no vector, but one that nothing can be said of."""
    for start in range(0, len(vectors), _BLOCK):
        finite = np.isfinite(vectors[start : start + _BLOCK]).all(axis=1)
        if not finite.all():
            row = start + int(finite.argmin())
            (item_id,) = bundle.items.ids_of(np.array([row]))
            raise BundleRejected(
                f"{bundle.path}: {file}, row {row}: item {item_id!r} has no vector, but NaN or "
                "infinity. Export it again, from a run whose training did not diverge."
            )


def _identity(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        return 0, 0  # what is wrong with the folder is for open_verified to say
    return found.st_dev, found.st_ino
