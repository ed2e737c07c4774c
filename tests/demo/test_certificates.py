"""The demo's certificates: made once, renewed when they end or do not fit, and good for a strict client."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from clarion.demo.certificates import Certificates, ensure_certificates

NOW = datetime.now(UTC)


def _contents(files: Certificates) -> tuple[bytes, ...]:
    return tuple(path.read_bytes() for path in (files.authority, files.certificate, files.key))


def test_certificates_are_kept_while_they_hold(tmp_path: Path) -> None:
    first = _contents(ensure_certificates(tmp_path, NOW))
    assert _contents(ensure_certificates(tmp_path, NOW + timedelta(days=80))) == first
    assert _contents(ensure_certificates(tmp_path, NOW + timedelta(days=84))) != first


def test_the_private_key_is_for_its_owner_alone_and_the_authoritys_is_not_kept(tmp_path: Path) -> None:
    files = ensure_certificates(tmp_path, NOW)
    assert files.key.stat().st_mode & 0o777 == 0o600
    assert {path.name for path in tmp_path.iterdir()} == {"authority.pem", "receiver.pem", "receiver.key"}


@pytest.mark.parametrize(
    "spoil",
    [
        lambda files, _: files.authority.unlink(),
        lambda files, _: files.certificate.write_bytes(b"no certificate"),
        lambda files, _: files.key.write_bytes(b""),
        lambda files, other: other.authority.replace(files.authority),
        lambda files, other: other.key.replace(files.key),
        lambda files, other: other.certificate.replace(files.certificate),
    ],
)
def test_what_does_not_fit_is_made_anew(tmp_path: Path, spoil: Callable[[Certificates, Certificates], object]) -> None:
    (tmp_path / "other").mkdir()
    files = ensure_certificates(tmp_path, NOW)
    spoil(files, ensure_certificates(tmp_path / "other", NOW))
    _handshake(ensure_certificates(tmp_path, NOW))


def test_a_clock_that_ran_ahead_does_not_leave_certificates_that_begin_in_the_future(tmp_path: Path) -> None:
    ensure_certificates(tmp_path, NOW + timedelta(days=30))
    _handshake(ensure_certificates(tmp_path, NOW))


def _handshake(files: Certificates) -> None:
    """A client that checks as strictly as it can accepts the receiver's certificate."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(files.certificate, files.key)
    client = ssl.create_default_context(cafile=files.authority)
    client.verify_flags |= ssl.VerifyFlags.VERIFY_X509_STRICT
    ours, theirs = socket.socketpair()

    def serve() -> None:
        with server.wrap_socket(theirs, server_side=True) as wrapped:
            wrapped.recv(1)

    thread = threading.Thread(target=serve)
    thread.start()
    with client.wrap_socket(ours, server_hostname="127.0.0.1") as wrapped:
        wrapped.send(b"x")
    thread.join(10)
