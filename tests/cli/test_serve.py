"""`clarion serve` as its operator meets it: ready, refused, interrupted, killed."""

from __future__ import annotations

import http.client
import json
import os
import resource
import signal
import socket
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import psutil
import psycopg

from clarion.access.principal import Role
from clarion.child import FILES_MAX
from clarion.database.address import DatabaseAddress
from clarion.database.embedded import EmbeddedServer
from harness.api import new_key
from harness.deployment import Deployment
from harness.process import ClarionProcess, children_of

Command = Callable[..., ClarionProcess]
KEY = "a-bootstrap-key-of-more-than-32-characters"


def _get(port: int, path: str) -> tuple[int, bytes]:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=30)) as connection:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()


def _port(serve: ClarionProcess) -> int:
    return int(serve.wait_for_line(r"^clarion ready on http://127\.0\.0\.1:(\d+)$")[1])


def _wait_until(holds: Callable[[], bool], seconds: float) -> float:
    """Seconds until it held; fails when it does not in time."""
    begun = time.monotonic()
    while not holds():
        assert time.monotonic() - begun < seconds, f"not within {seconds} s"
        time.sleep(0.02)
    return time.monotonic() - begun


def _is_gone(pid: int) -> bool:
    """Ended, or a zombie that nobody has looked at yet."""
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"


def test_serve_on_the_embedded_server_from_nothing_to_the_end(clarion_process: Command, tmp_path: Path) -> None:
    """Ready, answering, its children and its server killed and back, ended by Ctrl-C with nothing left, then without its key."""
    data_dir = tmp_path / ".clarion"
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
    serve = clarion_process("serve", CLARION_LISTEN="127.0.0.1:0", CLARION_BOOTSTRAP_API_KEY=KEY)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    port = _port(serve)
    for child in children_of(serve.pid):
        assert psutil.Process(child).rlimit(resource.RLIMIT_NOFILE)[0] == min(FILES_MAX, hard)
    assert [line for line in serve.stdout if line] == [f"clarion ready on http://127.0.0.1:{port}"]
    assert _get(port, "/livez")[0] == 200
    status, body = _get(port, "/readyz")
    assert status == 200, body
    assert json.loads(body) == {"database": True, "schema": True, "router": True, "delivery": True}

    _kill_the_children(serve, port)
    _kill_the_server(serve, port, data_dir)

    serve.interrupt()
    ended = serve.wait()
    assert ended.code == 130
    assert "Traceback" not in ended.stderr, "an outage of the database is no bug of ours"
    assert not (data_dir / "postgres" / "postmaster.pid").exists()
    assert (data_dir / "secret.key").stat().st_mode & 0o777 == 0o600

    _take_the_key_away(clarion_process, data_dir, tmp_path / "kept.key")


def _kill_the_children(serve: ClarionProcess, port: int) -> None:
    """The API is back on the same port."""
    before = children_of(serve.pid)
    for child in before:
        os.kill(child, signal.SIGKILL)
    _wait_until(lambda: len(set(children_of(serve.pid)) - set(before)) >= len(before), 30)
    _wait_until(lambda: _get(port, "/readyz")[0] == 200, 30)


def _kill_the_server(serve: ClarionProcess, port: int, data_dir: Path) -> None:
    """The application's commits before count; what the server lost it never confirmed."""
    with EmbeddedServer(data_dir) as address:
        with psycopg.connect(address.url, autocommit=True) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 1 AS one")
        postmaster = int((data_dir / "postgres" / "postmaster.pid").read_text().splitlines()[0])
        os.kill(postmaster, signal.SIGKILL)
        serve.wait_for_line("the embedded PostgreSQL had died", stderr=True)
        _wait_until(lambda: _get(port, "/readyz")[0] == 200, 30)
        with psycopg.connect(address.url) as connection:
            assert connection.execute("SELECT one FROM kept").fetchall() == [(1,)]


def _take_the_key_away(clarion_process: Command, data_dir: Path, kept: Path) -> None:
    """A missing or other encryption key stops the start and loses nothing."""
    key = data_dir / "secret.key"
    key.rename(kept)
    missing = clarion_process("serve", CLARION_LISTEN="127.0.0.1:0").wait()
    assert missing.code == 3
    assert "secret.key" in missing.stderr
    assert not key.exists(), "a new key would make every sealed secret unreadable"
    made = clarion_process("keys", "new-encryption-key", str(key)).wait()
    assert made.code == 0, made.stderr
    other = clarion_process("serve", CLARION_LISTEN="127.0.0.1:0").wait()
    assert other.code == 3
    assert "is not the key" in other.stderr
    key.unlink()
    again = clarion_process("serve", "--role", "api", CLARION_LISTEN="127.0.0.1:0", CLARION_SECRET_KEY_FILE=str(kept))
    _port(again)


def test_children_end_within_two_seconds_of_their_parents_death(deployment: Deployment) -> None:
    serve = deployment.serve("--role", "api", "--role", "router", "--role", "delivery", CLARION_LISTEN="127.0.0.1:0")
    assert len(children_of(serve.pid)) == 2
    # The third one is the spare, which has nothing to do and may still be importing.
    _wait_until(lambda: len(children_of(serve.pid)) == 3, 20)
    children = children_of(serve.pid)
    os.kill(serve.pid, signal.SIGKILL)
    _wait_until(lambda: all(_is_gone(child) for child in children), 2)


