"""What tests share: one server for the session, a fresh migrated database for each test, the real command line."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path

import psutil
import psycopg
import pytest
from hypothesis import settings
from psycopg import sql

from clarion.app import prepare_database
from clarion.database.address import DatabaseAddress
from clarion.database.embedded import EmbeddedServer
from clarion.database.migrate import adopt
from harness.cluster import installed_server
from harness.deployment import Deployment
from harness.process import CLARION, ClarionProcess, clean_environment, parents_of_all

DEBIAN_15 = Path("/usr/lib/postgresql/15/bin")
TEMPLATE = "clarion_template"
MEMORY = Path("/dev/shm")
MEMORY_MIN = 8 * 1024**3
"""Bytes that have to be free for all workers' servers: each takes one or two GiB at most, its log of 1 GiB included."""

# How long an example takes is the machine's affair.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--postgres", choices=("embedded", "debian15"), default="embedded", help="the server behind `database`"
    )


@pytest.hookimpl(wrapper=True, optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> Generator[None, int, int]:
    """One worker more than there are cores, since half of the tests' time is waiting; four at most, each has a server.

    PYTEST_XDIST_AUTO_NUM_WORKERS has the last word.
    """
    workers_count = yield
    return workers_count if "PYTEST_XDIST_AUTO_NUM_WORKERS" in os.environ else min(4, workers_count + 1)


def pytest_report_header(config: pytest.Config) -> str:
    return f"postgres: {config.getoption('--postgres')}"


@pytest.fixture(scope="session", autouse=True)
def nothing_left_behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Fails the session when a process that works in its directories is still there at the end."""
    base = str(tmp_path_factory.getbasetemp())
    yield
    left = [line for line in _processes() if base in line]
    assert not left, f"processes left behind: {left}"


def _processes() -> list[str]:
    """Command line and directory of every other process but those that started this one (Linux; elsewhere none)."""
    parents = parents_of_all()
    ancestors, pid = set(), os.getpid()
    while pid > 0:
        ancestors.add(pid)
        pid = parents.get(pid, 0)
    found = []
    for pid in parents.keys() - ancestors:
        process = Path(f"/proc/{pid}")
        try:
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            found.append(f"{pid} {command} in {(process / 'cwd').readlink()}")
        except OSError:
            continue
    return found


@pytest.fixture(scope="session")
def server(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DatabaseAddress]:
    """The session's PostgreSQL server, as its superuser, on database `postgres`."""
    if pytestconfig.getoption("--postgres") == "debian15":
        with (
            tempfile.TemporaryDirectory(prefix="clarion15.") as directory,
            installed_server(DEBIAN_15, Path(directory)) as address,
        ):
            yield address
    else:
        with (
            _in_memory() or nullcontext(tmp_path_factory.mktemp("server")) as directory,
            EmbeddedServer(Path(directory)) as address,
        ):
            yield address.with_database("postgres")


def _in_memory() -> tempfile.TemporaryDirectory[str] | None:
    """A directory in memory, where the machine has plenty (Linux): no test takes the power away, and each database that is
    made or dropped waits for a checkpoint.
    """
    try:
        room = shutil.disk_usage(MEMORY)
    except OSError:
        return None
    available = psutil.virtual_memory().available
    return (
        tempfile.TemporaryDirectory(prefix="clarion.", dir=MEMORY) if min(room.free, available) > MEMORY_MIN else None
    )


@contextmanager
def _administering(server: DatabaseAddress) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    with psycopg.connect(server.url, autocommit=True) as connection:
        yield connection


@pytest.fixture(scope="session")
def template(server: DatabaseAddress) -> str:
    """The name of a migrated database that nobody may connect to; the others are copies of it."""
    with _administering(server) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(TEMPLATE)))
        prepare_database(server.with_database(TEMPLATE))
        connection.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(sql.Identifier(TEMPLATE)))
    return TEMPLATE


_numbers = itertools.count(1)


@contextmanager
def _databases(server: DatabaseAddress, template: Callable[[], str]) -> Iterator[Callable[..., DatabaseAddress]]:
    names = []

    def make(*, migrated: bool = True) -> DatabaseAddress:
        name = f"test_{next(_numbers)}"
        source = template() if migrated else "template0"
        with _administering(server) as connection:
            connection.execute(
                # Copying files takes a third of the time of writing them through the log.
                sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY FILE_COPY").format(
                    sql.Identifier(name), sql.Identifier(source)
                )
            )
        names.append(name)
        address = server.with_database(name)
        if migrated:
            with psycopg.connect(address.url) as connection:
                adopt(connection)
        return address

    try:
        yield make
    finally:
        with _administering(server) as connection:
            for name in names:
                connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@contextmanager
def _processes_in(home: Path) -> Iterator[Callable[..., ClarionProcess]]:
    data_dirs: set[Path] = set()
    with ExitStack() as ending:

        def stop_servers() -> None:
            for data_dir in data_dirs:
                EmbeddedServer(data_dir)._stop()

        ending.callback(stop_servers)

        def start(*arguments: str, home: Path = home, command: str = CLARION, **settings: str) -> ClarionProcess:
            environment = clean_environment(home, **settings)
            data_dirs.add(home / environment.get("CLARION_DATA_DIR", ".clarion"))
            process = ClarionProcess([command, *arguments], environment, home)
            ending.callback(process.kill)
            return process

        yield start


@pytest.fixture
def make_database(server: DatabaseAddress, request: pytest.FixtureRequest) -> Iterator[Callable[..., DatabaseAddress]]:
    """Makes databases that are dropped after the test: migrated ones, or empty ones with `migrated=False`."""
    with _databases(server, lambda: request.getfixturevalue("template")) as make:
        yield make


@pytest.fixture
def database(make_database: Callable[..., DatabaseAddress]) -> DatabaseAddress:
    """A fresh migrated database of its own incarnation, as superuser. Its roles are those of the template."""
    return make_database()


@pytest.fixture
def clarion_process(tmp_path: Path) -> Iterator[Callable[..., ClarionProcess]]:
    """Starts `clarion ARGUMENTS…` in an empty directory with a clean environment; `CLARION_*` as keywords.

    The data directory is `.clarion` in the test's own directory unless told otherwise. At the end each process group is
    killed, and the embedded server that it left is stopped.
    """
    with _processes_in(tmp_path) as start:
        yield start


@pytest.fixture
def deployment(
    database: DatabaseAddress, tmp_path: Path, clarion_process: Callable[..., ClarionProcess]
) -> Iterator[Deployment]:
    """An application with a table, a receiver process, nothing attached and nothing running yet."""
    with Deployment(database, tmp_path, clarion_process) as made:
        yield made


@pytest.fixture(scope="module")
def shared_database(server: DatabaseAddress, template: str) -> Iterator[DatabaseAddress]:
    """As `database`, one for all tests of a module: each undoes what it does, or keeps to names of its own."""
    with _databases(server, lambda: template) as make:
        yield make()


@pytest.fixture(scope="module")
def shared_deployment(
    shared_database: DatabaseAddress, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    """As `deployment`, one for all tests of a module."""
    home = tmp_path_factory.mktemp("shared")
    with _processes_in(home) as start, Deployment(shared_database, home, start) as made:
        yield made
