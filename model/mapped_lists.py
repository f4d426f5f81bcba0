"""An index of inverted lists in a file that processes map, and so hold once for all of them.

FAISS (1.15) copies the blocks of a fast-scan index into each process's own memory, whatever flags
it is read with: 29 MB for a million rows. Its OnDiskInvertedLists are mapped and hand codes on as
they lie in the file, so they serve blocks as well. Such a file has, one after the other:

    of each list    its codes, in whole blocks, and its rows, filled up to as many with -1
    sizes           int64, how many rows each list has
    head            the index without its lists, as FAISS writes it
    footer          int64, the number of lists and the bytes of the head
"""

import ctypes
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import numpy.typing as npt

from model.errors import BundleRejected

Int64 = npt.NDArray[np.int64]

_ROW_BYTES = _NUMBER_BYTES = 8


def write_mapped(index: Any, path: Path) -> None:
    """Write an index of `model.ivf.build_ivf` to be opened by `open_mapped`."""
    whole, lists = _lists(index)
    sizes = np.array([lists.list_size(n) for n in range(whole.nlist)], np.int64)
    with path.open("wb") as file:
        for number, size in enumerate(sizes.tolist()):
            if not size:  # it has no pointers, either
                continue
            num_blocks = -(-size // lists.n_per_block)
            codes = faiss.rev_swig_ptr(lists.get_codes(number), num_blocks * lists.block_size)
            rows = np.full(num_blocks * lists.n_per_block, -1, np.int64)
            rows[:size] = faiss.rev_swig_ptr(lists.get_ids(number), size)
            file.write(codes.data)
            file.write(rows.data)
        head = faiss.deserialize_index(faiss.serialize_index(index))
        _lists(head)[1].reset()
        serialized = faiss.serialize_index(head)
        file.write(sizes.data)
        file.write(serialized.data)
        file.write(np.array([len(sizes), len(serialized)], np.int64).data)


def open_mapped(path: Path) -> Any | None:
    """The index, whose lists stay in the file; None where this FAISS cannot be shown them.

    Raises BundleRejected where the file does not fit together.
    """
    try:
        return _open(path)
    except (ValueError, RuntimeError) as error:  # NumPy's and FAISS's
        raise BundleRejected(f"{path} is not what it should be: {error}") from error


def _open(path: Path) -> Any | None:
    data = np.memmap(path, np.uint8, "r")
    num_lists, head_bytes = data[-2 * _NUMBER_BYTES :].view(np.int64).tolist()
    head = data[len(data) - 2 * _NUMBER_BYTES - head_bytes : -2 * _NUMBER_BYTES]
    end = len(data) - 2 * _NUMBER_BYTES - head_bytes - num_lists * _NUMBER_BYTES
    sizes = np.frombuffer(data[end : end + num_lists * _NUMBER_BYTES].tobytes(), np.int64)
    index = faiss.deserialize_index(np.array(head))
    whole, lists = _lists(index)
    room = (-(-sizes // lists.n_per_block) * lists.n_per_block).astype(np.uint64)
    needed = int(room.sum()) * (whole.code_size + _ROW_BYTES)
    if num_lists != whole.nlist or int(sizes.sum()) != index.ntotal or end != needed:
        raise BundleRejected(f"{path} does not fit together. Export the bundle again.")
    mapped: Any = faiss.OnDiskInvertedLists(num_lists, whole.code_size, str(path))
    mapped.set_all_lists_sizes(faiss.swig_ptr(room))
    # That was the room they have, and so where each lies; their sizes leave the filling out.
    numbers = (ctypes.c_size_t * (3 * num_lists)).from_address(int(mapped.lists.data().this))
    fields = np.ctypeslib.as_array(numbers).reshape(-1, 3)
    places = (np.cumsum(room) - room) * (whole.code_size + _ROW_BYTES)
    if not np.array_equal(fields, np.stack([room, room, places], axis=1)):
        return None  # not of one's size, room and place, as they lie in the FAISS known here
    fields[:, 0] = sizes
    mapped.read_only, mapped.totsize, mapped.prefetch_nthread = True, end, 0
    mapped.do_mmap()
    whole.replace_invlists(mapped, True)
    mapped.this.disown()  # the index frees it
    return index


def _lists(index: Any) -> tuple[Any, Any]:
    """The IndexIVFFastScan inside an index, and its lists in blocks."""
    whole: Any = faiss.downcast_index(index.index)
    return whole, faiss.downcast_InvertedLists(whole.invlists)
