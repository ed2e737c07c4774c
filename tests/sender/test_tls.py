"""TLS of a receiver's own: pinned authorities and client certificates, against real TLS servers."""

from __future__ import annotations

import itertools
import socket
import ssl
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization

from clarion.core.system import SystemClock
from clarion.sender.certificates import CertificateRefused, check_authorities, check_client_certificate, describe
from clarion.sender.outcome import Outcome
from clarion.sender.policy import Policy
from clarion.sender.send import Sender
from clarion.sender.tls import Identity
from sender.posting import LOOPBACK, Post
from tls import Authority, make_authority

NOW = datetime.now(UTC)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return make_authority(tmp_path)


@pytest.fixture
def stranger(tmp_path: Path) -> Authority:
    return make_authority(tmp_path)


def identity(authority: Authority, common_name: str = "clarion", trusted: Authority | None = None) -> Identity:
    certificate, key = authority.issue(common_name=common_name, client=True)
    authorities = None if trusted is None else trusted.ca_file.read_text()
    return Identity(authorities, certificate.read_text(), key.read_bytes())


@asynccontextmanager
async def receiver(
    certificate: tuple[Path, Path],
    client_authority: Authority | None = None,
    ciphers: str | None = None,
    version_max: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
    address: str = "127.0.0.1",
) -> AsyncIterator[str]:
    """The URI of a receiver that answers with the common name of the client's certificate and the connection's number."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.maximum_version = version_max
    if ciphers is not None:
        context.set_ciphers(ciphers)
    context.load_cert_chain(*certificate)
    if client_authority is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(client_authority.ca_file)
    numbers = itertools.count(1)
    listener = socket.create_server((address, 0), family=socket.AF_INET6 if ":" in address else socket.AF_INET)

    def serve(connection: socket.socket) -> None:
        # Blocking sockets: an event loop's server resets the connection before its alert is read.
        with suppress(OSError), context.wrap_socket(connection, server_side=True) as secure:
            number = next(numbers)
            while secure.recv(65536):
                shown: Any = secure.getpeercert() or {}
                names = [value for part in shown.get("subject", ()) for _, value in part]
                body = f"{','.join(names)} {number}".encode()
                secure.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))

    def accept() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"https://127.0.0.1:{listener.getsockname()[1]}/"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()


@asynccontextmanager
async def sending(ca_file: Path | None) -> AsyncIterator[Post]:
    sender = Sender(SystemClock(), policy=Policy(LOOPBACK), ca_file=ca_file)
    try:
        yield Post(sender)
    finally:
        await sender.close()


async def test_a_receivers_own_authorities_are_trusted_and_no_others(authority: Authority, stranger: Authority) -> None:
    async with (
        receiver(authority.issue(addresses=["127.0.0.1"])) as uri,
        sending(stranger.ca_file) as post,
        sending(authority.ca_file) as trusting,
    ):
        pinned = Identity(authority.ca_file.read_text())
        other = Identity(stranger.ca_file.read_text())
        assert (await post(uri)).outcome is Outcome.TLS_FAILED
        assert (await post(uri, identity=pinned)).outcome is Outcome.SUCCEEDED
        # What the process trusts does not count for a receiver that brought its own.
        refused = await trusting(uri, identity=other)
        assert refused.outcome is Outcome.TLS_FAILED
        assert refused.error == "unknown certificate authority, or an intermediate certificate is missing"
        assert (await trusting(uri)).outcome is Outcome.SUCCEEDED


async def test_an_intermediate_authority_can_be_pinned(authority: Authority) -> None:
    """The leaf's issuer alone, without the authority above it."""
    intermediate = authority.intermediate()
    async with receiver(intermediate.issue(addresses=["127.0.0.1"])) as uri, sending(None) as post:
        pinned = Identity(intermediate.ca_file.read_text())
        assert (await post(uri, identity=pinned)).outcome is Outcome.SUCCEEDED
        assert (await post(uri)).outcome is Outcome.TLS_FAILED


async def test_the_environment_has_no_say_in_contexts_of_a_receivers_own(
    authority: Authority, stranger: Authority, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca_file))
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    async with receiver(authority.issue(addresses=["127.0.0.1"])) as uri, sending(None) as post:
        assert (await post(uri, identity=Identity(stranger.ca_file.read_text()))).outcome is Outcome.TLS_FAILED
        assert (await post(uri, identity=Identity(authority.ca_file.read_text()))).outcome is Outcome.SUCCEEDED
    assert not (tmp_path / "keys").exists()


async def test_a_client_certificate_is_shown_and_connections_never_serve_another(authority: Authority) -> None:
    async with (
        receiver(authority.issue(addresses=["127.0.0.1"]), authority) as uri,
        sending(authority.ca_file) as post,
    ):
        one, two = identity(authority, "one"), identity(authority, "two")
        answers = [
            (await post(uri, receiver_id=number, identity=shown)).response_body.decode()
            for number, shown in ((1, one), (2, two), (1, one), (1, two), (1, two))
        ]
    # The last two: a receiver whose certificate was changed opens a connection with the new one.
    assert answers == ["one 1", "two 2", "one 1", "two 3", "two 3"]


async def test_a_receiver_that_misses_or_refuses_our_certificate_fails(
    authority: Authority, stranger: Authority
) -> None:
    certificate = authority.issue(addresses=["127.0.0.1"])
    async with sending(authority.ca_file) as post:
        async with receiver(certificate, authority, version_max=ssl.TLSVersion.TLSv1_2) as uri:
            for shown in (Identity(), identity(stranger)):
                attempt = await post(uri, identity=shown)
                assert attempt.outcome is Outcome.TLS_FAILED
                assert "alert" in str(attempt.error)
        async with receiver(certificate, authority) as uri:
            # TLS 1.3 ends the handshake before the receiver looks: its alert may be lost in the reset that follows.
            for shown in (Identity(), identity(stranger)):
                attempt = await post(uri, identity=shown)
                assert attempt.outcome in {Outcome.TLS_FAILED, Outcome.CONNECTION_CLOSED}


