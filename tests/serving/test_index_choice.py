"""`penchant serve --index`: what the bundle carries or one matrix on a device, and what is refused.

A bundle whose parts do not fit each other is signed anew here, as another writer could have done,
so that it is not its checksums that give it away.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import pytest
import torch

from model.ann import build_exact, exact_search, write_index
from model.bundle import INDEX, VECTORS, open_bundle
from model.errors import BundleRejected, ConfigError
from model.ivf import build_ivf
from model.manifest import DIGEST, MANIFEST, open_verified, write_folder
from penchant import Client
from serving.config import ServerConfig
from serving.domain import AnyOf
from serving.generation import Generation
from serving.index.ivf_index import IvfIndex
from tests.serving.processes import ROOT, Served, environment, penchant
from tests.serving.tiny import DIM, NUM_ITEMS, World, item_id

no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")


def test_the_matrix_answers_as_the_index_of_the_bundle_does(
    server: Served, start_server: Callable[..., AbstractContextManager[Served]]
) -> None:
    # Two workers: what must not be on one GPU may be on the CPU, where tests run.
    options = ("--index", "torch", "--device", "cpu", "--workers", "2")
    with (
        start_server(*options) as other,
        Client(server.address) as bundle,
        Client(other.address) as matrix,
    ):
        # Not the empty history: one of its interests is zero, and every item ties.
        for user in ("user-007", "user-031", "user-079"):
            for filters in ([], [AnyOf("craft", ("silver",))], [AnyOf("craft", ("none",))]):
                one, two = (
                    client.retrieve(user, k=50, filters=filters, exclude_seen=True)
                    for client in (bundle, matrix)
                )
                assert one.item_ids == two.item_ids
                np.testing.assert_allclose(one.scores, two.scores, atol=1e-5)


@no_gpu
def test_a_gpu_that_is_not_there_is_asked_for(world: World, tmp_path: Path) -> None:
    done = serve_and_fail(world.bundle, tmp_path, "--index", "torch")
    assert "torch sees no GPU here" in done.stderr
    assert "--index bundle" in done.stderr and "scripts/setup --cuda" in done.stderr


def test_torch_is_not_installed(world: World, tmp_path: Path) -> None:
    """A Python without torch, by a folder in front of it; the index `bundle` needs none."""
    (tmp_path / "front").mkdir()
    (tmp_path / "front/torch.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'torch'\", name='torch')\n"
    )
    done = serve_and_fail(world.bundle, tmp_path, "--index", "torch", front=tmp_path / "front")
    assert "torch is not installed" in done.stderr
    assert "penchant[gpu]" in done.stderr and "--index bundle" in done.stderr
    code = "import serving.server, serving.cli, serving.supervisor"
    done = run([sys.executable, "-c", code], front=tmp_path / "front")
    assert done.returncode == 0, done.stderr


@no_gpu
def test_one_process_owns_the_gpu(world: World, tmp_path: Path) -> None:
    done = serve_and_fail(world.bundle, tmp_path, "--index", "torch", "--workers", "2")
    assert "workers = 2 is not allowed with index = 'torch'" in done.stderr
    assert "one process owns the GPU" in done.stderr


def test_an_index_of_no_such_name(world: World, tmp_path: Path) -> None:
    done = penchant("serve", str(world.bundle), "--state", str(tmp_path), "--index", "hnsw")
    assert done.returncode == 2 and "hnsw" in done.stderr
    with pytest.raises(ConfigError, match=r"index = 'hnsw' is not allowed; allowed: bundle, torch"):
        ServerConfig(bundle=world.bundle, state=tmp_path, index="hnsw")  # type: ignore[arg-type]


def test_an_index_over_other_vectors(world: World, tmp_path: Path) -> None:
    def change(folder: Path) -> None:
        write_index(build_exact(world.vectors[: world.num_active - 1]), folder / INDEX)

    bundle = signed_anew(world.bundle, tmp_path / "bundle", change)
    says = rf"index.faiss holds {world.num_active - 1} vectors of {DIM}; .* {world.num_active} of"
    with pytest.raises(BundleRejected, match=says):
        Generation(open_bundle(bundle))
    done = serve_and_fail(bundle, tmp_path)
    assert f"index.faiss holds {world.num_active - 1} vectors" in done.stderr


def test_an_index_of_an_unknown_kind(world: World, tmp_path: Path) -> None:
    ann = {"kind": "graph", "metric": "inner_product"}
    bundle = signed_anew(world.bundle, tmp_path / "bundle", ann=ann)
    with pytest.raises(BundleRejected, match=r"kind 'graph'; this version opens exact and ivf"):
        Generation(open_bundle(bundle))


def test_a_bundle_with_inverted_lists(world: World, tmp_path: Path) -> None:
    active = world.vectors[: world.num_active]

    def change(folder: Path) -> None:
        write_index(build_ivf(active, active[:50], num_lists=8), folder / INDEX)

    ann = {"kind": "ivf", "metric": "inner_product", "probes": 8, "fetch": 400}
    bundle = open_bundle(signed_anew(world.bundle, tmp_path / "bundle", change, ann=ann))
    index = Generation(bundle).index
    assert isinstance(index, IvfIndex) and index.num_rows == world.num_active
    rows, _ = index.search(world.vectors[:4], 50)
    assert rows.tolist() == exact_search(world.vectors[:4], active, 50)[0].tolist()


@pytest.mark.parametrize("rows", [0, NUM_ITEMS - 1, NUM_ITEMS + 1])
def test_items_without_vectors(world: World, tmp_path: Path, rows: int) -> None:
    vectors = np.resize(world.vectors, (rows, DIM))
    bundle = signed_anew(
        world.bundle, tmp_path / "bundle", lambda folder: np.save(folder / VECTORS, vectors)
    )
    says = rf"vectors.npy holds float32 of shape \[{rows}, {DIM}\]; {NUM_ITEMS} items need"
    with pytest.raises(BundleRejected, match=says):
        open_bundle(bundle)
    assert f"{NUM_ITEMS} items need" in serve_and_fail(bundle, tmp_path).stderr


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_item_whose_vector_is_no_number(world: World, tmp_path: Path, value: float) -> None:
    vectors = world.vectors.copy()
    vectors[417, 3] = value
    bundle = signed_anew(
        world.bundle, tmp_path / "bundle", lambda folder: np.save(folder / VECTORS, vectors)
    )
    with pytest.raises(BundleRejected, match=rf"row 417: item '{item_id(417)}' has no vector"):
        open_bundle(bundle)


def test_vectors_of_another_type(world: World, tmp_path: Path) -> None:
    doubles = world.vectors.astype(np.float64)
    bundle = signed_anew(
        world.bundle, tmp_path / "bundle", lambda folder: np.save(folder / VECTORS, doubles)
    )
    with pytest.raises(BundleRejected, match=r"vectors.npy holds float64 of shape"):
        open_bundle(bundle)


def signed_anew(
    bundle: Path,
    target: Path,
    change: Callable[[Path], None] = lambda folder: None,
    **body: object,
) -> Path:
    """A copy of a bundle with other files, or another body, and checksums that hold."""
    manifest = open_verified(bundle, kind="bundle")
    with write_folder(
        target,
        kind="bundle",
        schema=manifest.schema,
        as_of=manifest.as_of,
        body={**manifest.body, **body},
    ) as folder:
        shutil.copytree(bundle, folder, dirs_exist_ok=True)
        for name in (MANIFEST, DIGEST):
            (folder / name).unlink()
        change(folder)
    return target


def serve_and_fail(
    bundle: Path, state: Path, *arguments: str, front: Path | None = None
) -> "subprocess.CompletedProcess[str]":
    """`penchant serve` where it must refuse: exit code 2 and one message, no address."""
    command = [sys.executable, str(ROOT / "penchant.py"), "serve", str(bundle)]
    done = run([*command, "--state", str(state), "--port", "0", *arguments], front=front)
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stdout == "" and done.stderr.startswith("Error: ")
    assert "Traceback" not in done.stderr
    return done


def run(command: list[str], *, front: Path | None) -> "subprocess.CompletedProcess[str]":
    variables = environment()
    if front is not None:
        variables["PYTHONPATH"] = f"{front}{os.pathsep}{variables['PYTHONPATH']}"
    return subprocess.run(
        command, capture_output=True, text=True, timeout=60, env=variables, check=False
    )
