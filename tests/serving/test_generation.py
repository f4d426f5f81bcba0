"""Opening a bundle for serving: nothing but what was verified may be opened."""

import shutil
from pathlib import Path

import pytest

from model.bundle import open_bundle
from model.errors import BundleRejected
from serving.generation import Generation
from tests.serving.tiny import World


def test_a_bundle_that_is_replaced_while_it_is_opened_is_noticed(
    world: World, tmp_path: Path
) -> None:
    folder, other = tmp_path / "bundle", tmp_path / "other"
    shutil.copytree(world.bundle, folder)
    shutil.copytree(world.bundle, other)
    bundle = open_bundle(folder)
    Generation(bundle)
    folder.rename(tmp_path / "old")
    other.rename(folder)
    with pytest.raises(BundleRejected, match="was replaced while it was being opened"):
        Generation(bundle)