async def test_material_that_openssl_does_not_take_fails_that_receiver_alone(authority: Authority) -> None:
    good = identity(authority)
    bad = {
        "the receiver's authorities cannot be used": Identity("nothing"),
        "the client certificate cannot be used": Identity(None, good.certificate, b"nothing"),
        "the client certificate cannot be used: key values mismatch": Identity(
            None, good.certificate, identity(authority).key
        ),
    }
    async with receiver(authority.issue(addresses=["127.0.0.1"])) as uri, sending(authority.ca_file) as post:
        for number, (error, unusable) in enumerate(bad.items(), 2):
            attempt = await post(uri, receiver_id=number, identity=unusable)
            assert attempt.outcome is Outcome.TLS_FAILED
            assert str(attempt.error).startswith(error)
            assert not attempt.ours
        assert (await post(uri)).outcome is Outcome.SUCCEEDED


async def test_a_weak_key_is_refused_with_its_reason(authority: Authority) -> None:
    weak = authority.issue(addresses=["127.0.0.1"], rsa_bits=1024)
    async with receiver(weak, ciphers="ALL:@SECLEVEL=0") as uri, sending(authority.ca_file) as post:
        attempt = await post(uri)
    assert attempt.outcome is Outcome.TLS_FAILED
    assert attempt.error == "certificate's key is too weak"


def test_keys_are_never_part_of_a_representation(authority: Authority) -> None:
    material = identity(authority)
    assert material.key is not None
    assert "PRIVATE" not in repr(material)


def test_authorities_are_checked(authority: Authority, tmp_path: Path) -> None:
    pem = authority.ca_file.read_text()
    assert check_authorities(pem, NOW) > NOW
    leaf, key = authority.issue(["a.example"])
    for text, reason in {
        "": "is not in PEM",
        "nothing\u00e9": "is not in PEM",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n": "is not in PEM",
        leaf.read_text(): "the certificate is no authority: basicConstraints does not say CA",
        pem + leaf.read_text(): "certificate 2 is no authority",
        pem + key.read_text(): "must have certificates only: a private key belongs into clientPrivateKey",
        pem * 21: "must have at most 20 certificates",
        "x" * 70_000: "at most 65536 characters",
    }.items():
        with pytest.raises(CertificateRefused) as refused:
            check_authorities(text, NOW)
        assert reason in str(refused.value)
    with pytest.raises(CertificateRefused, match="begins on"):
        check_authorities(pem, datetime(2000, 1, 1, tzinfo=UTC))
    with pytest.raises(CertificateRefused, match="ended on"):
        check_authorities(pem, datetime(2100, 1, 1, tzinfo=UTC))


def test_client_certificates_are_checked(authority: Authority) -> None:
    certificate, key = (file.read_text() for file in authority.issue(common_name="clarion", client=True))
    assert check_client_certificate(certificate, key, NOW) > NOW
    assert describe(certificate).subject == "CN=clarion"
    for key_format in (serialization.PrivateFormat.TraditionalOpenSSL, serialization.PrivateFormat.PKCS8):
        loaded = serialization.load_pem_private_key(key.encode(), None)
        written = loaded.private_bytes(serialization.Encoding.PEM, key_format, serialization.NoEncryption())
        assert check_client_certificate(certificate, written.decode(), NOW) > NOW
    encrypted = loaded.private_bytes(
        serialization.Encoding.PEM, key_format, serialization.BestAvailableEncryption(b"x")
    ).decode()
    other = authority.issue(client=True)[1].read_text()
    weak, weak_key = (file.read_text() for file in authority.issue(client=True, rsa_bits=1024))
    expired, expired_key = (file.read_text() for file in authority.issue(client=True, expired=True))
    for given, reason in {
        (certificate, other): "the private key is not that of the first certificate",
        (certificate, encrypted): "the private key is encrypted: hand it over without a password",
        (certificate, "nothing"): "the private key is not in PEM",
        (certificate, certificate): "the private key is not in PEM",
        (weak, weak_key): "the certificate has an RSA key of 1024 bits: at least 2048",
        (expired, expired_key): "the certificate ended on",
    }.items():
        with pytest.raises(CertificateRefused) as refused:
            check_client_certificate(*given, NOW)
        assert reason in str(refused.value)


async def test_a_chain_that_misses_its_intermediate_and_a_certificate_for_the_address_of_a_name_are_refused(
    authority: Authority,
) -> None:
    intermediate = authority.intermediate()
    async with receiver(intermediate.issue(addresses=["127.0.0.1"])) as uri, sending(authority.ca_file) as post:
        attempt = await post(uri)
        assert attempt.outcome is Outcome.TLS_FAILED
        assert attempt.error == "unknown certificate authority, or an intermediate certificate is missing"
    # A name is compared with names: neither an address nor a wildcard over two labels stands for one.
    localhost = str(socket.getaddrinfo("localhost", 443, type=socket.SOCK_STREAM)[0][4][0])
    for names, addresses in ((["*.example"], []), ([], [localhost]), (["*.localhost"], []), (["*"], [])):
        async with (
            receiver(authority.issue(names, addresses), address=localhost) as uri,
            sending(authority.ca_file) as post,
        ):
            attempt = await post(uri.replace("127.0.0.1", "localhost"))
            assert (attempt.outcome, attempt.peer_address) == (Outcome.TLS_FAILED, localhost)
            assert attempt.error == "hostname mismatch: the certificate is for another name"
