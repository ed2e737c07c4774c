"""Everything that the demo needs, started in order and ended in the opposite one."""

from __future__ import annotations

import fcntl
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic, sleep
from typing import Final

from clarion.app import listen, open_database, settle_identity
from clarion.cli.graphql import GraphQL
from clarion.core.errors import CheckFailed, EnvironmentRefused, UsageInvalid
from clarion.core.settings import Settings
from clarion.database.address import DatabaseAddress
from clarion.database.check import connect
from clarion.demo.certificates import HOST, Certificates, ensure_certificates, write_private
from clarion.demo.children import ReceiverProcess, Serve
from clarion.demo.integration import INTEGRATIONS
from clarion.demo.receiver_setup import Setup
from clarion.demo.register import Registered, register
from clarion.factory.install import install
from clarion.factory.resources import RESOURCES

Step = Callable[[str], None]
"""Told the name of each step of the set-up as it begins."""

_KEY_LENGTH_MIN: Final = 32
_ROUTED_SECONDS_MAX: Final = 60.0
_POLL_SECONDS: Final = 0.02


@dataclass(frozen=True, slots=True)
class Stage:
    """What runs while the demo does. `key_is_ours` is false for a key from the user's own settings."""

    directory: Path
    address: DatabaseAddress
    api_url: str
    api: GraphQL
    key: str
    key_is_ours: bool
    serve: Serve
    receiver: ReceiverProcess
    registered: dict[str, Registered]


@contextmanager
def stage(settings: Settings, step: Step) -> Iterator[Stage]:
    """The stage, set; all that was started is ended at the end, whatever happens inside.

    Raises UsageInvalid and EnvironmentRefused for what the user can put right, CheckFailed and ApiRefused otherwise.
    """
    if settings.database_url is not None:
        raise UsageInvalid(
            "clarion demo brings its own server, and CLARION_DATABASE_URL is set",
            "unset it; `clarion factory install` and `clarion serve` work on a database of your own",
        )
    if "listen" in settings.model_fields_set:
        listen(settings).close()
    with ExitStack() as ending:
        directory = _directory(settings.data_dir)
        ending.enter_context(_alone(directory))
        certificates = _certificates(directory)
        key, key_is_ours = _key(settings, directory)
        # First, so that they have done their imports by the time that they are needed.
        serve = ending.enter_context(Serve(_environment(settings, certificates, key), directory / "serve.log"))
        receiver = ending.enter_context(ReceiverProcess(directory / "receiver.log"))
        step("PostgreSQL, embedded")
        address = ending.enter_context(open_database(settings))
        _refuse_company(address, settings.data_dir)
        step(f"factory: {len(RESOURCES)} tables, master data, capture")
        install(address)
        step("clarion serve: API, router, delivery")
        api_url = serve.begin()
        wait_until_routed(address, serve)
        step("receiver: 6 endpoints, each subscribed")
        api = GraphQL(api_url, key)
        registered = register(api, receiver.base_uri, INTEGRATIONS)
        receiver.begin(
            Setup(
                certificate=str(certificates.certificate),
                key=str(certificates.key),
                database_url=address.url,
                secrets={path: one.secret for path, one in registered.items()},
            )
        )
        yield Stage(directory, address, api_url, api, key, key_is_ours, serve, receiver, registered)


