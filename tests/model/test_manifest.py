"""Checksummed folders: whole or absent when written, and verified to the last bit when opened."""

import hashlib
import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from model.errors import BundleRejected, ConfigError
from model.manifest import DIGEST, FORMAT, MANIFEST, open_verified, write_folder
from model.schema import Event, Schema

SCHEMA = Schema(name="竹", time="exact", events={"watch": Event(role="engagement")})
AS_OF = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)


def write(target: Path, text: str = "vectors", *, replace: bool = False) -> Path:
    body: dict[str, Any] = {"dim": 3}
    with write_folder(
        target, kind="bundle", schema=SCHEMA, as_of=AS_OF, body=body, replace=replace
    ) as folder:
        assert folder.parent == target.parent and folder != target
        (folder / "vocab").mkdir()
        (folder / "vectors.npy").write_text(text)
        (folder / "vocab" / "encoder.json").write_text("{}")
        body["late"] = ["见"]
    return target


def everything(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*"))


def test_what_is_written_is_opened(tmp_path: Path) -> None:
    target = write(tmp_path / "out" / "bundle")
    manifest = open_verified(target, kind="bundle")
    assert (manifest.kind, manifest.schema, manifest.as_of) == ("bundle", SCHEMA, AS_OF)
    assert manifest.body == {"dim": 3, "late": ["见"]}
    assert manifest.version == hashlib.sha256((target / MANIFEST).read_bytes()).hexdigest()
    # sha256sum -c understands MANIFEST.sha256.
    assert (target / DIGEST).read_text() == f"{manifest.version}  manifest.json\n"
    assert abs((datetime.now(UTC) - manifest.created).total_seconds()) < 600
    assert everything(target.parent) == [
        "bundle",
        "bundle/MANIFEST.sha256",
        "bundle/manifest.json",
        "bundle/vectors.npy",
        "bundle/vocab",
        "bundle/vocab/encoder.json",
    ]


def test_a_block_that_raises_leaves_nothing(tmp_path: Path) -> None:
    with (
        pytest.raises(ZeroDivisionError),
        write_folder(
            tmp_path / "bundle", kind="bundle", schema=SCHEMA, as_of=None, body={}
        ) as folder,
    ):
        (folder / "vectors.npy").write_text("half")
        raise ZeroDivisionError
    assert everything(tmp_path) == []


def test_a_block_that_raises_keeps_the_old_folder(tmp_path: Path) -> None:
    version = open_verified(write(tmp_path / "bundle"), kind="bundle").version
    with (
        pytest.raises(KeyboardInterrupt),
        write_folder(
            tmp_path / "bundle", kind="bundle", schema=SCHEMA, as_of=None, body={}, replace=True
        ) as folder,
    ):
        (folder / "vectors.npy").write_text("half")
        raise KeyboardInterrupt
    assert open_verified(tmp_path / "bundle", kind="bundle").version == version
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"]


def test_an_existing_folder_gives_way_only_to_replace(tmp_path: Path) -> None:
    write(tmp_path / "bundle", "old")
    with pytest.raises(ConfigError, match=r"bundle exists already; .* pass --overwrite"):
        write(tmp_path / "bundle", "new")
    assert (tmp_path / "bundle" / "vectors.npy").read_text() == "old"
    write(tmp_path / "bundle", "new", replace=True)
    open_verified(tmp_path / "bundle", kind="bundle")
    assert (tmp_path / "bundle" / "vectors.npy").read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["bundle"]


def flip_size(folder: Path) -> None:
    with (folder / "vectors.npy").open("ab") as file:
        file.write(b"\0")


def remanifest(folder: Path, **changes: Any) -> None:
    """Change the manifest and its digest together, as another version of Penchant would."""
    body = {**json.loads((folder / MANIFEST).read_text()), **changes}
    text = json.dumps(body).encode()
    (folder / MANIFEST).write_bytes(text)
    (folder / DIGEST).write_text(f"{hashlib.sha256(text).hexdigest()}  {MANIFEST}\n")


DAMAGE: list[tuple[Callable[[Path], object], str]] = [
    (lambda f: shutil.rmtree(f), "no such bundle. `penchant export` writes one"),
    (lambda f: (f / DIGEST).unlink(), "MANIFEST.sha256 is missing; this is no whole bundle"),
    (lambda f: (f / MANIFEST).unlink(), "manifest.json is missing; this is no whole bundle"),
    (lambda f: (f / "vectors.npy").unlink(), "vectors.npy is missing"),
    (lambda f: (f / "vocab/encoder.json").unlink(), "vocab/encoder.json is missing"),
    (lambda f: (f / "notes.txt").write_text(""), "notes.txt is not in the manifest"),
    (lambda f: (f / "vocab/x").write_text(""), "vocab/x is not in the manifest"),
    (lambda f: (f / "evil").symlink_to("/etc/hostname"), "evil is not in the manifest"),
    (lambda f: (f / "vectors.npy").write_text("vector"), "vectors.npy has 6 bytes instead of 7"),
    (flip_size, "vectors.npy has 8 bytes instead of 7"),
    (lambda f: (f / "vectors.npy").write_text("Vectors"), "vectors.npy is damaged"),
    (lambda f: (f / MANIFEST).write_text("{}"), "manifest.json does not match MANIFEST.sha256"),
    (lambda f: (f / DIGEST).write_text(""), "manifest.json does not match MANIFEST.sha256"),
    (lambda f: remanifest(f, format=FORMAT + 1), "format 5; this version reads formats 2, 3 and 4"),
    (lambda f: remanifest(f, format=1), "format 1; this version reads formats 2, 3 and 4"),
    (lambda f: remanifest(f, kind="snapshot"), "is a snapshot; a bundle is needed here"),
]


@pytest.mark.parametrize(("damage", "says"), DAMAGE, ids=[says for _, says in DAMAGE])
def test_a_folder_that_is_not_as_it_was_written_is_refused(
    tmp_path: Path, damage: Callable[[Path], object], says: str
) -> None:
    target = write(tmp_path / "bundle")
    open_verified(target, kind="bundle")
    damage(target)
    with pytest.raises(BundleRejected) as caught:
        open_verified(target, kind="bundle")
    assert says in str(caught.value) and str(target) in str(caught.value)


def test_any_one_flipped_bit_is_noticed(tmp_path: Path) -> None:
    target = write(tmp_path / "bundle")
    for path in (p for p in target.rglob("*") if p.is_file()):
        content = path.read_bytes()
        for bit in range(0, 8 * len(content), 7):
            flipped = bytearray(content)
            flipped[bit // 8] ^= 1 << bit % 8
            path.write_bytes(flipped)
            with pytest.raises(BundleRejected) as caught:
                open_verified(target, kind="bundle")
            assert path.name in str(caught.value)
        path.write_bytes(content)
    open_verified(target, kind="bundle")


def test_a_snapshot_is_no_bundle(tmp_path: Path) -> None:
    with write_folder(tmp_path / "s", kind="snapshot", schema=SCHEMA, as_of=None, body={}):
        pass
    assert open_verified(tmp_path / "s", kind="snapshot").as_of is None
    with pytest.raises(BundleRejected, match="is a snapshot; a bundle is needed here"):
        open_verified(tmp_path / "s", kind="bundle")
