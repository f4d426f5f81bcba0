"""Which index answers: the one that the bundle carries, or one matrix on the GPU.

Knows each implementation by name, and imports torch only where its index was asked for, so that
serving needs none. Knows no requests.
"""

from types import ModuleType

from model import ann
from model.bundle import Bundle
from model.errors import BundleRejected, ConfigError
from model.ivf import Setting
from serving.index.base import DeviceName, Float32, IndexName, VectorIndex
from serving.index.faiss_index import FaissIndex
from serving.index.ivf_index import IvfIndex

QUICK_SHARE = 0.25
"""How much of what it reads otherwise an index reads for a request that has no time."""


def require_available(index: IndexName, device: DeviceName) -> None:
    """Raise ConfigError where the index needs a GPU, or torch, that is not there."""
    if index == "torch":
        _torch_index().require_device(device)


def open_index(
    bundle: Bundle, vectors: Float32, index: IndexName, device: DeviceName
) -> VectorIndex:
    """The index over `vectors` [num_active, D], the bundle's first rows.

    Raises BundleRejected where the bundle's own is of a kind that this version does not open, or
    was built of other vectors, and ConfigError as `require_available` does.
    """
    if index == "torch":
        matrix: VectorIndex = _torch_index().TorchIndex(vectors, device=device)
        return matrix
    about = bundle.ann
    if about["kind"] not in ("exact", "ivf"):
        raise BundleRejected(
            f"{bundle.path}: index of kind {about['kind']!r}; this version opens exact and ivf. "
            "Serve it with the version that wrote it, or export it again."
        )
    built = ann.open_index(bundle.index_path)
    if (built.ntotal, built.d) != vectors.shape:
        raise BundleRejected(
            f"{bundle.path}: index.faiss holds {built.ntotal} vectors of {built.d}; items and "
            f"vectors say {len(vectors)} of {vectors.shape[1]}. Export it again."
        )
    if about["kind"] == "exact":
        return FaissIndex(built, vectors)
    return IvfIndex(built, vectors, Setting(probes=about["probes"], fetch=about["fetch"]))


def quick_index(index: VectorIndex) -> VectorIndex | None:
    """The same rows for those in a hurry, some of the best left unfound; None where it has none."""
    return index.quick(QUICK_SHARE) if isinstance(index, IvfIndex) else None


def _torch_index() -> ModuleType:
    try:
        from serving.index import torch_index
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "torch":
            raise
        raise ConfigError(
            "index 'torch' was asked for, and torch is not installed in this Python. Install it "
            "for your GPU (the extra [gpu]: pip install 'penchant[gpu]', or scripts/setup --cuda "
            "in a checkout), or serve with --index bundle."
        ) from None
    return torch_index
