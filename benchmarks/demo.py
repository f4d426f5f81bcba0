"""How long `./scripts/demo --once` takes once everything is installed.

    python benchmarks/demo.py

Installs first (not timed), then runs the demo in a fresh folder, and again in the same one.
"""

import re
import subprocess
import tempfile
import time
from pathlib import Path

from results import ROOT, write_result


def timed(folder: Path) -> tuple[float, str]:
    """Seconds and output of one `./scripts/demo --once`."""
    started = time.perf_counter()
    command = [str(ROOT / "scripts" / "demo"), "--once", "--port", "50099", "--dir", str(folder)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return time.perf_counter() - started, done.stdout


def main() -> None:
    """Time a first and a second run."""
    subprocess.run([str(ROOT / "scripts" / "setup")], check=True)
    with tempfile.TemporaryDirectory() as folder:
        first, printed = timed(Path(folder) / "demo")
        second, _ = timed(Path(folder) / "demo")
    print(printed)
    steps = re.findall(r"\[demo (\d)/\d, (\d+):(\d+)\] (.+)", printed)
    begun = [int(minutes) * 60 + int(seconds) for _, minutes, seconds, _ in steps]
    spans = [
        after - before for before, after in zip(begun, [*begun[1:], round(first)], strict=True)
    ]
    write_result(
        "demo",
        title="`./scripts/demo --once`, install excluded",
        figures={"seconds_first_run": round(first, 1), "seconds_second_run": round(second, 1)},
        table=[
            ["step", "seconds"],
            *([what, str(span)] for (_, _, _, what), span in zip(steps, spans, strict=True)),
            ["**first run, all**", f"**{first:.0f}**"],
            ["second run in the same folder, all (reuses dataset and models)", f"{second:.0f}"],
        ],
        notes="The default world: 2,000 people, 6,000 items, 30 days, about 436 thousand events.",
        command="python benchmarks/demo.py",
    )


if __name__ == "__main__":
    main()
