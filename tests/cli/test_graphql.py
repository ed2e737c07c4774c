"""The command line's way to the API: what becomes of a change whose answer is lost, TLS, and redirects.

The API is a real one, and so is the proxy before it, which loses what a test tells it to lose.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest

import clarion.api.idempotency
from clarion.access.principal import Role
from clarion.cli.graphql import ApiUnavailable, GraphQL
from clarion.core.errors import ApiRefused, UsageInvalid
from clarion.core.settings import Settings
from clarion.core.system import SystemRandom
from clarion.database.address import DatabaseAddress
from clarion.sender.seal import Sealer
from harness.api import UNLIMITED, Caller, new_key, served
from harness.front import Fault, Front
from harness.process import ClarionProcess, Finished
from tls import Authority, make_authority

URI = "https://93.184.216.34/"
CREATE = """
mutation Create($name: String!) {
  createWebhookReceiver(input: {name: $name, webhookUri: "https://93.184.216.34/"}) { webhookReceiver { id sharedSecret } }
}"""
LIST = """
query List($first: Int, $after: String) {
  webhookReceivers(first: $first, after: $after) { edges { node { name } } pageInfo { hasNextPage endCursor } }
}"""
AT_ONCE = (0.0,) * 5
Run = Callable[..., Finished]


@pytest.fixture(scope="module")
def api(shared_database: DatabaseAddress) -> Iterator[Caller]:
    """An API with nothing else, and an administrator's key."""
    random = SystemRandom()
    with served(shared_database, Sealer(random.token(32), random), settings=UNLIMITED) as port:
        yield Caller(port, new_key(shared_database, "default", Role.ADMINISTRATOR, "administrator"), shared_database)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return make_authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def front(api: Caller) -> Iterator[Front]:
    with Front(api.port) as standing:
        yield standing


@pytest.fixture
def client(api: Caller) -> Iterator[Callable[..., GraphQL]]:
    """The command line's client, with a valid key."""
    made = []

    def make(front: Front, **options: Any) -> GraphQL:
        made.append(GraphQL(front.url, api.key or "", **{"waits_seconds": AT_ONCE} | options))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def run(api: Caller, clarion_process: Callable[..., ClarionProcess]) -> Run:
    """A whole command, run to its end."""

    def to_its_end(front: Front, *arguments: str, **settings: str) -> Finished:
        done = clarion_process(
            *arguments, **{"CLARION_API_URL": front.url, "CLARION_API_KEY": api.key or ""} | settings
        ).wait()
        assert "Traceback" not in done.stderr
        assert (api.key or "") not in done.stdout + done.stderr
        return done

    return to_its_end


def receivers(api: Caller, name: str) -> list[tuple[str, str]]:
    """Ids of those of this name, and how their secrets end."""
    return [
        (str(number), hint)
        for number, hint in api.rows("SELECT id, shared_secret_hint FROM clarion.receivers WHERE name = %s", name)
    ]


@pytest.mark.parametrize(
    "fault", [Fault.NOT_PASSED_ON, Fault.ANSWER_LOST, Fault.ANSWER_CUT, Fault.ANSWER_HELD, Fault.BAD_GATEWAY]
)
def test_a_change_whose_answer_is_lost_is_made_once_and_its_answer_is_told(
    fault: Fault, api: Caller, front: Front, client: Callable[..., GraphQL], capsys: pytest.CaptureFixture[str]
) -> None:
    front.faults.append(fault)
    made = client(front, timeout_seconds=1 if fault is Fault.ANSWER_HELD else 15).run(CREATE, name=fault.name)
    receiver = made["createWebhookReceiver"]["webhookReceiver"]
    assert receivers(api, fault.name) == [(receiver["id"], receiver["sharedSecret"][-4:])]
    (key,) = set(front.idempotency_keys)
    assert key
    assert len({one.body for one in front.seen}) == 1
    said = capsys.readouterr().err.splitlines()
    assert len(said) == len(front.seen) - 1 > 0
    assert said[0].startswith(f"clarion: the API at {front.url} ")
    assert said[0].endswith("; asking again in 0 s, with its idempotency key: the change is made once")


def test_a_command_says_that_it_asked_again_and_prints_one_answer(api: Caller, front: Front, run: Run) -> None:
    front.faults.append(Fault.ANSWER_LOST)
    done = run(front, "receivers", "create", "lost", URI)
    ((receiver_id, hint),) = receivers(api, "lost")
    assert (done.code, len(done.stderr.splitlines())) == (0, 1), done.stderr
    assert "asking again in 0.2 s" in done.stderr
    first, second = done.stdout.splitlines()
    assert first == f"receiver {receiver_id} made: lost, {URI}"
    assert second.startswith("shared secret: whsec_")
    assert second.endswith(hint)


