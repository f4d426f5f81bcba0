"""The shape of the repository: what is packaged, what is pinned, and who may import whom."""

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("model", "training", "serving", "protos/interest")
TORCH_FILES = {
    "model.bag",
    "model.features",
    "model.interests",
    "model.sequence",
    "model.towers",
    "model.value",
    "model.value_bottoms",
    "serving.index.torch_index",
}


def sources(*packages: str) -> list[Path]:
    """The Python files of our packages, relative to the repository."""
    return sorted(p.relative_to(ROOT) for name in packages for p in (ROOT / name).rglob("*.py"))


def modules(package: str) -> list[str]:
    """The names of a package's modules, itself first."""
    names = (p.with_suffix("").as_posix().replace("/", ".") for p in sources(package))
    return [name.removesuffix(".__init__") for name in names]


def test_no_package_hides_under_tests() -> None:
    # tests/model/__init__.py would make pytest import tests/model as `model`.
    assert list((ROOT / "tests").rglob("__init__.py")) == []


def test_every_package_init_is_only_a_docstring() -> None:
    for path in sources("model", "training", "serving"):
        if path.name == "__init__.py":
            assert re.fullmatch(r'""".+"""\n', (ROOT / path).read_text(), re.DOTALL), path


def test_the_wheel_holds_every_source_file_under_its_import_name(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel"]
    subprocess.run([*build, "--directory", tmp_path], cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        held = {n for n in archive.namelist() if n.endswith(".py")}
    ours = {p.as_posix().removeprefix("protos/") for p in sources(*PACKAGES)}
    assert held == ours | {"penchant.py"}


def imports_without(blocked: str, names: list[str]) -> subprocess.CompletedProcess[str]:
    """Import modules in a fresh interpreter that has no module `blocked`."""
    code = f"import sys, importlib; sys.modules[{blocked!r}] = None\n"
    code += f"for name in {names!r}: importlib.import_module(name)"
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("package", "blocked"),
    [
        ("model", "torch"),
        ("serving", "torch"),
        ("serving", "redis"),
        ("training", "grpc"),
        ("training", "serving"),
    ],
)
def test_a_package_does_without(package: str, blocked: str) -> None:
    names = [name for name in modules(package) if blocked != "torch" or name not in TORCH_FILES]
    assert len(names) > 5
    done = imports_without(blocked, names)
    assert done.returncode == 0, done.stderr


def pins() -> dict[str, str]:
    """constraints.txt as name → version."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in pinned}


def test_everything_installed_for_penchant_is_pinned() -> None:
    pinned, seen, missing = pins(), set(), set()
    waiting = [("penchant", frozenset({"all"}))]
    while waiting:
        name, extras = waiting.pop()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        if name != "penchant" and name not in pinned:
            missing.add(name)
        for line in importlib.metadata.requires(name) or ():
            requirement = Requirement(line)
            if requirement.marker is None or any(
                requirement.marker.evaluate({"extra": extra}) for extra in (*extras, "")
            ):
                waiting.append((canonicalize_name(requirement.name), frozenset(requirement.extras)))
    # What torch's CUDA build brings is torch's to choose: it names exact versions itself.
    assert {n for n in missing if not n.startswith(("nvidia-", "cuda-", "triton"))} == set()


def test_torch_is_pinned_first() -> None:
    assert next(iter(pins())) == "torch"


VIOLATIONS = [
    ("model/merge.py", "import training.config", "model and interest import nothing of ours"),
    ("model/merge.py", "import interest", "model and interest do not know each other"),
    ("training/config.py", "import serving.domain", "training imports model"),
    ("training/config.py", "import grpc", "training imports model"),
    ("serving/domain.py", "import training.config", "serving imports model and interest"),
    ("serving/domain.py", "import scripts.gen_protos", "serving imports model and interest"),
    ("model/ann.py", "import torch", "the torch-free files"),
    ("model/ann.py", "import model.towers", "the torch-free files"),
    ("serving/domain.py", "import torch", "torch appears only in"),
    ("serving/domain.py", "import model.towers", "torch appears only in"),
    ("serving/store/redis.py", "import redis", "Redis, which is optional, appears only in"),
    ("serving/domain.py", "import grpc", "appear only at the edge"),
    ("serving/domain.py", "from google.protobuf import message", "appear only at the edge"),
    ("serving/domain.py", "import interest.v1.types_pb2", "appear only at the edge"),
]


@pytest.mark.parametrize(("file", "line", "contract"), VIOLATIONS)
def test_a_forbidden_import_is_found(tmp_path: Path, file: str, line: str, contract: str) -> None:
    for name in ("model", "training", "serving"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / "protos" / "interest", tmp_path / "interest")
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    with (tmp_path / file).open("a") as source:
        source.write(f"\n{line}\n")
    # import-linter looks in its working folder before anywhere else.
    done = subprocess.run(
        [Path(sys.executable).parent / "lint-imports", "--no-cache"],
        cwd=tmp_path,
        env={**os.environ, "COLUMNS": "200"},
        capture_output=True,
        text=True,
    )
    broken = [text for text in done.stdout.splitlines() if " BROKEN" in text]
    assert done.returncode == 1
    assert any(contract in text for text in broken), done.stdout
