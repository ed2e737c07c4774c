"""What benchmarks of the API share: one key without limits, wrk as the load, and a bare application to compare with."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rig import Rig

from harness.process import children_of

KEY = "a key of the benchmark, of more than 32 characters"
UNLIMITED = {"CLARION_API_POINTS_PER_SECOND": "1000000", "CLARION_API_POINTS_BURST": "10000000"}
HEADERS_OF_WRK = (
    'wrk.method = "POST"\nwrk.headers["content-type"] = "application/json"\n'
    f'wrk.headers["authorization"] = "Bearer {KEY}"\n'
)


@dataclass(frozen=True, slots=True)
class Load:
    """What wrk did: how many requests were answered, each with 2xx, and the longest of 99 % in milliseconds."""

    requests: int
    p99_ms: float


def load(script: Path, url: str, seconds: float, connections: int) -> Load:
    """Requests that `script` makes, from one wrk thread."""
    program = shutil.which("wrk")
    if program is None:
        sys.exit(f"{Path(sys.argv[0]).name} needs wrk: apt-get install wrk")
    said = subprocess.run(
        [program, "-t1", f"-c{connections}", f"-d{seconds:g}s", "--latency", "-s", str(script), url],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    requests, p99 = re.search(r"(\d+) requests in ", said), re.search(r"99%\s+([\d.]+)(us|ms|s)", said)
    assert requests is not None, said
    assert p99 is not None, said
    assert "Non-2xx" not in said, said
    return Load(int(requests[1]), float(p99[1]) * {"us": 1e-3, "ms": 1.0, "s": 1e3}[p99[2]])


def post(port: int, path: str, content: object) -> object:
    """The answer to one request, which has no errors."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    headers = {"content-type": "application/json", "authorization": f"Bearer {KEY}"}
    connection.request("POST", path, json.dumps(content), headers)
    answer = json.loads(connection.getresponse().read())
    connection.close()
    assert "errors" not in answer, answer
    return answer


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def pinned_api(at: Rig) -> tuple[int, int]:
    """Port and pid of the product's API, alone and on one core."""
    port = free_port()
    listening = {"CLARION_LISTEN": f"127.0.0.1:{port}", "CLARION_BOOTSTRAP_API_KEY": KEY}
    (api,) = children_of(at.deployment.serve("--role", "api", **listening, **UNLIMITED).pid)
    os.sched_setaffinity(api, {0})
    return port, api


@contextmanager
def bare(program: str) -> Iterator[tuple[int, int]]:
    """Port and pid of a bare application on the same core: a file of this folder that takes its port as argument."""
    port = free_port()
    process = subprocess.Popen([sys.executable, str(Path(__file__).with_name(program)), str(port)])
    try:
        for _ in range(100):
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                time.sleep(0.1)
        os.sched_setaffinity(process.pid, {0})
        yield port, process.pid
    finally:
        process.kill()
        process.wait()
