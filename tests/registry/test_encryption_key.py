"""Rotation of the key-encryption key, and of the signing keys, on a real database."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from clarion.app import load_secret_key, make_sealer
from clarion.core.errors import EnvironmentRefused, UsageInvalid
from clarion.core.settings import Settings
from clarion.core.system import SystemRandom
from clarion.registry import encryption_key, signing_keys
from clarion.sender.endpoint import (
    idempotency_binding,
    previous_secret_binding,
    secret_binding,
    signing_key_binding,
)
from clarion.sender.seal import Sealer, SecretUnreadable, create_key, load_key, next_path, previous_path
from harness.deployment import Deployment

STEPS = 8  # the new key written, six columns, the transaction's end


class Crash(Exception):
    pass


def _settings(deployment: Deployment) -> Settings:
    return Settings(secret_key_file=deployment.directory / "secret.key", database_url=deployment.database.url)


def _crash_at(step: int) -> Callable[[str], None]:
    lines: list[str] = []

    def progress(line: str) -> None:
        lines.append(line)
        if len(lines) == step:
            raise Crash

    return progress


def _all_open(deployment: Deployment, sealer: Sealer) -> bool:
    for organisation, receiver, sealed in deployment.rows(
        "SELECT organisation_id, id, shared_secret_sealed FROM clarion.receivers"
    ):
        secret = sealer.unseal(sealed, secret_binding(organisation, receiver)).decode()
        assert secret == deployment.secrets[receiver]
    for public, sealed in deployment.rows("SELECT public_key, private_key_sealed FROM clarion.signing_keys"):
        sealer.unseal(sealed, signing_key_binding(public))
    for client, key, sealed in deployment.rows("SELECT client_id, key, answer_sealed FROM clarion.idempotency_keys"):
        assert sealer.unseal(sealed, idempotency_binding(client, key)) == key.encode()
    return True


def _store_answers(deployment: Deployment, sealer: Sealer, count: int) -> None:
    """Answers of a client to requests with idempotency keys; each is its key."""
    deployment.connection.execute(
        "INSERT INTO clarion.clients (organisation_id, name, kind, role) "
        "SELECT id, 'client', 'MACHINE', 'INTEGRATOR' FROM clarion.organisations WHERE name = 'default'"
    )
    ((client, organisation),) = deployment.rows("SELECT id, organisation_id FROM clarion.clients")
    with deployment.connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO clarion.idempotency_keys (organisation_id, client_id, key, request_sha256, status, answer_sealed) "
            "VALUES (%s, %s, %s, sha256(''), 200, %s)",
            [
                (organisation, client, key, sealer.seal(key.encode(), idempotency_binding(client, key)))
                for key in map(str, range(count))
            ],
        )


def test_values_of_more_than_one_batch_are_all_wrapped_anew(deployment: Deployment, tmp_path: Path) -> None:
    settings = _settings(deployment)
    path = settings.secret_key_path
    deployment.attach()
    with psycopg.connect(deployment.database.url) as connection:
        sealer = make_sealer(settings, load_secret_key(settings, connection))
    _store_answers(deployment, sealer, 2_001)
    new = create_key(tmp_path / "new.key", SystemRandom())
    with psycopg.connect(deployment.database.url) as connection:
        done = encryption_key.rotate(connection, path, load_key(path), new, SystemRandom())
    assert (done.rewrapped, done.unreadable) == (2_001, 0)
    assert _all_open(deployment, Sealer(new, SystemRandom()))


@pytest.mark.parametrize("step", range(1, STEPS + 1))
def test_a_crash_at_any_step_leaves_what_the_next_start_resolves(
    deployment: Deployment, step: int, tmp_path: Path
) -> None:
    settings = _settings(deployment)
    path = settings.secret_key_path
    old = load_key(path)
    new = create_key(tmp_path / "new.key", SystemRandom())
    deployment.register()
    deployment.attach()
    with psycopg.connect(deployment.database.url) as connection:
        sealer = make_sealer(settings, load_secret_key(settings, connection))
        signing_keys.ensure_signing_key(connection, sealer, SystemRandom())
    _store_answers(deployment, sealer, 3)
    with psycopg.connect(deployment.database.url) as connection, pytest.raises(Crash):
        encryption_key.rotate(connection, path, old, new, SystemRandom(), progress=_crash_at(step))
    assert _all_open(deployment, sealer), "whoever held the old key opens everything"
    with psycopg.connect(deployment.database.url) as connection:
        key = load_secret_key(settings, connection)
    assert key == (new if step == STEPS else old)
    assert load_key(path) == key
    assert _all_open(deployment, Sealer(key, SystemRandom()))
    # And the rotation can be made again, or says that it was.
    with psycopg.connect(deployment.database.url) as connection:
        if key == new:
            with pytest.raises(UsageInvalid, match="in use already"):
                encryption_key.rotate(connection, path, key, new, SystemRandom())
        else:
            done = encryption_key.rotate(connection, path, key, new, SystemRandom())
            assert (done.rewrapped, done.unreadable) == (5, 0)
    assert (load_key(path), load_key(previous_path(path))) == (new, old)
    assert not next_path(path).exists()
    assert _all_open(deployment, Sealer(new, SystemRandom()))
    with pytest.raises(SecretUnreadable):
        _all_open(deployment, Sealer(old, SystemRandom()))
    assert deployment.rows("SELECT 1 FROM clarion.outbox WHERE action = 'u'") == []
    assert deployment.rows("SELECT DISTINCT tgenabled FROM pg_trigger WHERE tgname = '!clarion_capture'") == [("A",)]


def test_two_rotations_at_once_are_refused_and_a_stale_one_changes_nothing(deployment: Deployment) -> None:
    settings = _settings(deployment)
    path = settings.secret_key_path
    old = load_key(path)
    random = SystemRandom()
    with psycopg.connect(deployment.database.url) as first, psycopg.connect(deployment.database.url) as second:
        load_secret_key(settings, first)

        def meanwhile(line: str) -> None:
            with pytest.raises(EnvironmentRefused, match="under way"):
                encryption_key.rotate(second, path, old, random.token(32), random)

        new = random.token(32)
        encryption_key.rotate(first, path, old, new, random, progress=meanwhile)
        with pytest.raises(EnvironmentRefused, match="rotated meanwhile"):
            encryption_key.rotate(second, path, old, random.token(32), random)
        assert load_secret_key(settings, second) == load_key(path) == new


def test_a_value_that_no_key_opens_is_left_as_it_is_and_counted(deployment: Deployment) -> None:
    settings = _settings(deployment)
    path = settings.secret_key_path
    one, other = deployment.register(), deployment.register()
    deployment.connection.execute(
        "UPDATE clarion.receivers SET previous_secret_sealed = shared_secret_sealed, previous_secret_until = now() WHERE id = %s",
        (one,),
    )
    with psycopg.connect(deployment.database.url) as connection:
        old = load_secret_key(settings, connection)
        done = encryption_key.rotate(connection, path, old, SystemRandom().token(32), SystemRandom())
    assert (done.rewrapped, done.unreadable) == (2, 1)
    assert other in deployment.secrets


def test_a_sealed_secret_opens_in_its_own_row_and_column_only(deployment: Deployment) -> None:
    sealer = Sealer(load_key(deployment.directory / "secret.key"), SystemRandom())
    binding = previous_secret_binding(1, 2)
    sealed = sealer.seal(b"former", binding)
    assert sealer.unseal(sealer.rewrap(sealed, binding), binding) == b"former"
    for elsewhere in (
        secret_binding(1, 2),
        previous_secret_binding(1, 3),
        previous_secret_binding(2, 2),
        signing_key_binding(b"2"),
    ):
        for operation in (sealer.unseal, sealer.rewrap):
            with pytest.raises(SecretUnreadable):
                operation(sealed, elsewhere)


def test_signing_keys_follow_each_other_without_a_gap(deployment: Deployment) -> None:
    settings = _settings(deployment)
    query = "SELECT public_key, signs_from, signs_until FROM clarion.signing_keys ORDER BY id"
    with psycopg.connect(deployment.database.url) as connection:
        sealer = make_sealer(settings, load_secret_key(settings, connection))
        for _ in range(2):
            signing_keys.ensure_signing_key(connection, sealer, SystemRandom())
        assert len(deployment.rows(query)) == 1
        made = signing_keys.rotate(connection, sealer, SystemRandom(), overlap_s=3600, announce_s=60)
    rows: list[tuple[Any, ...]] = deployment.rows(query)
    assert rows[0][2] == made.former_until
    assert rows[1][1:] == (made.signs_from, None)
    assert (made.former_until - made.signs_from).total_seconds() == 3600
    assert made.signs_from.microsecond == made.former_until.microsecond == 0
