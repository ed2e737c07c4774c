from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from clarion.core.errors import EnvironmentRefused
from clarion.database.embedded import EmbeddedServer
from harness.process import ClarionProcess, clean_environment

# A process that uses the server until it is told to leave by SIGTERM.
USER = """
import signal, sys
from pathlib import Path
from clarion.database.embedded import EmbeddedServer
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
with EmbeddedServer(Path(sys.argv[1])) as address:
    print("using", address.url, flush=True)
    signal.sigwait({signal.SIGTERM})
print("left", flush=True)
"""


@pytest.fixture
def start_user(tmp_path: Path) -> Iterator[Callable[[Path], ClarionProcess]]:
    users: list[tuple[ClarionProcess, Path]] = []

    def start(data_dir: Path) -> ClarionProcess:
        user = ClarionProcess([sys.executable, "-c", USER, str(data_dir)], clean_environment(tmp_path), tmp_path)
        users.append((user, data_dir))
        return user

    yield start
    for user, _ in users:
        user.kill()
    for _, data_dir in users:
        EmbeddedServer(data_dir)._stop()


def postmaster(data_dir: Path) -> int | None:
    found = EmbeddedServer(data_dir)._postmaster()
    return found[0] if found else None


def leave(user: ClarionProcess) -> None:
    user.process.send_signal(signal.SIGTERM)
    assert user.wait().code == 0, user.output()


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory whose server was used once and stopped."""
    data_dir = tmp_path_factory.mktemp("stopped")
    with EmbeddedServer(data_dir) as address, psycopg.connect(address.url) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 'still here' AS word")
    return data_dir


@pytest.fixture
def data_dir(stopped: Path, tmp_path: Path) -> Path:
    """A copy of it. Made by this process, so root's copy belongs to root, which the server must survive."""
    shutil.rmtree(stopped / "socket", ignore_errors=True)
    return Path(shutil.copytree(stopped, tmp_path / "data"))


def test_data_survives_stop_and_start(data_dir: Path) -> None:
    with EmbeddedServer(data_dir) as address, psycopg.connect(address.url) as connection:
        assert connection.execute("SELECT word FROM kept").fetchone() == ("still here",)
    assert postmaster(data_dir) is None


def test_server_is_durable_and_unreachable_from_the_network(data_dir: Path) -> None:
    with EmbeddedServer(data_dir) as address, psycopg.connect(address.url) as connection:
        wanted = {
            "fsync": "on",
            "synchronous_commit": "on",
            "full_page_writes": "on",
            "data_checksums": "on",
            "listen_addresses": "",
            "server_encoding": "UTF8",
            "jit": "off",
        }
        for setting, value in wanted.items():
            assert connection.execute("SELECT current_setting(%s)", [setting]).fetchone() == (value,), setting
    assert (data_dir / "socket").stat().st_mode & 0o777 == 0o700


def test_directories_above_stay_closed_to_everybody_else(tmp_path: Path) -> None:
    private = tmp_path / "home" / "project"
    private.mkdir(parents=True)
    for directory in (private, private.parent):
        directory.chmod(0o700)
    with EmbeddedServer(private / "data") as address:
        psycopg.connect(address.url).close()
    for directory in (private / "data", private, private.parent):
        assert directory.stat().st_mode & 0o007 == 0
        assert directory.stat().st_mode & 0o060 == 0


def test_last_user_stops_the_server(data_dir: Path, start_user: Callable[[Path], ClarionProcess]) -> None:
    first, second = start_user(data_dir), start_user(data_dir)
    urls = {user.wait_for_line("using (.*)")[1] for user in (first, second)}
    assert len(urls) == 1
    pid = postmaster(data_dir)
    leave(first)
    assert postmaster(data_dir) == pid
    psycopg.connect(urls.pop()).close()
    leave(second)
    assert postmaster(data_dir) is None


def test_last_user_stops_the_server_after_another_was_killed(
    data_dir: Path, start_user: Callable[[Path], ClarionProcess]
) -> None:
    starter = start_user(data_dir)
    starter.wait_for_line("using")
    other = start_user(data_dir)
    other.wait_for_line("using")
    starter.kill()
    assert postmaster(data_dir) is not None
    leave(other)
    assert postmaster(data_dir) is None


def test_server_of_killed_users_is_joined_and_then_stopped(
    data_dir: Path, start_user: Callable[[Path], ClarionProcess]
) -> None:
    only = start_user(data_dir)
    only.wait_for_line("using")
    pid = postmaster(data_dir)
    only.kill()
    with EmbeddedServer(data_dir):
        assert postmaster(data_dir) == pid
    assert postmaster(data_dir) is None


