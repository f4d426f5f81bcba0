"""Scripts of benchmarks/gpu run, small, on the CPU, and with torch and numpy alone."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
ABSENT = ("faiss", "grpc", "google", "onnxruntime", "pyarrow", "polars", "pydantic", "typer")


def test_the_index_is_measured_where_nothing_but_torch_and_numpy_is_installed(
    tmp_path: Path,
) -> None:
    script = ROOT / "benchmarks/gpu/torch_index.py"
    arguments = ["--device", "cpu", "--items", "3000", "--dim", "16", "--rounds", "1"]
    code = f"""
import runpy, sys
sys.modules.update(dict.fromkeys({ABSENT}))
sys.argv[1:] = {[*arguments, "--results", str(tmp_path)]}
sys.path[0] = {str(script.parent)!r}
runpy.run_path({str(script)!r}, run_name="__main__")
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    figures = json.loads((tmp_path / "torch_index_cpu.json").read_text())["figures"]
    recalls = [value for name, value in figures.items() if name.startswith("recall@")]
    assert len(recalls) == 16 and min(recalls) > 0.999
    assert figures["floor_ms"] > 0 and figures["ms@all, 64"] > 0
    assert "times the floor" in (tmp_path / "torch_index_cpu.md").read_text()
