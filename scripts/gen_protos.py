"""Generate the Python code of protos/interest/v1, or check that what is committed is up to date.

    python scripts/gen_protos.py            # write protos/interest/v1/*_pb2*.py and *.pyi
    python scripts/gen_protos.py --check    # exit 1, naming the files, where they have drifted

The generators live in a venv of their own (.venv-protos, made on the first run): code made by
newer grpcio-tools refuses the older protobuf and grpcio that Penchant still runs on. Give
`--python` to use an environment that already has them. Knows nothing of what the protos mean.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"
VENV = ROOT / ".venv-protos"
GENERATORS = ("grpcio-tools==1.71.2", "mypy-protobuf==3.6.0", "setuptools<81")


def generator_python() -> Path:
    """The interpreter of .venv-protos, which is made and filled if it is not there."""
    python = VENV / "bin" / "python"
    done = VENV / "generators.txt"
    if not done.exists() or done.read_text(encoding="utf-8") != "\n".join(GENERATORS):
        print(f"making {VENV.name} with {', '.join(GENERATORS)} …", file=sys.stderr)
        venv.create(VENV, with_pip=True, clear=True)
        subprocess.run(
            [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *GENERATORS],
            check=True,
        )
        done.write_text("\n".join(GENERATORS), encoding="utf-8")
    return python


def generate(python: Path, target: Path) -> None:
    """Write the generated tree (interest/v1/*) under `target`."""
    sources = sorted(path.relative_to(PROTOS).as_posix() for path in PROTOS.rglob("*.proto"))
    kinds = {"python": "", "grpc_python": "", "mypy": "quiet:", "mypy_grpc": "quiet:"}
    outputs = [f"--{kind}_out={options}{target}" for kind, options in kinds.items()]
    subprocess.run(
        [python, "-m", "grpc_tools.protoc", f"-I{PROTOS}", *outputs, *sources],
        check=True,
        cwd=PROTOS,
        # protoc looks for the mypy plugins on the PATH.
        env={**os.environ, "PATH": f"{python.parent}{os.pathsep}{os.environ.get('PATH', '')}"},
    )


def tree(folder: Path) -> dict[str, bytes]:
    """Every generated file under `folder`, by its path there."""
    files = (path for pattern in ("*_pb2*.py", "*_pb2*.pyi") for path in folder.rglob(pattern))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def main() -> int:
    """Run the command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="fail on drift, write nothing")
    parser.add_argument("--python", type=Path, help="an interpreter that has the generators")
    arguments = parser.parse_args()

    python = arguments.python or generator_python()
    with tempfile.TemporaryDirectory() as temporary:
        generate(python, Path(temporary))
        fresh = tree(Path(temporary))
    committed = tree(PROTOS)
    changed = sorted(name for name in fresh if committed.get(name) != fresh[name])
    stale = sorted(set(committed) - set(fresh))
    if arguments.check:
        for name in changed:
            print(f"protos/{name} is not what its .proto generates", file=sys.stderr)
        for name in stale:
            print(f"protos/{name} belongs to no .proto", file=sys.stderr)
        if changed or stale:
            print("run `python scripts/gen_protos.py` and commit the result", file=sys.stderr)
            return 1
        print(f"{len(fresh)} generated files are up to date")
        return 0
    for name in changed:
        (PROTOS / name).write_bytes(fresh[name])
    for name in stale:
        (PROTOS / name).unlink()
    print(f"{len(changed)} files written, {len(stale)} removed, {len(fresh)} in all")
    return 0


if __name__ == "__main__":
    sys.exit(main())