def test_users_that_come_at_once_on_a_new_directory_share_one_server(
    tmp_path: Path, start_user: Callable[[Path], ClarionProcess]
) -> None:
    data_dir = tmp_path / "new" / "data"
    users = [start_user(data_dir) for _ in range(4)]
    assert len({user.wait_for_line("using (.*)")[1] for user in users}) == 1
    for user in users:
        leave(user)
    assert postmaster(data_dir) is None
    assert not list(data_dir.glob("postgres.new.*"))


def test_forked_child_does_not_hold_the_server(data_dir: Path) -> None:
    context = multiprocessing.get_context("fork")
    server = EmbeddedServer(data_dir)
    server.start()
    release = context.Event()
    child = context.Process(target=release.wait)
    child.start()
    try:
        server.stop()
        assert postmaster(data_dir) is None
    finally:
        release.set()
        child.join()


def test_subprocess_does_not_hold_the_server(data_dir: Path) -> None:
    server = EmbeddedServer(data_dir)
    server.start()
    child = subprocess.Popen(["sleep", "60"], close_fds=False)
    try:
        server.stop()
        assert postmaster(data_dir) is None
    finally:
        child.kill()
        child.wait()


def test_killed_server_is_recovered_at_once(data_dir: Path) -> None:
    server = EmbeddedServer(data_dir)
    address = server.start()
    with psycopg.connect(address.url) as connection:
        connection.execute("CREATE TABLE committed AS SELECT 1 AS one")
    pid = postmaster(data_dir)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    server.stop()
    with EmbeddedServer(data_dir) as again, psycopg.connect(again.url) as connection:
        assert connection.execute("SELECT one FROM committed").fetchone() == (1,)


def test_process_id_that_now_belongs_to_somebody_else_is_no_server(data_dir: Path) -> None:
    lines = [str(os.getpid()), str(data_dir / "postgres"), "1", "5432", str(data_dir / "socket"), "", "0", "ready"]
    (data_dir / "postgres" / "postmaster.pid").write_text("\n".join(lines) + "\n")
    with EmbeddedServer(data_dir) as address:
        psycopg.connect(address.url).close()


@pytest.mark.parametrize("name", ["deep-" * 24, "with, comma", 'it\'s "odd" 100% + blank'])
def test_any_directory_name_works(data_dir: Path, tmp_path: Path, name: str) -> None:
    moved = tmp_path / name
    data_dir.rename(moved)
    with EmbeddedServer(moved) as address:
        psycopg.connect(address.url).close()
        assert address.database == "clarion"


def test_relative_directory_is_the_same_directory(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with EmbeddedServer(data_dir) as absolute:
        monkeypatch.chdir(data_dir.parent)
        with EmbeddedServer(Path("data")) as relative:
            assert relative == absolute


def test_file_in_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(EnvironmentRefused, match=r"unusable.*CLARION_DATA_DIR"):
            EmbeddedServer(path).start()


def test_cluster_of_another_version_is_refused_before_it_is_touched(data_dir: Path) -> None:
    (data_dir / "postgres" / "PG_VERSION").write_text("14\n")
    with pytest.raises(EnvironmentRefused, match=r"made by PostgreSQL 14, and this clarion brings PostgreSQL \d+"):
        EmbeddedServer(data_dir).start()


def test_directory_that_is_no_cluster_is_refused(tmp_path: Path) -> None:
    (tmp_path / "postgres").mkdir()
    with pytest.raises(EnvironmentRefused, match="no PostgreSQL cluster"):
        EmbeddedServer(tmp_path).start()
    assert not list((tmp_path / "postgres").iterdir())


def test_server_that_does_not_start_gives_its_reason(data_dir: Path) -> None:
    with (data_dir / "postgres" / "postgresql.auto.conf").open("a") as configuration:
        configuration.write("max_connections = 'many'\n")
    with pytest.raises(EnvironmentRefused) as refused:
        EmbeddedServer(data_dir).start()
    assert "does not start" in refused.value.message
    assert "\n" not in refused.value.message
    assert "postgres.log" in refused.value.hint


def test_refused_start_leaves_the_directory_to_the_next(data_dir: Path) -> None:
    version = (data_dir / "postgres" / "PG_VERSION").read_text()
    (data_dir / "postgres" / "PG_VERSION").write_text("14\n")
    server = EmbeddedServer(data_dir)
    with pytest.raises(EnvironmentRefused):
        server.start()
    (data_dir / "postgres" / "PG_VERSION").write_text(version)
    with server as address:
        psycopg.connect(address.url).close()
    assert postmaster(data_dir) is None
