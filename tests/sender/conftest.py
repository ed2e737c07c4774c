"""A scripted receiver in another process, and a sender that trusts its authority."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import uvloop

from clarion.core.system import SystemClock
from clarion.sender.policy import Policy
from clarion.sender.send import Sender
from sender.posting import LOOPBACK, Post, Receivers
from tls import make_authority


@pytest.fixture(scope="session")
def receivers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Receivers]:
    directory = tmp_path_factory.mktemp("tls")
    authority, stranger = make_authority(directory), make_authority(directory)
    localhost = str(socket.getaddrinfo("localhost", 443, type=socket.SOCK_STREAM)[0][4][0])
    certificates = {
        "good": authority.issue(["localhost"], ["127.0.0.1"]),
        "localhost": authority.issue(["localhost"]),
        "wrong name": authority.issue(["other.example"], ["127.0.0.9"]),
        "common name only": authority.issue(common_name="127.0.0.1"),
        "expired": authority.issue(addresses=["127.0.0.1"], expired=True),
        "not yet valid": authority.issue(addresses=["127.0.0.1"], not_yet_valid=True),
        "self-signed": authority.issue(addresses=["127.0.0.1"], self_signed=True),
        "unknown authority": stranger.issue(addresses=["127.0.0.1"]),
        "old TLS": authority.issue(addresses=["127.0.0.1"]),
    }
    configuration: dict[str, dict[str, str]] = {
        name: {"kind": "tls", "address": "127.0.0.1", "certificate": str(certificate), "key": str(key)}
        for name, (certificate, key) in certificates.items()
    }
    configuration["localhost"]["address"] = localhost
    configuration["old TLS"]["tls_version_max"] = "TLSv1_1"
    for kind in ("plain", "silent", "closing"):
        configuration[kind] = {"kind": kind, "address": "127.0.0.1"}
    with subprocess.Popen(
        [
            sys.executable,
            "-W",
            "ignore",
            Path(__file__).with_name("scripted_receiver.py"),
            json.dumps([*configuration.values()]),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        ports = json.loads(process.stdout.readline())
        yield Receivers(authority.ca_file, localhost, dict(zip(configuration, ports, strict=True)))
        process.terminate()


def pytest_asyncio_loop_factories(config: pytest.Config, item: pytest.Item) -> dict[str, Any]:
    return {"uvloop": uvloop.new_event_loop}


@pytest_asyncio.fixture
async def post(receivers: Receivers) -> AsyncIterator[Post]:
    sender = Sender(SystemClock(), policy=Policy(LOOPBACK), ca_file=receivers.ca_file, connections_per_host=1000)
    yield Post(sender)
    await sender.close()
