"""`clarion demo` as a newcomer runs it: the real command, its own server, real TLS, and what may go wrong."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import pytest

from harness.process import ClarionProcess, Finished
from tls import make_authority

Starter = Callable[..., ClarionProcess]
ESCAPE = "\x1b"
TUTORIAL = Path(__file__).resolve().parents[2] / "docs" / "tutorial" / "first-webhook.md"
CURL = r"curl -s .*?\n.*?\n.*"
USES = (
    "a run has a problem",
    "a run starts at a given work centre",
    "a purchase order is placed",
    "a part is received",
    "data is entered into a given field",
    "an issue is created",
)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory in which demos were run before: faster than a new server for each test."""
    return tmp_path_factory.mktemp("home")


def _once(start: Starter, home: Path, *options: str, **settings: str) -> Finished:
    return start("demo", "--once", *options, home=home, **settings).wait(60)


def _working_in(home: Path) -> list[str]:
    """The command lines of all processes that work in this directory or on it."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            place = str((process / "cwd").readlink())
        except OSError:
            continue
        if place.startswith(str(home)) or str(home) in command:
            found.append(f"{process.name} {command}")
    return found


def _assert_nothing_is_left(home: Path, seconds: float = 0) -> None:
    waited_until = time.monotonic() + seconds
    while left := _working_in(home):
        assert time.monotonic() < waited_until, left
        time.sleep(0.05)


def _child(home: Path, module: str, seconds: float = 20) -> int:
    """The process id of the demo's child that runs this module, as soon as there is one."""
    waited_until = time.monotonic() + seconds
    while time.monotonic() < waited_until:
        for line in _working_in(home):
            if f"-m {module}" in line:
                return int(line.split()[0])
        time.sleep(0.01)
    raise AssertionError(f"no process runs {module}")


def test_once_shows_six_verified_uses_on_a_fresh_directory_and_on_a_used_one(
    clarion_process: Starter, tmp_path: Path
) -> None:
    first = _once(clarion_process, tmp_path)
    assert first.code == 0, first.stderr
    assert ESCAPE not in first.stdout + first.stderr
    rows = first.stdout.splitlines()[2:8]
    for row, use in zip(rows, USES, strict=True):
        assert row.startswith(use)
        assert "✓" in row
    assert "6 of 6 uses arrived, and nothing else. 11 deliveries, 11 verified" in first.stdout
    assert "issue 3 opened" in rows[4] or "issue 2 opened" in rows[4]
    assert "Teams answered 200" in rows[5]
    _assert_nothing_is_left(tmp_path)

    key = tmp_path / ".clarion" / "demo" / "api-key"
    assert key.stat().st_mode & 0o777 == 0o600
    kept = key.read_text()

    second = _once(clarion_process, tmp_path, "--json", PYTHONIOENCODING="ascii")
    assert second.code == 0, second.stderr
    assert (second.stdout + second.stderr).isascii()
    result = json.loads(second.stdout)
    assert result["ok"] is True
    assert result["deliveries"] == result["verified"] == 11
    assert result["seconds"] < 30
    assert [use["name"] for use in result["uses"]] == list(USES)
    assert [bool(use["condition"]) for use in result["uses"]] == [True, True, True, False, True, False]
    assert all(use["verified"] and use["deliveries"] for use in result["uses"])
    assert key.read_text() == kept
    _assert_nothing_is_left(tmp_path)


def test_live_shows_deliveries_offers_a_call_that_works_and_ends_with_ctrl_c(
    clarion_process: Starter, home: Path
) -> None:
    live = clarion_process("demo", "--rate", "10", home=home)
    live.wait_for_line(r"Ctrl-C ends it")
    live.wait_for_line(
        r"\d\d:\d\d:\d\d +\d+ ms  ✓ monitoring  RUN_STEPS update .*status: todo → in_progress.*⇒ monitoring on"
    )

    shown = "\n".join(live.stdout)
    assert (
        '/erp         PURCHASE_ORDERS UPDATE   if object.status == "ordered" && oldObject.status != "ordered"' in shown
    )
    call = re.search(CURL, shown)
    assert call is not None
    answer = subprocess.run(["bash", "-c", call[0]], capture_output=True, text=True, check=True)
    events = json.loads(answer.stdout)["data"]["webhookEvents"]["edges"]
    assert events
    assert {event["node"]["status"] for event in events} <= {"DELIVERED", "PENDING"}

    uri = re.search(r"https://127\.0\.0\.1:\d+", shown)
    assert uri is not None
    trusting = ssl.create_default_context(cafile=home / ".clarion" / "demo" / "authority.pem")
    for path in ("qa", "teams"):
        forged = urllib.request.Request(f"{uri[0]}/{path}", b"{}", {"webhook-id": "evt_x_1"}, method="POST")
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(forged, context=trusting)
        refused.value.close()
        assert refused.value.code == 401
        live.wait_for_line(rf"✗ {path} .*does not verify.*refused: the header webhook-timestamp is missing")

    api = re.search(r"http://127\.0\.0\.1:\d+", shown)
    assert api is not None
    _follow_the_tutorial(home, api[0])

    second = _once(clarion_process, home)
    assert second.code == 3
    assert "another `clarion demo` runs in" in second.stderr

    live.interrupt()
    ended = live.wait(30)
    assert ended.code == 130
    assert re.search(r"\d+ deliveries, \d+ verified; commit to receiver: median \d+ ms, p99 \d+ ms", ended.stdout)
    assert "Traceback" not in ended.stdout + ended.stderr
    assert ESCAPE not in ended.stdout + ended.stderr
    assert "ignored: " not in ended.stdout, "a condition lets through what an integration has no use for"
    _assert_nothing_is_left(home)


