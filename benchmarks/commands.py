"""Penchant's own commands, run in this Python from this checkout."""

import os
import subprocess
import sys

from results import ROOT

ENVIRONMENT = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'protos'}"}
PENCHANT = (sys.executable, str(ROOT / "penchant.py"))


def penchant(*arguments: object) -> None:
    """Run one `penchant` command; stop if it fails."""
    subprocess.run([*PENCHANT, *map(str, arguments)], check=True, env=ENVIRONMENT)
