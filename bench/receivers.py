"""Receivers that cost little beside what is measured, and wrk, the sender that does nothing but send.

nginx (Debian: nginx-light) answers where only the rate counts; the receiver of the tests, a uvloop process that writes
every request down, stands in where it is missing. Both listen on all of 127.0.0.0/8, so that one process is many hosts.
"""

from __future__ import annotations

import http.client
import re
import resource
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from harness.receiver import ReceiverProcess

_CONFIGURATION = """
daemon off; master_process off; pid {directory}/pid; error_log stderr error; worker_rlimit_nofile 4096;
events {{ worker_connections 2048; }}
http {{
    access_log off; keepalive_timeout 600s; keepalive_requests 1000000000; server_tokens off;
    client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy; fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi; scgi_temp_path {directory}/scgi;
    server {{
        listen 0.0.0.0:{port} ssl backlog=1024;
        ssl_certificate {certificate}; ssl_certificate_key {key}; ssl_protocols TLSv1.3;
        location / {{ default_type text/plain; return 200 "ok"; }}
    }}
    server {{ listen 127.0.0.1:{status_port}; location / {{ stub_status; }} }}
}}
"""
_BODY_BYTES = 700


class Receivers(Protocol):
    """What takes the requests: its port on every loopback address, and how many requests it answered."""

    name: str
    port: int

    def count(self) -> int: ...

    def stop(self) -> None: ...


class Nginx:
    """nginx with a configuration of its own in `directory`; the system's service is not touched."""

    name = "nginx, one process"

    def __init__(self, directory: Path, certificate: tuple[Path, Path]) -> None:
        program = nginx_program()
        assert program is not None, "nginx is not installed"
        directory.mkdir()
        self.port, self._status_port = _free_port(), _free_port()
        configuration = directory / "nginx.conf"
        configuration.write_text(
            _CONFIGURATION.format(
                directory=directory,
                certificate=certificate[0],
                key=certificate[1],
                port=self.port,
                status_port=self._status_port,
            )
        )
        self._process = subprocess.Popen([program, "-e", "stderr", "-p", str(directory), "-c", str(configuration)])
        deadline = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", self._status_port), 1).close()
                break
            except OSError:
                assert self._process.poll() is None, "nginx did not start"
                assert time.monotonic() < deadline, "nginx does not answer"
                time.sleep(0.02)
        self._asked = 0

    def count(self) -> int:
        """Requests answered, without those for the count itself."""
        connection = http.client.HTTPConnection("127.0.0.1", self._status_port, timeout=5)
        connection.request("GET", "/")
        text = connection.getresponse().read().decode()
        connection.close()
        self._asked += 1
        return int(text.splitlines()[2].split()[2]) - self._asked

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()


class Written:
    """The receiver of the tests: every request is written down with its time of arrival."""

    name = "the tests' receiver (Python, uvloop)"

    def __init__(self, directory: Path, certificate: tuple[Path, Path]) -> None:
        self.process = ReceiverProcess(directory, certificate, host="0.0.0.0")
        self.port = self.process.port

    def count(self) -> int:
        return self.process.count()

    def stop(self) -> None:
        self.process.__exit__(None, None, None)


def nginx_program() -> str | None:
    """Where nginx is, or None."""
    return shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin:/opt/homebrew/bin")


@dataclass(frozen=True, slots=True)
class Sent:
    """What wrk did: its own CPU in microseconds per request, and requests per second."""

    cpu_us: float
    rate: float


def wrk(directory: Path, host: str, port: int, connections: int, seconds: int) -> Sent | None:
    """POSTs of 700 bytes to the receiver from wrk's one thread; None if wrk is not installed. Every answer is a 2xx."""
    program = shutil.which("wrk")
    if program is None:
        return None
    script = directory / "post.lua"
    script.write_text(
        f'wrk.method = "POST"\nwrk.body = string.rep("x", {_BODY_BYTES})\n'
        'wrk.headers["content-type"] = "application/json"\n'
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    said = subprocess.run(
        [program, "-t1", f"-c{connections}", f"-d{seconds}s", "-s", str(script), f"https://{host}:{port}/"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    found = re.search(r"(\d+) requests in ", said)
    assert found, said
    assert "Non-2xx" not in said, said
    requests = int(found[1])
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Sent(cpu_s * 1e6 / requests, requests / seconds)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])
