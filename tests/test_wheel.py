"""The wheel holds the whole product and works where nothing else of the source is."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.recipes.tiny_run import ROOT

SOURCES = ("psr", "callbacks", "pyproject.toml", "LICENSE", "README.md")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that nothing is left beside the source and nothing old is packed."""
    source = tmp_path_factory.mktemp("source")
    for name in SOURCES:
        path = ROOT / name
        if path.is_dir():
            shutil.copytree(path, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(path, source / name)
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(source / "dist")]
    done = subprocess.run(build, cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    [built] = (source / "dist").glob("*.whl")
    return built


def test_it_holds_every_module_and_nothing_else(wheel: Path):
    patterns = ("psr/**/*.py", "callbacks/**/*.py", "psr/report/page/*")
    ours = {str(path.relative_to(ROOT)) for pattern in patterns for path in ROOT.glob(pattern)}
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert packed == ours


def test_it_names_the_command_and_the_licence(wheel: Path):
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        [entry_points] = [name for name in names if name.endswith("entry_points.txt")]
        assert "psr = psr.cli.main:main" in archive.read(entry_points).decode()
        assert any(name.endswith("licenses/LICENSE") for name in names)


def test_it_installs_and_runs_from_there(wheel: Path, tmp_path: Path):
    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    pip = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--target", str(site), str(wheel)]
    subprocess.run(pip, check=True, capture_output=True)
    code = "import psr.cli.main, callbacks.self_rewarding_loop as loop; print(psr.cli.main.__file__, loop.__file__)"
    environment = {**os.environ, "PYTHONPATH": str(site)}
    done = subprocess.run([sys.executable, "-c", code], cwd=elsewhere, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(site / "psr" / "cli.py"), str(site / "callbacks" / "self_rewarding_loop.py")]
    called = [sys.executable, "-m", "psr.cli.main", "--help"]
    helped = subprocess.run(called, cwd=elsewhere, env=environment, capture_output=True, text=True)
    assert helped.returncode == 0 and "psr" in helped.stdout
