"""`docs/tutorial/getting-started.md`, followed word by word by somebody who has nothing but the command."""

from __future__ import annotations

import os
import re
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

from harness.page import Page
from harness.process import ClarionProcess, clean_environment

PAGE = Path(__file__).resolve().parents[2] / "docs" / "tutorial" / "getting-started.md"
SECRET = "whsec_9SvHuDkexHsvWWRi44Psl3w4b4Y102dqDNNqJ+P/LmE="
Start = Callable[..., ClarionProcess]


def test_the_page_leads_to_a_verified_webhook(clarion_process: Start, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as api, socket.create_server(("127.0.0.1", 0)) as receiver:
        listen, port = f"127.0.0.1:{api.getsockname()[1]}", str(receiver.getsockname()[1])
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    # The page has the ports that everybody has; several tests run on one machine.
    environment = clean_environment(tmp_path, PATH=path, CLARION_LISTEN=listen)
    page = Page(PAGE, tmp_path, environment, {"8443": port})

    exported, command = page.next("sh", "clarion serve").splitlines()
    assert command == "clarion serve"
    page.shell(exported)
    networks = page.exported("CLARION_ALLOWED_NETWORKS")
    serving = clarion_process("serve", CLARION_LISTEN=listen, CLARION_ALLOWED_NETWORKS=networks)
    serving.wait_for_line(f"^clarion ready on http://{listen}$")

    assert page.run("clarion keys create") == ""
    installed = page.run("clarion factory install")
    assert re.search(r"^factory installed: 23 resources attached$", installed, re.MULTILINE)
    assert re.search(r"^\d+ +RUNS +table ", installed, re.MULTILINE)
    page.run("openssl req")
    made = page.run("clarion receivers create")
    assert made.startswith(f"receiver 1 made: mine, https://127.0.0.1:{port}/\n")
    page.said[SECRET] = re.findall(r"^shared secret: (whsec_\S+)$", made, re.MULTILINE)[0]
    (tmp_path / "receiver.py").write_text(page.next("python", "webhook.verify"))
    started = page.next("sh", "python receiver.py").split()
    assert started[:2] == ["python", "receiver.py"]

    def start_receiver() -> ClarionProcess:
        process = clarion_process(*started[1:], command=sys.executable)
        _wait_until_open(int(port))
        return process

    running = start_receiver()
    assert re.fullmatch(r"SUCCEEDED 204 after \d+ ms\n", page.run("clarion receivers test"))
    running.wait_for_line(r"^verified: evt_\w+ webhook_tests create 1$")

    page.run("clarion subscriptions create")
    running.wait_for_line(r"^verified: evt_\w+_2 runs create 1$")
    listed = page.run("clarion events list")
    assert re.search(r"^2 +\S+ +DELIVERED +RUNS CREATE 1 ", listed, re.MULTILINE), listed
    assert re.search(r"^1 +\S+ +SUCCEEDED +204 ", listed, re.MULTILINE), listed
    key = page.exported("CLARION_API_KEY")
    watch = page.next("sh", "--watch").split()
    watching = clarion_process(*watch[1:], CLARION_LISTEN=listen, CLARION_API_KEY=key)
    watching.wait_for_line("DELIVERED  RUNS CREATE 1 ")

    running.interrupt()
    running.wait()
    waiting = page.run("clarion events list --status PENDING")
    event = re.findall(r"^(\d+) +\S+ +PENDING +RUNS CREATE ", waiting, re.MULTILINE)[0]
    watching.wait_for_line(rf"^ *{event}  .*PENDING +RUNS CREATE ")
    page.said["EVENT=4"] = f"EVENT={event}"
    assert page.run("clarion events cancel") == f"event {event} is cancelled: CANCELLED\n"
    again = start_receiver()
    assert page.run("clarion events retry").startswith(f"event {event} is sent again: ")
    again.wait_for_line(rf"^verified: evt_\w+_{event} runs create ")
    watching.wait_for_line(rf"^ *{event}  .*DELIVERED +RUNS CREATE ")
    watching.interrupt()
    assert watching.wait().code == 130
    assert page.is_at_its_end
    serving.interrupt()
    assert serving.wait().code == 130


def _wait_until_open(port: int) -> None:
    waited_until = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            assert time.monotonic() < waited_until
        else:
            return
