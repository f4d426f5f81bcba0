"""A table in Parquet parts, computed by several processes, that goes on after any interruption.

A part appears under its final name whole or not at all, so whatever is there when a run starts is
kept, and only the rest is computed. While a folder holds `unfinished.json` it is not whole; when
the last part is there, `manifest.json` takes its place. Knows nothing of what the rows are.
"""

import contextlib
import fcntl
import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from multiprocessing.connection import wait as wait_for
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from model.atomic import sync, write_text, write_whole
from model.errors import ConfigError, PenchantError
from training.memory import keep_freed_memory

FORMAT = 1
MANIFEST, UNFINISHED, SCRATCH = "manifest.json", "unfinished.json", ".scratch"

Rows = Callable[[int, int], Iterator[pa.Table]]
"""rows(start, stop) → the table's rows [start, stop), in order, in as many tables as it likes."""
Progress = Callable[[int, int], None]
"""Called with (rows done, rows in all); rows of earlier runs count as done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a folder of parts holds. A run goes on only where it was begun by an equal plan."""

    content: Mapping[str, Any]
    """What decides the rows, as JSON: their kind, the versions of what they come from, options."""
    part_rows: int
    """Rows of every part but the last."""
    command: str
    """What the person can type to go on."""


@dataclass(frozen=True, slots=True)
class Written:
    """What a run did."""

    num_rows: int
    """Rows of the whole table."""
    num_kept: int
    """Rows that were there before."""
    seconds: float
    """Time spent on the others."""


class Interrupted(PenchantError):
    """A run ended before its last part; the parts that are written are kept."""


def part_name(part: int) -> str:
    """The file of a part."""
    return f"part-{part:05d}.parquet"


def command_to_finish(out: Path) -> str | None:
    """The command that an unfinished folder was begun with; None for any other folder."""
    with contextlib.suppress(OSError, ValueError, KeyError):
        return str(json.loads((out / UNFINISHED).read_text(encoding="utf-8"))["command"])
    return None


@contextlib.contextmanager
def parts_folder(out: Path, plan: Plan, *, overwrite: bool) -> Iterator[bool]:
    """Hold the folder for this plan; yields whether it is finished already, or to be written.

    Raises ConfigError if the folder is another process's at the moment, holds something else, or
    parts of another plan and overwrite is False. With overwrite, what it holds is removed first.
    """
    out.mkdir(parents=True, exist_ok=True)
    handle = os.open(out, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)  # let go of when the process ends
        except BlockingIOError:
            raise ConfigError(
                f"another process is writing into {out}; wait for it, or name another folder."
            ) from None
        held = _held(out)
        if held is not None and overwrite:
            _clear(out)
            held = None
        if held is not None:
            _refuse_other(out, plan, held)
        finished = (out / MANIFEST).exists()
        if held is None:
            write_text(out / UNFINISHED, json.dumps(asdict(plan), indent=1))
        for stale in out.glob(".*.partial-*"):
            stale.unlink()
        yield finished
    finally:
        os.close(handle)


def write_parts(
    out: Path,
    plan: Plan,
    num_rows: int,
    make_rows: Callable[[], Rows],
    *,
    workers: int,
    progress: Progress = lambda done, total: None,
) -> Written:
    """Compute the parts that are missing of `num_rows` rows, then write the manifest.

    Within `parts_folder`. make_rows: called once in each worker process; picklable. workers: how
    many processes, each with one thread.

    Raises PenchantError with the message of the one that a worker raised, Interrupted if a worker
    died.
    """
    started = time.perf_counter()
    starts = range(0, num_rows, plan.part_rows)
    spans = {p: (start, min(start + plan.part_rows, num_rows)) for p, start in enumerate(starts)}
    missing = {p: span for p, span in spans.items() if not _is_whole(out / part_name(p), span)}
    kept = num_rows - sum(stop - start for start, stop in missing.values())
    progress(kept, num_rows)
    if missing:
        _compute(
            out,
            missing,
            make_rows,
            workers=min(workers, len(missing)),
            tell=lambda rows: progress(kept + rows, num_rows),
        )
    body = {
        "format": FORMAT,
        "kind": "embeddings",
        "created": datetime.now(UTC).isoformat(),
        **plan.content,
        "num_rows": num_rows,
        "files": {part_name(p): _entry(out / part_name(p), span) for p, span in spans.items()},
    }
    shutil.rmtree(out / SCRATCH, ignore_errors=True)
    write_text(out / MANIFEST, json.dumps(body, indent=1))
    (out / UNFINISHED).unlink()
    sync(out)
    return Written(num_rows, kept, time.perf_counter() - started)


# --- the folder ----------------------------------------------------------------------------------


def _held(out: Path) -> dict[str, Any] | None:
    """What the folder's own note says it holds; None for an empty folder.

    Raises ConfigError if the folder holds anything else.
    """
    for name in (MANIFEST, UNFINISHED):
        with contextlib.suppress(OSError, ValueError):
            found = json.loads((out / name).read_text(encoding="utf-8"))
            if isinstance(found, dict) and (
                name == UNFINISHED or found.get("kind") == "embeddings"
            ):
                return found
    if any(out.iterdir()):
        raise ConfigError(
            f"{out} holds something else than embeddings; name another folder or an empty one."
        )
    return None


def _refuse_other(out: Path, plan: Plan, held: Mapping[str, Any]) -> None:
    """Raise ConfigError if the folder's note is of another plan."""
    before, now = held.get("content", held), dict(plan.content)
    differing = [name for name in now if before.get(name) != now[name]]
    if held.get("part_rows", plan.part_rows) != plan.part_rows:
        differing.append("part_rows")
        before, now = {**before, **held}, {**now, "part_rows": plan.part_rows}
    if not differing:
        return
    if "of" in differing:
        differing = ["of"]
    words = ", ".join(
        f"{n} is {_short(before.get(n))} there and {_short(now[n])} now" for n in differing
    )
    again = f"Finish it with: {held['command']}. Or name" if "command" in held else "Name"
    state = "unfinished" if "command" in held else "finished"
    raise ConfigError(
        f"{out} holds {state} embeddings of something else: {words}. {again} another folder, or "
        "pass --overwrite to begin anew."
    )


def _short(value: object) -> str:
    return f"{value:.12}…" if isinstance(value, str) and len(value) == 64 else str(value)


def _clear(out: Path) -> None:
    """Remove what earlier runs wrote; what remains after any interruption is still told apart."""
    (out / MANIFEST).unlink(missing_ok=True)
    sync(out)
    for part in out.glob("part-*.parquet"):
        part.unlink()
    shutil.rmtree(out / SCRATCH, ignore_errors=True)
    (out / UNFINISHED).unlink(missing_ok=True)


def _is_whole(path: Path, span: tuple[int, int]) -> bool:
    """Whether a part is there; what is no Parquet file of its rows does not count."""
    try:
        return int(pq.read_metadata(path).num_rows) == span[1] - span[0]
    except (OSError, pa.ArrowException):
        return False


def _entry(path: Path, span: tuple[int, int]) -> dict[str, Any]:
    """What the manifest says of a part."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"rows": span[1] - span[0], "size": path.stat().st_size, "sha256": digest}


# --- the processes -------------------------------------------------------------------------------


def _compute(
    out: Path,
    spans: Mapping[int, tuple[int, int]],
    make_rows: Callable[[], Rows],
    *,
    workers: int,
    tell: Callable[[int], None],
) -> None:
    """Write the parts of these spans of rows. tell: called with the rows computed so far."""
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