def _directory(data_dir: Path) -> Path:
    """The demo's own directory. Its parent comes to be as the embedded server's: for the owner alone."""
    directory = data_dir.absolute() / "demo"
    try:
        directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory.mkdir(mode=0o700, exist_ok=True)
        (directory / "serve.log").touch()
    except OSError as error:
        raise _unusable(directory, error) from error
    return directory


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Held by one demo at a time, until its process ends."""
    try:
        descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise _unusable(directory, error) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise EnvironmentRefused(
            f"another `clarion demo` runs in {directory.parent}",
            "end it first, or choose another directory with CLARION_DATA_DIR",
        ) from error
    finally:
        os.close(descriptor)


def _unusable(directory: Path, error: OSError) -> EnvironmentRefused:
    parent = directory.parent
    reason = "it is no directory" if parent.exists() and not parent.is_dir() else f"{error.strerror}: {error.filename}"
    return EnvironmentRefused(f"{parent} cannot be used: {reason}", "choose another directory with CLARION_DATA_DIR")


def _refuse_company(address: DatabaseAddress, data_dir: Path) -> None:
    """Another `serve` does not trust the demo's receivers, and would fail to deliver; a restored copy must not."""
    with connect(address, autocommit=True) as connection:
        found = connection.execute(
            "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE ANY (%s)",
            [["clarion router%", "clarion worker%", "clarion delivery%"]],
        ).fetchone()
        held = settle_identity(connection, adopting=False)
    if found is not None:
        raise EnvironmentRefused(
            f"a `clarion serve` runs in {data_dir}",
            "end it first, or choose another directory for the demo with CLARION_DATA_DIR",
        )
    if held is not None:
        raise EnvironmentRefused(
            f"nothing is delivered from {data_dir}: {held}",
            "run `clarion serve --adopt` there once, or choose another directory with CLARION_DATA_DIR",
        )


def _certificates(directory: Path) -> Certificates:
    try:
        return ensure_certificates(directory, datetime.now(UTC))
    except OSError as error:
        raise _unusable(directory, error) from error


def _key(settings: Settings, directory: Path) -> tuple[str, bool]:
    """The API key, and whether the demo made it: the user's own, or the one that is kept in `api-key`."""
    if settings.bootstrap_api_key is not None:
        return settings.bootstrap_api_key.get_secret_value(), False
    path = directory / "api-key"
    try:
        kept = path.read_text(encoding="ascii").strip() if path.exists() else ""
        if len(kept) < _KEY_LENGTH_MIN:
            kept = f"demo_{secrets.token_urlsafe(32)}"
            write_private(path, f"{kept}\n".encode())
    except (OSError, UnicodeError) as error:
        raise EnvironmentRefused(f"{path} cannot be used: {error}", "delete it: another is made") from error
    return kept, True


def _environment(settings: Settings, certificates: Certificates, key: str) -> dict[str, str]:
    """The children's environment: the user's, with the demo's receiver allowed and trusted."""
    networks = [*(str(network) for network in settings.allowed_networks), "127.0.0.0/8"]
    chosen = {
        "CLARION_DATA_DIR": str(settings.data_dir.absolute()),
        "CLARION_LISTEN": settings.listen if "listen" in settings.model_fields_set else _free_address(settings),
        "CLARION_BOOTSTRAP_API_KEY": key,
        "CLARION_ALLOWED_NETWORKS": ",".join(networks),
        "CLARION_CA_FILE": str(certificates.authority),
    }
    return {**os.environ, **chosen}


def _free_address(settings: Settings) -> str:
    """The default address; when its port is taken, one that the system chooses."""
    try:
        listen(settings).close()
    except EnvironmentRefused:
        return f"{HOST}:0"
    return settings.listen


def wait_until_routed(address: DatabaseAddress, serve: Serve) -> None:
    """Waits until all that was captured before is in the ledger, and matched with the subscriptions of now.

    Raises CheckFailed when it is not after a minute, and what ended `serve`.
    """
    waited_until = monotonic() + _ROUTED_SECONDS_MAX
    with connect(address, autocommit=True) as connection:
        row = connection.execute("SELECT max(id) FROM clarion.outbox").fetchone()
        newest = row[0] if row else None
        while newest is not None:
            row = connection.execute("SELECT 1 FROM clarion.outbox WHERE id <= %s LIMIT 1", [newest]).fetchone()
            if row is None:
                return
            serve.assert_alive()
            if monotonic() > waited_until:
                raise CheckFailed(
                    f"what the factory changed was not routed within {_ROUTED_SECONDS_MAX:.0f} s",
                    "choose a fresh directory with CLARION_DATA_DIR",
                )
            sleep(_POLL_SECONDS)
