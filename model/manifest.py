"""Folders that are whole or absent: written beside, checksummed, renamed; verified when opened.

A bundle, a snapshot and a segment of live items are such folders. `MANIFEST.sha256` holds the hash
of `manifest.json`, which holds the hash and size of every other file, so one short hash stands for
the whole folder and no parser ever sees a byte that was not verified. Knows nothing of what the
files mean.
"""

import contextlib
import ctypes
import glob
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from model.atomic import sync, sync_tree
from model.errors import BundleRejected, ConfigError, DatasetError
from model.schema import Schema, parse_schema

FORMAT = 4
"""What is written."""
READS = (2, 3, FORMAT)
"""Of format 2, the value model reads nothing of what a user did with a candidate before; of format
3, nothing of what with others of its creator."""
MANIFEST, DIGEST = "manifest.json", "MANIFEST.sha256"

Kind = Literal["bundle", "snapshot", "segment"]


@dataclass(frozen=True, slots=True)
class Manifest:
    """A verified manifest.json."""

    version: str
    """SHA-256 of manifest.json in hex: the folder's version id."""
    kind: Kind
    created: datetime
    as_of: datetime | None
    """The last event that the data had; None where the dataset has no times."""
    schema: Schema
    body: dict[str, Any]
    """What only this kind of folder has: dims, tower inputs, metrics, ..."""


@contextlib.contextmanager
def write_folder(
    target: Path,
    *,
    kind: Kind,
    schema: Schema,
    as_of: datetime | None,
    body: dict[str, Any],
    replace: bool = False,
) -> Iterator[Path]:
    """Write a checksummed folder: yields a temporary folder to fill, then makes it appear whole.

    target: the final name. body: goes into the manifest as it is when the block ends, so that it
    may be filled inside the block. replace: whether an existing folder of the same kind gives way.

    Raises ConfigError if the target exists and replace is False, or if it is anything else than an
    empty folder or one of this kind. If the block raises, nothing remains and an existing target
    stays as it was.
    """
    refuse_existing(target, kind=kind if replace else None)
    target.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(target)
    partial = target.parent / f".{target.name}.partial-{os.getpid()}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        yield partial
        files = {
            path.relative_to(partial).as_posix(): {
                "sha256": _sha256(path),
                "size": path.stat().st_size,
            }
            for path in sorted(partial.rglob("*"))
            if path.is_file()
        }
        manifest = {
            "format": FORMAT,
            "kind": kind,
            "created": datetime.now(UTC).isoformat(),
            "as_of": as_of.isoformat() if as_of else None,
            "schema": schema.model_dump(exclude_none=True),
            **body,
            "files": files,
        }
        text = json.dumps(manifest, ensure_ascii=False, indent=1).encode()
        (partial / MANIFEST).write_bytes(text)
        (partial / DIGEST).write_bytes(_digest_line(text))
        sync_tree(partial)
        if target.exists():
            _exchange(partial, target)  # what was there is now under the temporary name
        else:
            partial.rename(target)
        sync(target.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def refuse_existing(target: Path, *, kind: Kind | None) -> None:
    """Raise ConfigError if there is anything under the name `target`; with a kind, anything that
    is not an empty folder or a folder of that kind."""
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    if kind is None:
        raise ConfigError(f"{target} exists already; name another folder, or pass --overwrite.")
    if not _is_kind(target, kind):
        raise ConfigError(
            f"{target} is no {kind}, so --overwrite does not replace it; name another folder."
        )


def _is_kind(path: Path, kind: Kind) -> bool:
    try:
        found = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and found.get("kind") == kind


def _remove_abandoned(target: Path) -> None:
    """Remove what processes that were killed while they wrote `target` have left beside it."""
    for left in target.parent.glob(f".{glob.escape(target.name)}.partial-*"):
        process = left.name.rpartition("-")[2]
        if process.isdigit() and not _is_running(int(process)):
            shutil.rmtree(left, ignore_errors=True)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)  # sends nothing
    except ProcessLookupError:
        return False
    except OSError:  # another person's
        return True
    return True


