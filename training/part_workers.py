"""The processes that compute the parts of a table: one for each core, each with one thread.

They leave when their parent does, however that ends. Knows nothing of plans, manifests or of what
the rows are.
"""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.connection import wait as wait_for
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from model.atomic import write_whole
from model.errors import PenchantError
from training.memory import keep_freed_memory

Rows = Callable[[int, int], Iterator[pa.Table]]
"""rows(start, stop) → the table's rows [start, stop), in order, in as many tables as it likes."""


class Interrupted(PenchantError):
    """A process ended before its last part; the parts that are written are kept."""


def part_name(part: int) -> str:
    """The file of a part."""
    return f"part-{part:05d}.parquet"


def compute_parts(
    out: Path,
    spans: Mapping[int, tuple[int, int]],
    make_rows: Callable[[], Rows],
    *,
    workers: int,
    tell: Callable[[int], None],
) -> None:
    """Compute and write these parts, each a span [start, stop) of rows.

    make_rows: called once in each process; picklable. tell: called with the rows made so far.
    Raises PenchantError with the message of the one that a process raised, Interrupted if one died.
    """
    context = multiprocessing.get_context("spawn")
    counter, stop = context.Value("q", 0), context.Event()
    pool = ProcessPoolExecutor(
        workers, context, initializer=_begin, initargs=(out, make_rows, counter, stop)
    )
    try:
        with _one_thread_each():
            running = {pool.submit(_write, part, *span) for part, span in spans.items()}
        while running:
            done, running = wait(running, timeout=0.2, return_when=FIRST_COMPLETED)
            for future in done:
                future.result()
            tell(counter.value)
    except BrokenProcessPool:
        raise Interrupted(
            "a worker process was ended from outside, perhaps for want of memory. The parts that "
            "are written are kept: go on with the same command, with fewer --workers if need be."
        ) from None
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def _one_thread_each() -> Iterator[None]:
    """Processes begun here use one thread of each library; Ctrl-C is for their parent alone."""
    names = ("OMP_NUM_THREADS", "POLARS_MAX_THREADS")
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(dict.fromkeys(names, "1"))
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@dataclass(slots=True)
class _Worker:
    """What one worker process has."""

    out: Path
    make_rows: Callable[[], Rows]
    counter: Any
    stop: Any
    rows: Rows | None = None


_worker: _Worker | None = None


def _begin(out: Path, make_rows: Callable[[], Rows], counter: Any, stop: Any) -> None:
    global _worker
    _worker = _Worker(out, make_rows, counter, stop)
    pa.set_cpu_count(1)
    keep_freed_memory()
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A parent that was killed cannot say so: leave when it is gone."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait_for([parent.sentinel])
        os._exit(1)


def _write(part: int, start: int, stop: int) -> None:
    """Compute and write one part, in a worker process."""
    assert _worker is not None
    try:
        if _worker.rows is None:
            _worker.rows = _worker.make_rows()
        tables = []
        for table in _worker.rows(start, stop):
            if _worker.stop.is_set():
                return
            tables.append(table)
            with _worker.counter.get_lock():
                _worker.counter.value += table.num_rows
    except PenchantError as error:
        # Exceptions with arguments of their own do not come through to another process.
        raise PenchantError(str(error)) from None
    whole = pa.concat_tables(tables)
    write_whole(_worker.out / part_name(part), lambda partial: _save(whole, partial))


def _save(table: pa.Table, path: Path) -> None:
    """Write a Parquet file as it is: vectors are not worth compressing."""
    plain = [n for n in table.column_names if not pa.types.is_nested(table.schema.field(n).type)]
    pq.write_table(table, path, compression="none", use_dictionary=False, write_statistics=plain)
