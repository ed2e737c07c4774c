"""What receivers that answer byte by byte, without end, cost the sender: memory, CPU, and how well deadlines are kept.

    .venv/bin/python bench/dribble.py [--receivers 500] [--timeout 10] [--every 0.5] [--json]

One Sender in this process, each receiver with a request under way, in a process of their own, over TLS; they dribble in
the status line, headers, interim answers, body, chunk sizes and trailers. Memory is resident, after all have begun to
answer, less what it was before; besides, a healthy receiver is asked again and again.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from ipaddress import ip_network
from pathlib import Path

import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from clarion.core.system import SystemClock
from clarion.sender.outcome import Attempt, Outcome
from clarion.sender.policy import Policy
from clarion.sender.send import Endpoint, Sender
from harness.receiver import DRIBBLES
from tls import make_authority

ROOT = Path(__file__).resolve().parents[1]


def _resident_bytes() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _path(number: int, every_s: float) -> str:
    start, rest = (base64.urlsafe_b64encode(part).decode() for part in DRIBBLES[number % len(DRIBBLES)])
    return f"/dribble-bytes?every={every_s}&start={start}&rest={rest}"


def _begin(sender: Sender, uri: str, receiver_id: int, timeout_s: int) -> asyncio.Future[Attempt]:
    future: asyncio.Future[Attempt] = asyncio.get_running_loop().create_future()
    endpoint = Endpoint(receiver_id, uri, "application/json", (), (b"k" * 32,), ("V1",), timeout_s, 4, None)
    sender.send(endpoint, f"evt_1_{receiver_id}", SystemClock().now(), b"{}", (), future.set_result)
    return future


async def measure(port: int, ca_file: Path, receivers: int, timeout_s: int, every_s: float) -> dict[str, float]:
    """Memory in KiB per dribbling request; how late deadlines were and how long healthy requests took, in ms."""
    sender = Sender(
        SystemClock(), policy=Policy((ip_network("127.0.0.0/8"),)), ca_file=ca_file, connections_per_host=1000
    )
    uri = f"https://127.0.0.1:{port}"
    healthy_ms: list[float] = []
    try:
        await _begin(sender, uri + "/echo", receivers, 5)
        before, cpu_s = _resident_bytes(), time.process_time()
        begun = time.perf_counter()
        futures = [_begin(sender, uri + _path(number, every_s), number, timeout_s) for number in range(receivers)]
        during = 0
        while not any(future.done() for future in futures):
            asked = time.perf_counter()
            assert (await _begin(sender, uri + "/echo", receivers, 5)).outcome is Outcome.SUCCEEDED
            healthy_ms.append((time.perf_counter() - asked) * 1000)
            await asyncio.sleep(0.05)
            if not during and time.perf_counter() - begun > timeout_s * 0.7:
                during = _resident_bytes()
        attempts = await asyncio.gather(*futures)
        cpu_s = time.process_time() - cpu_s
    finally:
        await sender.close()
    late_ms = sorted(attempt.duration_ms - timeout_s * 1000 for attempt in attempts)
    return {
        "resident_kib_per_request": round((during - before) / receivers / 1024, 1),
        "timed_out": sum(attempt.outcome is Outcome.TIMED_OUT for attempt in attempts),
        "late_ms_median": statistics.median(late_ms),
        "late_ms_worst": late_ms[-1],
        "late_percent_worst": round(late_ms[-1] / timeout_s / 10, 2),
        "cpu_ms_per_request": round(cpu_s / receivers * 1000, 2),
        "healthy_ms_median": round(statistics.median(healthy_ms), 1),
        "healthy_ms_worst": round(max(healthy_ms), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--receivers", type=int, default=500)
    parser.add_argument("--timeout", type=int, default=10, help="seconds, 1 to 30")
    parser.add_argument("--every", type=float, default=0.5, help="seconds between two bytes")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="clarion-bench.") as name:
        authority = make_authority(Path(name))
        certificate, key = authority.issue(addresses=["127.0.0.1"])
        listener = {"kind": "tls", "address": "127.0.0.1", "certificate": str(certificate), "key": str(key)}
        script = ROOT / "tests" / "sender" / "scripted_receiver.py"
        with subprocess.Popen(
            [sys.executable, script, json.dumps([listener])], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as process:
            assert process.stdout is not None
            port = json.loads(process.stdout.readline())[0]
            figures = uvloop.run(measure(port, authority.ca_file, options.receivers, options.timeout, options.every))
            process.terminate()
    if options.json:
        print(json.dumps(figures))
        return
    print(f"{options.receivers} dribbling receivers, a byte every {options.every} s, deadline {options.timeout} s")
    for key_name, value in figures.items():
        print(f"  {key_name:28} {value:8}")


if __name__ == "__main__":
    main()
