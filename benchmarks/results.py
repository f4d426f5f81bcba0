"""How a benchmark leaves its result: NAME.md for people, NAME.json for programs, in results/."""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
FOLDER = Path(__file__).resolve().parent / "results"


def machine() -> str:
    """The processor, its cores and the versions that matter, in one line."""
    name = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        name = names[0].partition(":")[2].strip() if names else name
    python = f"Python {platform.python_version()}"
    return f"{os.cpu_count()} cores of {name}, {platform.system()}, {python}"


def commit() -> str:
    """The commit the figures belong to, marked if the tree had changes beside other results."""
    changes = ["git", "status", "--porcelain", "--untracked-files=no", "--", ":!benchmarks/results"]
    try:
        head, dirty = (
            subprocess.check_output(command, cwd=ROOT, text=True).strip()
            for command in (["git", "describe", "--always"], changes)
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{head}-dirty" if dirty else head


def write_result(
    name: str,
    *,
    title: str,
    figures: Mapping[str, Any],
    table: Sequence[Sequence[str]],
    notes: str,
    command: str | None = None,
    folder: Path = FOLDER,
) -> None:
    """Write results/NAME.json and results/NAME.md, and print the table.

    figures: metric → number, a peer's or a reference's under its own name. table: rows of cells,
    the header first. notes: what was measured and how, in sentences. folder: instead of results/.
    """
    command = command or "python " + " ".join(sys.argv)
    body = {
        "command": command,
        "commit": commit(),
        "machine": machine(),
        "date": date.today().isoformat(),
        "figures": dict(figures),
    }
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(body, indent=1) + "\n")
    header, *rows = table
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    text = "\n".join(
        [
            f"# {title}",
            "",
            *lines,
            "",
            notes,
            "",
            f"Machine: {body['machine']}. Commit: {body['commit']}. Date: {body['date']}.",
            "",
            f"    {command}",
            "",
        ]
    )
    (folder / f"{name}.md").write_text(text)
    print(text)
