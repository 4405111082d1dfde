"""What people install: the wheel, alone, in a fresh environment."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from ess_can import __version__

_ROOT = Path(__file__).resolve().parents[2]
_NEEDED = ("pyproject.toml", "README.md", "LICENSE", "ess_can", "dbc", "firmware_samples")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a clean copy of the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in _NEEDED:
        if (_ROOT / name).is_dir():
            shutil.copytree(_ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "build"))
        else:
            shutil.copy(_ROOT / name, source / name)
    pip(Path(sys.executable), "wheel", "--no-deps", "--wheel-dir", str(folder), str(source))
    (built,) = folder.glob("*.whl")
    return built


def pip(python: Path, *arguments: str) -> None:
    command = [str(python), "-m", "pip", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr


def test_what_travels_in_it(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {
        "ess_can/py.typed",
        "ess_can/data/ess.dbc",
        *(f"ess_can/data/samples/{node}-1.0.0.signed.bin" for node in ("bmu", "comm_gateway")),
        *(f"ess_can/data/samples/{node}-1.1.0.essup" for node in ("bmu", "comm_gateway")),
        *(f"ess_can/data/keys/TEST-ONLY-{name}.pub.pem" for name in ("release", "firmware")),
    } <= names
    pems = {name for name in names if name.endswith(".pem")}
    assert all(name.endswith(".pub.pem") for name in pems)
    with zipfile.ZipFile(wheel) as archive:
        assert not [name for name in names if b"PRIVATE KEY-----" in archive.read(name)]
    assert not [name for name in names if name.startswith(("tests/", "firmware_samples/", "docs/"))]
    assert {path.relative_to(_ROOT).as_posix() for path in (_ROOT / "ess_can").rglob("*.py")} <= names


def test_it_runs_where_it_is_installed(wheel: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "venv")], check=True, timeout=120)
    scripts = tmp_path / "venv" / ("Scripts" if os.name == "nt" else "bin")
    pip(scripts / "python", "install", str(wheel))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    clean = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [str(scripts / "ess-can"), *arguments],
            capture_output=True, text=True, cwd=elsewhere, env=clean, timeout=120, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    assert run("--version") == f"ess-can, version {__version__}\n"
    told = json.loads(run("demo", "--json"))
    assert (told["result"], [node["to_version"] for node in told["nodes"]]) == ("done", ["1.1.0", "1.1.0"])
    assert json.loads(run("inventory", "--sim", "--json"))["result"] == "ok"
    assert not list(elsewhere.iterdir())