def _exchange(one: Path, other: Path) -> None:
    """Swap two names at once where the system can (Linux), else one after the other."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is not None:
        here, swap = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
        if rename(here, os.fsencode(one), here, os.fsencode(other), swap) == 0:
            return
    aside = other.with_name(f".{other.name}.old-{os.getpid()}")
    other.rename(aside)
    one.rename(other)
    aside.rename(one)


def open_verified(path: Path, *, kind: Kind) -> Manifest:
    """Verify every byte of a folder and return its manifest.

    Raises BundleRejected, naming the file, if the folder or a file is missing, has other content
    than the manifest says, is not listed, or if kind or format are not what this version reads.
    """
    if not path.is_dir():
        raise BundleRejected(f"{path}: no such {kind}. `penchant export` writes one.")
    names = {p.relative_to(path).as_posix() for p in path.rglob("*") if not p.is_dir()}
    for needed in (DIGEST, MANIFEST):
        if needed not in names:
            raise BundleRejected(f"{path}: {needed} is missing; this is no whole {kind}. {_AGAIN}")
    text = (path / MANIFEST).read_bytes()
    if (path / DIGEST).read_bytes() != _digest_line(text):
        raise BundleRejected(
            f"{path}: {MANIFEST} does not match {DIGEST}: one of them is damaged. {_AGAIN}"
        )
    manifest = json.loads(text)
    if manifest.get("format") not in READS:
        raise BundleRejected(
            f"{path}: format {manifest.get('format')!r}; this version reads formats "
            f"{', '.join(map(str, READS[:-1]))} and {FORMAT}. "
            "Serve it with the version that wrote it, or export it again."
        )
    if manifest["kind"] != kind:
        raise BundleRejected(f"{path} is a {manifest['kind']}; a {kind} is needed here.")
    files: Mapping[str, Mapping[str, Any]] = manifest["files"]
    listed = {MANIFEST, DIGEST, *files}
    if names != listed:
        name = min(names ^ listed)
        if name in listed:
            raise BundleRejected(f"{path}: {name} is missing. {_AGAIN}")
        raise BundleRejected(f"{path}: {name} is not in the manifest; remove it. {_AGAIN}")
    for name, entry in files.items():
        size = (path / name).stat().st_size
        if size != entry["size"]:
            raise BundleRejected(
                f"{path}: {name} has {size} bytes instead of {entry['size']}: truncated or "
                f"overwritten. {_AGAIN}"
            )
        if _sha256(path / name) != entry["sha256"]:
            raise BundleRejected(f"{path}: {name} is damaged: its SHA-256 does not match. {_AGAIN}")
    fixed = {"format", "kind", "created", "as_of", "schema", "files"}
    return Manifest(
        version=hashlib.sha256(text).hexdigest(),
        kind=kind,
        created=datetime.fromisoformat(manifest["created"]),
        as_of=datetime.fromisoformat(manifest["as_of"]) if manifest["as_of"] else None,
        schema=_schema(path, manifest["schema"]),
        body={name: value for name, value in manifest.items() if name not in fixed},
    )


def stated_version(path: Path, *, kind: Kind) -> str:
    """The version that a folder says it has; nothing of it is verified.

    Raises BundleRejected as `open_verified` does where it says none.
    """
    try:
        words = (path / DIGEST).read_text(encoding="ascii").split()
    except (OSError, ValueError):
        words = []
    return words[0] if words else open_verified(path, kind=kind).version


def _schema(path: Path, body: Mapping[str, Any]) -> Schema:
    try:
        return parse_schema(body, file=MANIFEST)
    except DatasetError as error:
        raise BundleRejected(
            f"{path}: {error} Serve it with the version that wrote it, or export it again."
        ) from None


_AGAIN = "Copy it again from where it was written, or export it again."


def _digest_line(text: bytes) -> bytes:
    return f"{hashlib.sha256(text).hexdigest()}  {MANIFEST}\n".encode()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
