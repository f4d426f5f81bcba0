"""index.lists: an index whose lists lie in a file finds what the index in memory finds."""

from collections.abc import Callable
from pathlib import Path

import faiss
import numpy as np
import pytest

from model.ann import build_exact, open_index, write_index
from model.errors import BundleRejected
from model.ivf import build_ivf, parts, reading
from model.mapped_lists import open_mapped, write_mapped

NUM, DIM = 3000, 24


@pytest.fixture
def vectors() -> np.ndarray:
    """In three heaps, so that many of the lists are empty or small."""
    rng = np.random.default_rng(5)
    heaps = rng.normal(size=(3, DIM))[rng.integers(3, size=NUM)] * 4
    return (heaps + rng.normal(size=(NUM, DIM)) * (rng.random((NUM, 1)) < 0.9)).astype(np.float32)


@pytest.mark.parametrize("num_lists", [1, 8, 256])
def test_it_finds_the_same(vectors: np.ndarray, tmp_path: Path, num_lists: int) -> None:
    index = build_ivf(vectors, vectors[:200], num_lists=num_lists)
    write_index(index, tmp_path / "index.faiss")
    whole = faiss.read_index(str(tmp_path / "index.faiss"))
    mapped = open_index(tmp_path / "index.faiss")
    lists = parts(mapped)[0]
    assert isinstance(faiss.downcast_InvertedLists(lists.invlists), faiss.OnDiskInvertedLists)
    sizes = [lists.invlists.list_size(n) for n in range(lists.nlist)]
    assert sizes == [parts(whole)[0].invlists.list_size(n) for n in range(lists.nlist)]
    assert mapped.ntotal == sum(sizes) == NUM
    some = np.packbits(np.arange(NUM) % 3 == 0, bitorder="little")
    for probes in {1, max(num_lists // 4, 1), num_lists}:
        for rows in (None, faiss.IDSelectorBitmap(some)):  # type: ignore[call-arg, arg-type]
            for k in (5, 100, NUM):
                how = reading(probes, rows=rows)
                one, two = (x.search(vectors[:50], k, params=how) for x in (whole, mapped))
                assert np.array_equal(one[0], two[0]) and np.array_equal(one[1], two[1])


def test_it_outlives_a_file_that_is_removed(vectors: np.ndarray, tmp_path: Path) -> None:
    index = build_ivf(vectors, vectors[:200], num_lists=16)
    write_mapped(index, tmp_path / "a.lists")
    mapped = open_mapped(tmp_path / "a.lists")
    assert mapped is not None
    (tmp_path / "a.lists").unlink()
    how = reading(4)
    one, two = (x.search(vectors[:9], 10, params=how)[1] for x in (index, mapped))
    assert np.array_equal(one, two)


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda whole: b"",
    "short": lambda whole: whole[:10],
    "without a block": lambda whole: whole[768:],
    "without its end": lambda whole: whole[:-16],
    "noise": lambda whole: np.random.default_rng(0).bytes(len(whole)),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_file_that_does_not_fit_together(
    vectors: np.ndarray, tmp_path: Path, damage: str
) -> None:
    write_index(build_ivf(vectors, vectors[:200], num_lists=16), tmp_path / "index.faiss")
    file = tmp_path / "index.lists"
    file.write_bytes(DAMAGES[damage](file.read_bytes()))
    with pytest.raises(BundleRejected, match=r"index\.lists"):
        open_index(tmp_path / "index.faiss")


def test_another_layout_of_lists_in_memory_is_noticed(
    vectors: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then index.faiss is read, which has all there is."""
    write_index(build_ivf(vectors, vectors[:200], num_lists=16), tmp_path / "index.faiss")
    monkeypatch.setattr(faiss.OnDiskInvertedLists, "set_all_lists_sizes", lambda self, sizes: None)
    index = open_index(tmp_path / "index.faiss")
    lists = faiss.downcast_InvertedLists(parts(index)[0].invlists)
    assert not isinstance(lists, faiss.OnDiskInvertedLists) and index.ntotal == NUM


def test_none_is_left_beside_an_exact_index(vectors: np.ndarray, tmp_path: Path) -> None:
    write_index(build_ivf(vectors, vectors[:200], num_lists=16), tmp_path / "index.faiss")
    assert (tmp_path / "index.lists").exists()
    write_index(build_exact(vectors), tmp_path / "index.faiss")
    assert not (tmp_path / "index.lists").exists()
    assert isinstance(open_index(tmp_path / "index.faiss"), faiss.IndexFlat)


def test_a_bundle_from_before_there_were_any(vectors: np.ndarray, tmp_path: Path) -> None:
    index = build_ivf(vectors, vectors[:200], num_lists=16)
    faiss.write_index(index, str(tmp_path / "index.faiss"))
    one, two = (
        x.search(vectors[:9], 10, params=reading(4))[1]
        for x in (index, open_index(tmp_path / "index.faiss"))
    )
    assert np.array_equal(one, two)