def test_sigterm_finishes_what_is_under_way_and_ends_with_0(deployment: Deployment) -> None:
    deployment.attach()
    deployment.subscribe(deployment.register(deployment.receiver.uri("/slow")))
    serve = deployment.serve()
    deployment.connection.execute("INSERT INTO items SELECT FROM generate_series(1, 4)")
    deployment.receiver.wait_for(4)
    serve.process.terminate()
    assert serve.wait().code == 0
    assert deployment.rows("SELECT status, count(*) FROM clarion.events GROUP BY 1") == [("DELIVERED", 4)]
    deployment.connection.execute("INSERT INTO items SELECT")
    deployment.serve()
    deployment.wait_until_settled()
    assert len({request.message_id for request in deployment.receiver.received()}) == deployment.receiver.count() == 5


def test_a_port_in_use_is_refused_in_one_line(clarion_process: Command) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        refused = clarion_process("serve", CLARION_LISTEN=listen).wait()
    assert refused.code == 3
    first, second = refused.stderr.splitlines()
    assert first == f"clarion: cannot listen on {listen}: Address already in use"
    assert "CLARION_LISTEN" in second


def test_a_database_that_was_not_migrated_is_refused_with_the_command(
    clarion_process: Command, make_database: Callable[..., DatabaseAddress]
) -> None:
    address = make_database(migrated=False)
    refused = clarion_process("serve", CLARION_DATABASE_URL=address.url, CLARION_LISTEN="127.0.0.1:0").wait()
    assert refused.code == 3
    assert "no Clarion schema" in refused.stderr
    assert "`clarion migrate`" in refused.stderr


def test_a_standby_takes_over_when_the_first_is_killed(deployment: Deployment) -> None:
    deployment.attach()
    deployment.subscribe(deployment.register())
    first = deployment.serve()
    deployment.serve()
    deployment.connection.execute("INSERT INTO items SELECT")
    deployment.receiver.wait_for(1)
    os.killpg(first.pid, signal.SIGKILL)
    killed_at = time.time()
    deployment.connection.execute("INSERT INTO items SELECT")
    second = deployment.receiver.wait_for(2)[1]
    print(f"taken over {second.at - killed_at:.2f} s after SIGKILL")
    assert second.at - killed_at < 5
    deployment.wait_until_settled()


def test_a_copy_of_the_database_delivers_nothing_until_it_is_adopted(
    deployment: Deployment, server: DatabaseAddress
) -> None:
    deployment.attach()
    deployment.subscribe(deployment.register())
    serve = deployment.serve()
    deployment.connection.execute("INSERT INTO items SELECT")
    first = deployment.receiver.wait_for(1)[0]
    deployment.wait_until_settled()
    serve.stop()
    original = deployment.database
    copy = server.with_database(f"{original.database}_copy")
    with psycopg.connect(server.url, autocommit=True) as connection:
        deployment.connection.close()
        connection.execute(f"CREATE DATABASE {copy.database} TEMPLATE {original.database}")
        try:
            deployment.database = copy
            deployment.connection = psycopg.connect(copy.url, autocommit=True)
            held = deployment.serve()
            held.wait_for_line("delivery is held: the database is a copy", stderr=True)
            deployment.connection.execute("INSERT INTO items SELECT")
            deployment.wait_for_row("SELECT FROM clarion.queue")
            held.stop()
            assert deployment.receiver.count() == 1
            adopted = deployment.serve("--role", "router", "--role", "delivery", "--adopt")
            second = deployment.receiver.wait_for(2)[1]
            deployment.wait_until_settled()
            adopted.stop()
        finally:
            deployment.connection.close()
            connection.execute(f"DROP DATABASE {copy.database} WITH (FORCE)")
    assert first.message_id.split("_")[1] != second.message_id.split("_")[1]


def test_only_who_delivers_needs_the_egress_addresses(deployment: Deployment, clarion_process: Command) -> None:
    """A host of the API alone starts without them; where delivery runs the start is refused before anything else."""
    ion = {
        "CLARION_ENVIRONMENTS_FILE": str(Path(__file__).parents[2] / "deploy/ion/environments.toml"),
        "CLARION_ENVIRONMENT": "production",
    }
    api = deployment.serve("--role", "api", CLARION_LISTEN="127.0.0.1:0", **ion)
    status, body = _get(_port(api), "/.well-known/webhook-egress.json")
    assert status == 200
    assert [one["address"] for one in json.loads(body)["addresses"]] == ["54.149.61.144", "52.88.34.10"]
    key = new_key(deployment.database, "default", Role.AUDITOR, "auditor")
    listed = clarion_process(
        "egress", "addresses", CLARION_API_URL=f"http://127.0.0.1:{_port(api)}", CLARION_API_KEY=key
    ).wait()
    assert listed.stdout.split() == ["ADDRESS", "FROM", "UNTIL", "54.149.61.144/32", "52.88.34.10/32"]
    delivery = clarion_process("serve", "--role", "delivery", **ion).wait()
    assert delivery.code == 3
    assert "54.149.61.144 is on no interface of this host" in delivery.stderr
    assert "CLARION_SOURCE_ADDRESSES_TRANSLATED=true" in delivery.stderr
    unknown = clarion_process("serve", "--role", "api", **(ion | {"CLARION_ENVIRONMENT": "prod"})).wait()
    assert unknown.code == 2
    assert "it has staging, production" in unknown.stderr
