"""The `penchant` command as a person meets it: quick help, clear refusals, right exit codes."""

import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer

import penchant


def run(*arguments: str, before: str = "") -> subprocess.CompletedProcess[str]:
    """Run `penchant` in a fresh interpreter, after the code `before`."""
    code = f"import sys\n{before}\nimport penchant\npenchant.main()"
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "COLUMNS": "200"},
    )


def test_help_lists_every_command_and_imports_none_of_them() -> None:
    heavy = ("torch", "grpc", "faiss", "polars", "pyarrow", "numpy", "training", "serving")
    told = "import atexit\n" + "atexit.register(lambda: print('loaded:', *sys.modules))"
    done = run("--help", before=told)
    assert done.returncode == 0
    page, _, loaded = done.stdout.partition("loaded:")
    for name, command in penchant.COMMANDS.items():
        assert f" {name} " in page
        assert command.summary in page
    assert set(heavy) & set(loaded.split()) == set()


@pytest.mark.parametrize(
    "module",
    [
        *("training.cli", "serving.cli", "serving.server_cli"),
        *("serving.people_cli", "serving.state_cli"),
    ],
)
def test_the_table_lists_what_the_modules_have(module: str) -> None:
    group = typer.main.get_command(importlib.import_module(module).app)
    listed = {name for name, command in penchant.COMMANDS.items() if command.module == module}
    assert listed == set(group.list_commands(typer.Context(group)))  # type: ignore[attr-defined]


def test_a_refusal_is_one_message_and_exit_code_2(tmp_path: Path) -> None:
    done = run("validate", str(tmp_path))
    assert done.returncode == 2
    assert done.stderr.startswith("Error: dataset.toml: there is no such file")
    assert "Traceback" not in done.stderr


def test_what_the_system_refuses_is_one_message_too(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = run("simulate", str(tmp_path / "file" / "world"))
    assert done.returncode == 2 and done.stderr.startswith("Error: ")
    assert "Traceback" not in done.stderr and "file" in done.stderr


def test_a_missing_extra_is_named() -> None:
    done = run("status", before="sys.modules['grpc'] = None")
    assert done.returncode == 2
    assert "penchant status needs the extra [serve]: pip install 'penchant[serve]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_module_of_our_own_is_a_bug_not_an_extra() -> None:
    done = run("status", before="sys.modules['serving.client'] = None")
    assert done.returncode == 1
    assert "Traceback" in done.stderr


def test_an_interrupt_is_exit_code_130() -> None:
    # Ctrl-C while the command's own module is still being imported.
    finder = """
class Interrupted:
    def find_spec(self, name, path, target=None):
        if name == "training.cli":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupted())
"""
    done = run("train", before=finder)
    assert done.returncode == 130
    assert "Traceback" not in done.stderr


def test_unknown_commands_and_no_command_are_usage_errors() -> None:
    done = run("trian")
    assert done.returncode == 2
    assert "Did you mean 'train'?" in done.stderr
    assert run().returncode == 2


def test_the_clients_are_at_the_front_door() -> None:
    from serving.client import AsyncClient, Client

    assert penchant.Client is Client
    assert penchant.AsyncClient is AsyncClient
    with pytest.raises(AttributeError, match="no attribute 'Cliant'"):
        _ = penchant.Cliant


def test_the_client_names_its_extra() -> None:
    code = "import sys; sys.modules['grpc'] = None\nfrom penchant import Client"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "penchant.Client needs the extra [serve]" in done.stderr


def test_waiting_threads_soon_sleep_unless_told_otherwise() -> None:
    told = "import atexit, os\natexit.register(lambda: print(os.environ.get('GOMP_SPINCOUNT')))"
    assert run("--version", before=told).stdout.split()[-1] == "2000"
    for chosen, found in (("GOMP_SPINCOUNT", "7"), ("OMP_WAIT_POLICY", "None")):
        before = f"import os\nos.environ[{chosen!r}] = '7'\n{told}"
        assert run("--version", before=before).stdout.split()[-1] == found
