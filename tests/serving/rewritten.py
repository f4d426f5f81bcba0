"""A copy of a bundle with other files in it, and with a manifest that says so."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from model.manifest import DIGEST, MANIFEST, open_verified, write_folder


def rewritten(bundle: Path, target: Path, change: Callable[[Path, dict[str, Any]], None]) -> Path:
    """change(folder, body): puts files into the folder, and sections into the manifest's body."""
    manifest = open_verified(bundle, kind="bundle")
    body = dict(json.loads(json.dumps(manifest.body)))
    with write_folder(
        target, kind="bundle", schema=manifest.schema, as_of=manifest.as_of, body=body
    ) as folder:
        shutil.copytree(
            bundle, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(MANIFEST, DIGEST)
        )
        change(folder, body)
    return target