def _follow_the_tutorial(home: Path, api: str) -> None:
    """Its own receiver gets events, in the very words of the tutorial but for ports, id and secret."""
    text = TUTORIAL.read_text()
    blocks = re.findall(r"```(sh|python)\n(.*?)```", text, re.DOTALL)
    (program,) = [code for language, code in blocks if language == "python"]
    define, create, test, subscribe, only, look = [
        code for language, code in blocks if language == "sh" and "ask" in code
    ]
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])

    def ask(code: str) -> dict[str, Any]:
        script = (define + code).replace("http://127.0.0.1:8400", api).replace("8443", port)
        answered = subprocess.run(["bash", "-c", script], cwd=home, capture_output=True, text=True, check=True)
        data: dict[str, Any] = json.loads(answered.stdout)["data"]
        return data

    receiver = ask(create)["createWebhookReceiver"]["webhookReceiver"]
    (home / "receiver.py").write_text(program.replace("8443", port))
    running = subprocess.Popen(
        [sys.executable, "receiver.py", receiver["sharedSecret"]],
        cwd=home,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        mine = f"receiverId: {receiver['id']},"
        while True:
            with suppress(OSError), socket.create_connection(("127.0.0.1", int(port))):
                break
        id_of_mine = f'\\"{receiver["id"]}\\"'
        tested = ask(test.replace('\\"7\\"', id_of_mine))["testWebhookReceiver"]["attempt"]
        assert (tested["outcome"], tested["statusCode"]) == ("SUCCEEDED", 204)
        assert running.stdout is not None
        assert "webhook_tests create" in running.stdout.readline()
        subscribed = ask(subscribe.replace("receiverId: 7,", mine))["createWebhookSubscription"]["webhookSubscription"]
        assert re.match(r"evt_\w+_\d+ run_steps update \d+ \{", running.stdout.readline())
        before = _holds_from(ask, subscribed["id"])
        adapted = re.sub(r'etag: \\"\w+\\"', f'etag: \\\\"{subscribed["_etag"]}\\\\"', only)
        edited = ask(adapted.replace("id: 7,", f"id: {subscribed['id']},"))["updateWebhookSubscription"]
        assert "started_at" in edited["webhookSubscription"]["condition"]
        while _holds_from(ask, subscribed["id"]) == before:
            assert running.poll() is None
        _expect_starts_only(ask, subscribed["id"], running.stdout)
    finally:
        running.kill()
        running.communicate()
    events = ask(look.replace("{eq: 7}", f"{{eq: {receiver['id']}}}"))["webhookEvents"]["edges"]
    assert events[0]["node"]["attempts"] or events[0]["node"]["status"] == "PENDING"


Ask = Callable[[str], dict[str, Any]]


def _query(ask: Ask, query: str) -> dict[str, Any]:
    return ask(f"\nask '{json.dumps({'query': query})}'")


def _holds_from(ask: Ask, subscription: str) -> str:
    found = _query(ask, f"{{ webhookSubscription(id: {subscription}) {{ activeFromPosition }} }}")
    position: str = found["webhookSubscription"]["activeFromPosition"]
    return position


def _expect_starts_only(ask: Ask, subscription: str, printed: IO[str]) -> None:
    """Of the events that are newer than the newest of now, only steps that begin are printed."""
    newest = f"first: 1, sort: [ID_DESC], filters: {{subscriptionId: {{eq: {subscription}}}}}"
    found = _query(ask, f"{{ webhookEvents({newest}) {{ edges {{ node {{ id }} }} }} }}")["webhookEvents"]["edges"]
    last = int(found[0]["node"]["id"])
    seen = 0
    while seen < 3:
        line = re.match(r"evt_\w+_(\d+) run_steps update \d+ (.*)", printed.readline())
        if line is not None and int(line[1]) > last:
            assert "'started_at': None" in line[2]
            seen += 1


def test_live_json_is_one_object_per_delivery_on_another_port_with_a_key_of_ones_own(
    clarion_process: Starter, home: Path
) -> None:
    key = "a key of one's own, of 32 characters or more"
    with _default_port():
        live = clarion_process("demo", "--json", "--rate", "20", home=home, CLARION_BOOTSTRAP_API_KEY=key)
        live.wait_for_line("RUN_STEPS", 60)
    shown = "\n".join(live.stderr)
    call = re.search(CURL, shown)
    assert call is not None
    assert "http://127.0.0.1:8400/" not in shown
    environment = {**os.environ, "CLARION_BOOTSTRAP_API_KEY": key}
    answer = subprocess.run(["bash", "-c", call[0]], capture_output=True, text=True, check=True, env=environment)
    assert json.loads(answer.stdout)["data"]["webhookEvents"]["edges"]

    live.signal(signal.SIGTERM)
    ended = live.wait(30)
    assert ended.code == 130
    assert key not in ended.stdout + ended.stderr
    deliveries = [json.loads(line) for line in ended.stdout.splitlines()]
    assert len({delivery["webhook_id"] for delivery in deliveries}) == len(deliveries)
    for delivery in deliveries:
        assert delivery["verified"]
        assert not delivery["failed"], delivery
        assert delivery["ms"] > 0
    _assert_nothing_is_left(home)


def _default_port() -> socket.socket:
    """The default port, taken by us or by another program."""
    try:
        return socket.create_server(("127.0.0.1", 8400))
    except OSError:
        return socket.socket()


def test_a_receiver_that_dies_is_the_reason_that_is_given(clarion_process: Starter, home: Path) -> None:
    process = clarion_process("demo", "--once", "--json", home=home)
    os.kill(_child(home, "clarion.demo.receiver"), signal.SIGKILL)
    ended = process.wait(60)
    assert ended.code == 1
    assert json.loads(ended.stdout)["reason"] == "the demo's receiver ended with -9"
    assert "clarion: the demo's receiver ended with -9\n" in ended.stderr
    assert "receiver.log" in ended.stderr
    _assert_nothing_is_left(home)


def test_a_receiver_with_another_hosts_certificate_is_not_delivered_to(clarion_process: Starter, home: Path) -> None:
    directory = home / ".clarion" / "demo"
    directory.mkdir(parents=True, exist_ok=True)
    authority = make_authority(directory)
    certificate, key = authority.issue(addresses=["127.0.0.2"])
    authority.ca_file.replace(directory / "authority.pem")
    certificate.replace(directory / "receiver.pem")
    key.replace(directory / "receiver.key")
    try:
        ended = _once(clarion_process, home)
    finally:
        (directory / "authority.pem").unlink()
    assert ended.code == 1
    assert re.search(r"clarion: event \d+ \(.*\) could not be delivered: TLS_FAILED ", ended.stderr), ended.stderr
    _assert_nothing_is_left(home)


def test_changes_by_somebody_else_are_noticed(clarion_process: Starter, home: Path) -> None:
    other = clarion_process("factory", "run", "--rate", "40", home=home)
    other.wait_for_line(r"acts")
    ended = _once(clarion_process, home)
    assert other.process.poll() is None
    other.interrupt()
    other.wait()
    assert ended.code == 1
    assert "another program changes the same factory" in ended.stderr, ended.stderr
    _assert_nothing_is_left(home)


@pytest.mark.parametrize(
    ("number", "moment"), [(signal.SIGKILL, "clarion.demo.serving"), (signal.SIGINT, "clarion.child")]
)
def test_nothing_is_left_whenever_the_demo_is_ended(
    clarion_process: Starter, home: Path, number: signal.Signals, moment: str
) -> None:
    process = clarion_process("demo", home=home)
    _child(home, moment)
    os.kill(process.pid, number)
    ended = process.wait(40)
    assert ended.code == (130 if number == signal.SIGINT else -signal.SIGKILL)
    assert "Traceback" not in ended.stdout + ended.stderr
    _assert_nothing_is_left(home, seconds=10)


def test_a_serve_on_the_same_directory_is_left_alone(clarion_process: Starter, home: Path) -> None:
    serve = clarion_process("serve", home=home, CLARION_LISTEN="127.0.0.1:0")
    serve.wait_for_line("clarion ready on")
    beside = _once(clarion_process, home)
    assert beside.code == 3
    assert "a `clarion serve` runs in" in beside.stderr
    assert serve.process.poll() is None
    assert serve.stop().code == 0
    _assert_nothing_is_left(home)


def test_a_port_that_was_asked_for_and_is_taken_is_an_error(clarion_process: Starter, home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = _once(clarion_process, home, CLARION_LISTEN=f"127.0.0.1:{port}")
    assert refused.code == 3
    assert f"clarion: cannot listen on 127.0.0.1:{port}" in refused.stderr


@pytest.mark.parametrize(
    ("settings", "code", "words"),
    [
        ({"CLARION_DATABASE_URL": "postgresql://nobody@/nothing"}, 2, "CLARION_DATABASE_URL is set"),
        ({"CLARION_DATA_DIR": "/dev/null"}, 3, "/dev/null cannot be used: it is no directory"),
        ({"CLARION_LISTEN": "nonsense"}, 2, "CLARION_LISTEN: must be host:port"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_starts(
    clarion_process: Starter, tmp_path: Path, settings: dict[str, str], code: int, words: str
) -> None:
    ended = clarion_process("demo", "--once", **settings).wait()
    assert ended.code == code
    assert words in ended.stderr
    assert not (tmp_path / ".clarion" / "postgres").exists()
