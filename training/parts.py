"""A table in Parquet parts, computed by several processes, that goes on after any interruption.

A part appears under its final name whole or not at all, so whatever is there when a run starts is
kept, and only the rest is computed. While a folder holds `unfinished.json` it is not whole; when
the last part is there, `manifest.json` takes its place. Knows nothing of what the rows are.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from model.atomic import sync, write_text
from model.errors import ConfigError
from training.part_workers import Rows, compute_parts, part_name

FORMAT, KIND = 1, "embeddings"
MANIFEST, UNFINISHED, SCRATCH = "manifest.json", "unfinished.json", ".scratch"
_PARTIAL = ".partial-"
"""In the names that model/atomic.py gives to what it has not finished."""

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

    def note(self) -> str:
        """The JSON of unfinished.json."""
        body = {"part_rows": self.part_rows, "command": self.command}
        return json.dumps({"kind": KIND, **self.content, **body}, indent=1)


@dataclass(frozen=True, slots=True)
class Written:
    """What a run did."""

    num_rows: int
    """Rows of the whole table."""
    num_kept: int
    """Rows that were there before."""
    seconds: float
    """Time spent on the others."""


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
        elif held is not None:
            _refuse_other(out, plan, held)
        finished = (out / MANIFEST).exists()
        if finished:
            (out / UNFINISHED).unlink(missing_ok=True)  # where the last run ended in between
        elif held is None or overwrite:
            write_text(out / UNFINISHED, plan.note())
        for stale in out.glob(f".*{_PARTIAL}*"):
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
        compute_parts(
            out,
            missing,
            make_rows,
            workers=min(workers, len(missing)),
            tell=lambda rows: progress(kept + rows, num_rows),
        )
    body = {
        "format": FORMAT,
        "kind": KIND,
        "created": datetime.now(UTC).isoformat(),
        **plan.content,
        "part_rows": plan.part_rows,
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
            if isinstance(found, dict) and found.get("kind") == KIND:
                return found
    if any(_PARTIAL not in path.name for path in out.iterdir()):
        raise ConfigError(
            f"{out} holds something else than embeddings; name another folder or an empty one."
        )
    return None


def _refuse_other(out: Path, plan: Plan, held: Mapping[str, Any]) -> None:
    """Raise ConfigError if the folder's note is of another plan."""
    finished, now = (out / MANIFEST).exists(), {**plan.content, "part_rows": plan.part_rows}
    differing = [name for name in now if held.get(name) != now[name]]
    if finished and differing == ["part_rows"]:
        return  # the same rows, cut otherwise
    if "of" in differing:
        differing = ["of"]
    if differing:
        words = ", ".join(
            f"{name} is {_short(held.get(name))} there and {_short(now[name])} now"
            for name in differing
        )
        command = held.get("command")
        raise ConfigError(
            f"{out} holds {'finished' if finished else 'unfinished'} embeddings of something else: "
            f"{words}. {f'Finish it with: {command}. Or name' if command else 'Name'} another "
            "folder, or pass --overwrite to begin anew."
        )


def _short(value: object) -> str:
    return f"{value:.12}…" if isinstance(value, str) and len(value) == 64 else str(value)


def _clear(out: Path) -> None:
    """Remove the parts of earlier runs; ended in between, the folder is an unfinished one."""
    if (out / MANIFEST).exists():
        (out / MANIFEST).replace(out / UNFINISHED)
        sync(out)
    for part in out.glob("part-*.parquet"):
        part.unlink()
    shutil.rmtree(out / SCRATCH, ignore_errors=True)


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
