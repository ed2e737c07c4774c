"""The console's way into the package: built from its sources, with what the lock file lists, and said plainly if not."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
CONSOLE = ROOT / "console"
STATIC = "clarion/console/static"


def load_hook() -> ModuleType:
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def built(target: str, directory: Path, **environment: str) -> Path:
    """What hatch makes of the working copy."""
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(directory)],
        cwd=ROOT,
        env={**os.environ, **environment},
        check=True,
        capture_output=True,
    )
    (path,) = directory.iterdir()
    return path


def test_the_console_is_built_from_the_sources_as_they_are() -> None:
    stamp = ROOT / "src" / STATIC / "built-from"
    assert stamp.is_file(), "the console is not built: scripts/setup says why"
    assert stamp.read_text() == load_hook().sources_hash()


def test_the_lock_file_has_hashes_and_names_no_registry() -> None:
    text = (CONSOLE / "package-lock.json").read_text()
    packages = json.loads(text)["packages"]
    assert len(packages) > 100
    for name, package in packages.items():
        assert "resolved" not in package, name
        assert name == "" or package["integrity"].startswith("sha512-"), name
        # A script at installation would be code that nobody looked at.
        assert not package.get("hasInstallScript"), name


def test_versions_are_exact() -> None:
    package = json.loads((CONSOLE / "package.json").read_text())
    assert "dependencies" not in package
    for name, version in package["devDependencies"].items():
        assert version[0].isdigit(), name


def test_a_wheel_has_the_console_and_the_licences_of_what_is_in_it(tmp_path: Path) -> None:
    with zipfile.ZipFile(built("wheel", tmp_path)) as wheel:
        names = wheel.namelist()
        assert f"{STATIC}/index.html" in names
        assert sum(name.startswith(f"{STATIC}/graphql/assets/") for name in names) > 20
        licences = wheel.read(f"{STATIC}/licenses.md").decode()
    assert all(name in licences for name in ("monaco-editor", "graphiql", "react-dom", "inter", "fira-code"))


def test_a_wheel_lacks_it_only_for_who_says_so(tmp_path: Path) -> None:
    with zipfile.ZipFile(built("wheel", tmp_path, CLARION_BUILD_CONSOLE="no")) as wheel:
        assert not [name for name in wheel.namelist() if name.startswith(STATIC)]


def test_a_source_distribution_has_the_sources_and_nothing_built(tmp_path: Path) -> None:
    with tarfile.open(built("sdist", tmp_path)) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"hatch_build.py", "console/package-lock.json", "console/source/main.tsx"} <= names
    assert not [name for name in names if "node_modules" in name or "console/static" in name]


@pytest.mark.parametrize("path", ["as it is", "without the machine's Node"])
def test_who_cannot_reach_npm_is_told_what_to_do(tmp_path: Path, path: str) -> None:
    shutil.copy(ROOT / "hatch_build.py", tmp_path)
    shutil.copytree(CONSOLE, tmp_path / "console", ignore=shutil.ignore_patterns("node_modules"))
    done = subprocess.run(
        [sys.executable, "hatch_build.py"],
        cwd=tmp_path,
        env={
            "PATH": os.environ["PATH"] if path == "as it is" else "",
            "HOME": str(tmp_path / "home"),
            "npm_config_cache": str(tmp_path / "cache"),
            "npm_config_registry": "http://127.0.0.1:9/",
            "npm_config_fetch_retries": "0",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "ECONNREFUSED" in done.stderr
    assert "npm_config_registry" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "src" / STATIC).exists()
