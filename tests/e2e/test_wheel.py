"""The wheel with [serve] alone, in a clean environment far from the checkout, serves torch-free.

Builds the wheel, installs it by pip in the versions of constraints.txt, and runs the installed
`penchant` command and the installed client. Needs a package index, or pip's cache in its place.
"""

import json
import os
import re
import subprocess
import sys
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.serving.processes import ROOT
from tests.serving.tiny import World, make_world

pytestmark = pytest.mark.timeout(900)  # pip, on a machine that is busy otherwise
NO_INDEX = re.compile(
    r"NewConnectionError|ConnectTimeoutError|Name or service not known|Network is unreachable"
    r"|Temporary failure in name resolution|ProxyError|No route to host"
)


class Installed:
    """A clean environment with the wheel in it; all runs in a folder outside the checkout."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "elsewhere"
        self.folder.mkdir()
        self.bin = folder / "venv" / "bin"
        kept = ("PATH", "HOME", "LANG", "TMPDIR")
        self.environment = {name: os.environ[name] for name in kept if name in os.environ}
        self.environment |= {"COLUMNS": "200", "NO_COLOR": "1"}

    def run(self, *command: str | Path, code: int = 0) -> "subprocess.CompletedProcess[str]":
        """Run a program of the environment to its end."""
        program, *arguments = command
        done = subprocess.run(
            [self.bin / program, *arguments],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done

    @contextmanager
    def serving(self, bundle: Path, state: Path) -> Iterator[str]:
        """`penchant serve`; yields its address, and sees it end well."""
        command: list[str | Path] = [self.bin / "penchant", "serve", bundle, "--state", state]
        process = subprocess.Popen(
            [*command, "--port", "0"],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdout is not None and process.stderr is not None
            line = process.stdout.readline()
            assert line, process.stderr.read()
            yield line.split()[-1]
            process.terminate()
            _, logged = process.communicate(timeout=30)
            assert process.returncode == 0
            assert all(json.loads(line)["event"] for line in logged.splitlines()), logged
        finally:
            if process.poll() is None:
                process.kill()
                process.communicate()


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel"]
    subprocess.run([*build, "--directory", folder], cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "venv", with_pip=False, symlinks=True)
    pip: list[str | Path] = [sys.executable, "-m", "pip"]
    pip += ["--python", folder / "venv" / "bin" / "python", "install"]
    options = ["--quiet", "--no-input", "--no-compile", "--disable-pip-version-check"]
    options += ["--retries", "1", "--only-binary", ":all:"]
    done = subprocess.run(
        [*pip, *options, "-c", ROOT / "constraints.txt", f"{wheel}[serve]"],
        capture_output=True,
        text=True,
    )
    if done.returncode and NO_INDEX.search(done.stderr):
        pytest.skip("no package index can be reached, so nothing can be installed from scratch")
    assert done.returncode == 0, done.stderr
    return Installed(folder)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("world"))


def test_it_holds_what_serving_needs_and_no_torch(installed: Installed) -> None:
    code = (
        "import importlib.metadata as m, importlib.util as u, json, penchant, serving.server;"
        "print(json.dumps({'names': sorted(d.name for d in m.distributions()),"
        " 'torch': u.find_spec('torch') is not None, 'from': penchant.__file__}))"
    )
    found = json.loads(installed.run("python", "-c", code).stdout)
    names = {name.lower().replace("_", "-") for name in found["names"]}
    assert not found["torch"] and "torch" not in names
    assert {"penchant", "grpcio", "onnxruntime", "faiss-cpu"} <= names
    # Nothing of the other extras, either.
    assert not names & {"onnx", "safetensors", "scipy", "opentelemetry-sdk", "pytest", "mypy"}
    assert str(ROOT) not in found["from"] and "site-packages" in found["from"]


def test_it_serves_a_bundle_and_answers(installed: Installed, world: World) -> None:
    state = installed.folder / "state"
    installed.run("penchant", "load-users", world.snapshot, "--state", state)
    code = (
        "import json, sys; from penchant import Client\n"
        "with Client(sys.argv[1], timeout=10) as client:\n"
        "    found = client.retrieve('user-006', k=4)\n"
        "print(json.dumps([found.item_ids, found.interests.tolist()]))\n"
        "assert 'torch' not in sys.modules"
    )
    with installed.serving(world.bundle, state) as address:
        printed = installed.run("python", "-c", code, address).stdout
        table = installed.run("penchant", "query", "user-006", "--address", address, "-k", "3")
        status = installed.run("penchant", "status", "--address", address, "--json")
    item_ids, interests = json.loads(printed)
    for number, vector in enumerate(world.interests(world.histories["user-006"])):
        # The first candidate of an interest is the item nearest to it.
        nearest = world.nearest(vector, [*range(world.num_active)])[0]
        assert item_ids[interests.index(number)] == nearest
    assert "For user-006" in table.stdout
    (told,) = json.loads(status.stdout)
    assert told["bundle"]["num_items"] == 600
    assert set(told["health"].values()) == {"SERVING"}


def test_what_it_lacks_is_named(installed: Installed, world: World) -> None:
    done = installed.run("penchant", "train", "dataset", "--out", "run", code=2)
    assert "pip install 'penchant[train]'" in done.stderr and "Traceback" not in done.stderr
    serve: list[str | Path] = ["serve", world.bundle, "--state", installed.folder / "state"]
    done = installed.run("penchant", *serve, "--trace-endpoint", "http://localhost:4317", code=2)
    assert "pip install 'penchant[otel]'" in done.stderr and "Traceback" not in done.stderr


def test_its_types_are_seen_from_outside(installed: Installed) -> None:
    source = installed.folder / "caller.py"
    source.write_text(
        "from serving.client import Client\n"
        "found = Client('localhost:1').retrieve('u', k=3, filters=[])\n"
        "reveal_type(found.scores)\n"
        "Client('localhost:1').retrieve('u', kk=3)\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--python-executable", installed.bin / "python", source],
        cwd=installed.folder,
        env=installed.environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert 'Revealed type is "numpy.ndarray[' in done.stdout, done.stdout
    assert 'Unexpected keyword argument "kk"' in done.stdout
    assert "Found 1 error in 1 file" in done.stdout, done.stdout