def test_it_is_asked_for_so_often_and_then_said_that_nobody_knows(
    api: Caller, front: Front, client: Callable[..., GraphQL]
) -> None:
    front.faults.extend([Fault.ANSWER_LOST] * 10)
    with pytest.raises(
        ApiUnavailable, match="; it was asked 3 times; it is not known whether the change was made"
    ) as lost:
        client(front, waits_seconds=(0.0, 0.0)).run(CREATE, name="unknown")
    assert "before you repeat the command" in lost.value.hint
    assert len(front.seen) == 3
    assert len(set(front.idempotency_keys)) == len(receivers(api, "unknown")) == 1


def test_an_api_that_wants_an_hour_is_not_waited_for(front: Front, client: Callable[..., GraphQL]) -> None:
    front.faults.append(Fault.IN_MAINTENANCE)
    with pytest.raises(ApiUnavailable, match="; it is not known whether the change was made"):
        client(front).run(CREATE, name="later")
    assert len(front.seen) == 1


def test_who_has_no_points_left_waits_for_them(
    shared_database: DatabaseAddress, capsys: pytest.CaptureFixture[str]
) -> None:
    random = SystemRandom()
    poor = Settings(api_points_per_second=10, api_points_burst=10)
    key = new_key(shared_database, "default", Role.INTEGRATOR, "poor")
    with served(shared_database, Sealer(random.token(32), random), settings=poor) as port:
        asking = GraphQL(f"http://127.0.0.1:{port}", key, waits_seconds=AT_ONCE)
        for name in ("first", "second"):
            asking.run(CREATE, name=name)
        asking.close()
    assert "(RATE_LIMITED); asking again in 1 s, with" in capsys.readouterr().err


def test_a_change_that_is_still_being_made_is_waited_for(
    api: Caller, front: Front, client: Callable[..., GraphQL], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clarion.api.idempotency, "WAIT_S", 0.2)
    front.faults.append(Fault.NOT_WAITED_FOR)
    with ThreadPoolExecutor(1) as pool:
        with psycopg.connect(api.database.url) as connection:
            connection.execute("LOCK TABLE clarion.receivers IN SHARE MODE")
            making = pool.submit(client(front, waits_seconds=(0.05,) * 100).run, CREATE, name="slow")
            until = time.monotonic() + 20
            while 409 not in front.statuses:
                assert time.monotonic() < until
                time.sleep(0.01)
        made = making.result()["createWebhookReceiver"]["webhookReceiver"]
    assert [number for number, _ in receivers(api, "slow")] == [made["id"]]


def test_what_never_got_there_is_not_asked_for_again(
    api: Caller, client: Callable[..., GraphQL], capsys: pytest.CaptureFixture[str]
) -> None:
    with Front(api.port) as gone:
        pass
    with pytest.raises(ApiUnavailable, match="does not answer") as refused:
        client(gone).run(CREATE, name="never")
    assert "not known" not in refused.value.message
    assert capsys.readouterr().err == ""


def test_pages_are_asked_for_again_and_need_no_key(
    api: Caller, front: Front, client: Callable[..., GraphQL], capsys: pytest.CaptureFixture[str]
) -> None:
    asking = client(front)
    for name in ("page 1", "page 2", "page 3"):
        asking.run(CREATE, name=name)
    front.seen.clear()
    front.faults.extend([None, Fault.ANSWER_LOST, Fault.NOT_PASSED_ON])
    names = [one["name"] for one in asking.nodes(LIST, "webhookReceivers", first=1)]
    assert names == [row[0] for row in api.rows("SELECT name FROM clarion.receivers WHERE deleted IS NULL ORDER BY id")]
    assert set(front.idempotency_keys) == {None}
    assert capsys.readouterr().err.count("asking again in 0 s\n") == 2


def test_an_api_that_was_there_a_page_ago_is_waited_for(
    api: Caller, front: Front, client: Callable[..., GraphQL], capsys: pytest.CaptureFixture[str]
) -> None:
    asking = client(front, waits_seconds=(0.0, 0.0))
    for name in ("first page", "second page"):
        asking.run(CREATE, name=name)
    with Front(api.port) as gone:
        going = client(gone, waits_seconds=(0.0, 0.0))
        pages = going.pages(LIST, "webhookReceivers", first=1)
        assert next(pages)
    going.close()
    with pytest.raises(ApiUnavailable, match="Connection refused"):
        next(pages)
    assert capsys.readouterr().err.count("Connection refused; asking again in 0 s\n") == 2


