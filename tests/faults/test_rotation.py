"""Secrets, signing keys and the key-encryption key are rotated under a running deployment, and no signature fails."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from clarion_receive import VerificationError, Webhook, public_keys
from harness.api import Caller
from harness.deployment import Deployment
from harness.process import CLARION, clean_environment
from harness.receiver import Received

pytestmark = pytest.mark.data_path

KEY = "a-bootstrap-key-of-more-than-32-characters"
ROTATE = (
    "mutation($input: RotateWebhookReceiverSecretInput!) { rotateWebhookReceiverSecret(input: $input) "
    "{ webhookReceiver { sharedSecret previousSecretUntil } } }"
)


@pytest.fixture(scope="module")
def api(shared_deployment: Deployment) -> Caller:
    roles = ("--role", "api", "--role", "router", "--role", "delivery")
    serve = shared_deployment.serve(*roles, CLARION_LISTEN="127.0.0.1:0", CLARION_BOOTSTRAP_API_KEY=KEY)
    shared_deployment.attach()
    port = int(serve.wait_for_line(r"ready on http://127\.0\.0\.1:(\d+)")[1])
    return Caller(port, KEY, shared_deployment.database)


@contextmanager
def changes(deployment: Deployment) -> Iterator[None]:
    """A change of the table `items` every 10 ms, while the block runs."""
    ending = threading.Event()

    def write() -> None:
        with psycopg.connect(deployment.database.url, autocommit=True) as connection:
            while not ending.wait(0.01):
                connection.execute("INSERT INTO items DEFAULT VALUES")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield
    finally:
        ending.set()
        writer.join()
        deployment.wait_until_settled()


def keys(deployment: Deployment, *arguments: str) -> dict[str, Any]:
    """The JSON that `clarion keys …` prints beside the running deployment."""
    environment = clean_environment(
        deployment.directory,
        CLARION_DATABASE_URL=deployment.database.url,
        CLARION_SECRET_KEY_FILE=str(deployment.directory / "secret.key"),
    )
    command = [CLARION, "keys", *arguments]
    done = subprocess.run(
        command, env=environment, cwd=deployment.directory, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout) if "--json" in arguments else {}


def verified_by(secret: str | list[str], requests: list[Received]) -> list[bool]:
    def holds(request: Received) -> bool:
        try:
            Webhook(secret).verify(request.body, request.headers)
        except VerificationError:
            return False
        return True

    return [holds(request) for request in requests]


def to(path: str, deployment: Deployment) -> list[Received]:
    return [request for request in deployment.receiver.received() if request.path == path]


@pytest.fixture
def subscribed(shared_deployment: Deployment, api: Caller) -> Iterator[Callable[..., int]]:
    """Registers receivers of all changes of `items`; gone after the test."""
    made: list[int] = []

    def register(path: str, **columns: object) -> int:
        receiver_id = shared_deployment.register(shared_deployment.receiver.uri(path), **columns)
        shared_deployment.subscribe(receiver_id)
        made.append(receiver_id)
        return receiver_id

    yield register
    shared_deployment.connection.execute(
        "UPDATE clarion.subscriptions SET deleted = now() WHERE receiver_id = ANY (%s)", (made,)
    )
    shared_deployment.wait_until_settled()


def test_old_new_and_both_verify_through_a_rotation_and_the_old_one_ends_on_time(
    shared_deployment: Deployment, api: Caller, subscribed: Callable[..., int]
) -> None:
    receiver_id = subscribed("/rotated")
    old = shared_deployment.secrets[receiver_id]
    with changes(shared_deployment):
        shared_deployment.receiver.wait_until(lambda _: len(to("/rotated", shared_deployment)) > 20)
        ((etag,),) = api.rows("SELECT etag FROM clarion.receivers WHERE id = %s", receiver_id)
        answer = api(ROTATE, input={"id": receiver_id, "_etag": etag, "overlapSeconds": 2})
        rotated_at = time.time()
        new = answer.data["rotateWebhookReceiverSecret"]["webhookReceiver"]["sharedSecret"]
        ((until,),) = api.rows(
            "SELECT extract(epoch FROM previous_secret_until)::float8 FROM clarion.receivers WHERE id = %s", receiver_id
        )
        shared_deployment.receiver.wait_until(
            lambda _: to("/rotated", shared_deployment)[-1].at > until + 1, timeout_s=15
        )
    requests = to("/rotated", shared_deployment)
    assert all(verified_by([new, old], requests))
    overlap = [r for r in requests if rotated_at + 1 < r.at and int(r.headers["webhook-timestamp"]) < until]
    assert len(overlap) > 10
    assert all(verified_by(old, overlap))
    assert all(verified_by(new, overlap))
    assert all(verified_by(old, [r for r in requests if int(r.headers["webhook-timestamp"]) < until]))
    late = [r for r in requests if int(r.headers["webhook-timestamp"]) >= until]
    assert len(late) > 10
    assert not any(verified_by(old, late))
    assert not any(verified_by(old, [r for r in requests if r.at >= until + 1]))
    assert all(verified_by(new, late))
    assert overlap[0].headers["webhook-signature"].count("v1,") == 2


def test_signing_keys_are_published_before_they_sign_and_follow_without_a_gap(
    shared_deployment: Deployment, api: Caller, subscribed: Callable[..., int]
) -> None:
    def published() -> list[str]:
        answer = api.with_key(None).send(b"", "GET", "/.well-known/jwks.json")
        assert answer.status == 200
        assert "max-age" in answer.headers["cache-control"]
        return public_keys(answer.body)

    (old,) = published()
    subscribed("/v1a", signatures=["V1A"])
    both = subscribed("/both", signatures=["V1", "V1A"])
    with changes(shared_deployment):
        shared_deployment.receiver.wait_until(lambda _: len(to("/v1a", shared_deployment)) > 20)
        second = 1 / 3600
        made = keys(
            shared_deployment,
            *("rotate-signing-key", "--json", "--announce-hours", str(second), "--overlap-hours", str(second)),
        )
        (until,) = shared_deployment.rows(
            "SELECT extract(epoch FROM signs_until)::float8 FROM clarion.signing_keys WHERE signs_until IS NOT NULL"
        )[0]
        shared_deployment.receiver.wait_until(lambda _: to("/v1a", shared_deployment)[-1].at > until + 1, timeout_s=15)
    assert sorted(published()) == sorted([old, made["publicKey"]])
    requests = to("/v1a", shared_deployment)
    assert all(verified_by([old, made["publicKey"]], requests))
    early = [r for r in requests if int(r.headers["webhook-timestamp"]) < until]
    late = [r for r in requests if int(r.headers["webhook-timestamp"]) >= until]
    assert len(late) > 10
    assert all(verified_by(old, early))
    assert not any(verified_by(old, late))
    assert all(verified_by(made["publicKey"], late))
    assert any(verified_by(made["publicKey"], early)), "both sign meanwhile"
    assert not any("v1," in request.headers["webhook-signature"] for request in requests)
    with_both = to("/both", shared_deployment)
    assert all(verified_by(shared_deployment.secrets[both], with_both))
    assert all(verified_by([old, made["publicKey"]], with_both))


def test_the_key_encryption_key_is_rotated_under_load_and_no_signature_fails(
    shared_deployment: Deployment, api: Caller, subscribed: Callable[..., int], tmp_path: Path
) -> None:
    receiver_id = subscribed("/kek")
    new_file = tmp_path / "new.key"
    keys(shared_deployment, "new-encryption-key", str(new_file))
    with changes(shared_deployment):
        shared_deployment.receiver.wait_until(lambda _: len(to("/kek", shared_deployment)) > 20)
        done = keys(shared_deployment, "rotate-encryption-key", str(new_file), "--json")
        assert done["unreadable"] == 0
        assert done["rewrapped"] > 0
        # The running API seals with the new key, and the running worker opens that, both without a start.
        ((etag,),) = api.rows("SELECT etag FROM clarion.receivers WHERE id = %s", receiver_id)
        answer = api(ROTATE, input={"id": receiver_id, "_etag": etag, "overlapSeconds": 0})
        new = answer.data["rotateWebhookReceiverSecret"]["webhookReceiver"]["sharedSecret"]
        shared_deployment.receiver.wait_until(
            lambda _: any(verified_by(new, to("/kek", shared_deployment)[-1:])), timeout_s=15
        )
    requests = to("/kek", shared_deployment)
    assert all(verified_by([new, shared_deployment.secrets[receiver_id]], requests))
    assert verified_by(new, requests)[-1]
    assert (shared_deployment.directory / "secret.key").read_bytes() == new_file.read_bytes()
    ((stored,),) = shared_deployment.rows("SELECT secret_key_fingerprint FROM clarion.deployment")
    assert stored == done["fingerprint"]
    # What a start reads with the new key alone.
    revealed = api(f'{{ webhookReceiver(id: "{receiver_id}") {{ sharedSecret }} }}').data["webhookReceiver"]
    assert revealed["sharedSecret"] == new