def test_each_change_has_a_key_of_its_own_and_what_is_only_read_has_none(front: Front, run: Run) -> None:
    assert run(front, "clients", "create", "keyed", "--role", "AUDITOR", "--with-key").code == 0
    assert run(front, "receivers", "create", "keyed", URI).code == 0
    assert len(front.idempotency_keys) == len(set(front.idempotency_keys)) == 3
    assert None not in front.idempotency_keys
    front.seen.clear()
    assert run(front, "receivers", "list").code == 0
    assert front.idempotency_keys == [None]


def test_a_receivers_test_is_sent_once_and_without_a_key(front: Front, run: Run) -> None:
    front.faults.append(Fault.NOT_PASSED_ON)
    lost = run(front, "receivers", "test", "7")
    assert (lost.code, lost.stdout) == (4, "")
    assert "it is not known whether the test was sent" in lost.stderr
    assert "`clarion events list --receiver 7` shows it" in lost.stderr
    assert front.idempotency_keys == [None]


def test_a_certificate_of_an_own_authority_needs_its_file(api: Caller, authority: Authority, run: Run) -> None:
    other = make_authority(authority.directory)
    with Front(api.port, certificate=authority.issue(addresses=["127.0.0.1"])) as front:
        for settings in ({}, {"CLARION_CA_FILE": str(other.ca_file)}):
            refused = run(front, "receivers", "list", **settings)
            assert refused.code == 4
            assert f"the certificate of the API at {front.url} is not trusted: " in refused.stderr
            assert "CLARION_CA_FILE must name a PEM file" in refused.stderr
        assert front.seen == []
        made = run(front, "receivers", "create", "secure", URI, CLARION_CA_FILE=str(authority.ca_file))
        assert (made.code, made.stderr) == (0, "")
        assert len(receivers(api, "secure")) == 1


@pytest.mark.parametrize(
    ("host", "certificate", "hint"),
    [
        ("localhost", {"names": ["api.example"]}, "must name the API as its certificate does"),
        ("127.0.0.1", {"addresses": ["127.0.0.2"]}, "must name the API as its certificate does"),
        ("127.0.0.1", {"addresses": ["127.0.0.1"], "expired": True}, "it has to be renewed"),
        ("127.0.0.1", {"addresses": ["127.0.0.1"], "self_signed": True}, "CLARION_CA_FILE must name a PEM file"),
    ],
)
def test_a_certificate_that_is_not_trusted_says_what_to_do(
    host: str, certificate: dict[str, Any], hint: str, authority: Authority
) -> None:
    with Front(certificate=authority.issue(**certificate)) as front:
        asking = GraphQL(front.url.replace("127.0.0.1", host), "k" * 40, ca_file=authority.ca_file)
        with pytest.raises(ApiRefused, match="is not trusted: ") as refused:
            asking.run(CREATE, name="untrusted")
        assert not isinstance(refused.value, ApiUnavailable), "nobody tries again until it is trusted"
        assert hint in refused.value.hint
        assert front.seen == []


def test_a_change_over_tls_is_asked_for_again(
    api: Caller, authority: Authority, client: Callable[..., GraphQL]
) -> None:
    with Front(api.port, certificate=authority.issue(addresses=["127.0.0.1"])) as front:
        front.faults.extend([Fault.ANSWER_LOST, Fault.ANSWER_CUT])
        client(front, ca_file=authority.ca_file).run(CREATE, name="over tls")
        assert len(front.seen) == 3
    assert len(receivers(api, "over tls")) == 1


def test_https_where_http_is_spoken_is_told_as_such(front: Front, api: Caller) -> None:
    with pytest.raises(ApiUnavailable) as refused:
        GraphQL(front.url.replace("http:", "https:"), api.key or "").run(CREATE, name="plain")
    assert "is it https that is spoken there?" in refused.value.hint


def test_a_ca_file_that_has_no_certificate_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty.pem").write_text("")
    for file in ("empty.pem", "absent.pem"):
        with pytest.raises(UsageInvalid, match=f"CLARION_CA_FILE: .*{file} cannot be used"):
            GraphQL("https://127.0.0.1", "k" * 40, ca_file=tmp_path / file)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_redirect_is_refused_and_the_key_never_sent_on(scheme: str, authority: Authority, run: Run) -> None:
    certificate = authority.issue(addresses=["127.0.0.1"]) if scheme == "https" else None
    with (
        Front(certificate=certificate) as elsewhere,
        Front(certificate=certificate, redirecting_to=f"{elsewhere.url}/graphql") as front,
    ):
        for arguments in (["receivers", "list"], ["receivers", "create", "redirected", URI]):
            refused = run(front, *arguments, CLARION_CA_FILE=str(authority.ca_file))
            assert (refused.code, refused.stdout) == (4, "")
            assert f"answered 307, a redirect to {elsewhere.url}/graphql" in refused.stderr
            assert "redirects are not followed" in refused.stderr
        assert len(front.seen) == 2
        assert elsewhere.connections_count == 0
