from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy

from clarion.access.authentication import CACHED_NS_MAX, KeyCache, presented_key
from clarion.access.bootstrap import create_key, ensure_bootstrap
from clarion.access.keys import key_hash, new_key
from clarion.access.last_used import KeyUses
from clarion.access.principal import Permission, Principal, Role
from clarion.core.clock import Now
from clarion.core.errors import Code, RequestRefused, UsageInvalid
from clarion.core.ids import ClientId, OrganisationId
from clarion.core.system import SystemRandom
from clarion.database.address import DatabaseAddress

KEY = "a bootstrap key of more than 32 characters"
STATE = sqlalchemy.text(
    "SELECT o.name, c.name, c.kind, c.role, k.prefix, k.hash, k.revoked IS NULL FROM clarion.organisations o "
    "JOIN clarion.clients c ON c.organisation_id = o.id JOIN clarion.api_keys k ON k.client_id = c.id ORDER BY k.id"
)


@pytest.fixture
def engine(shared_database: DatabaseAddress) -> Iterator[sqlalchemy.Engine]:
    """On a database that each test finds without organisations."""
    made = sqlalchemy.create_engine(shared_database.sqlalchemy("psycopg"))
    yield made
    with made.begin() as connection:
        for table in ("history", "api_keys", "clients", "organisations"):
            connection.execute(sqlalchemy.text(f"DELETE FROM clarion.{table}"))
    made.dispose()


def state(engine: sqlalchemy.Engine) -> list[tuple[object, ...]]:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(STATE)]


def test_a_key_has_its_shape_and_is_stored_hashed_only(engine: sqlalchemy.Engine) -> None:
    with engine.begin() as connection:
        key = create_key(connection, "acme", "erp", Role.INTEGRATOR, SystemRandom())
    assert re.fullmatch(r"clk_[0-9a-z]{8}_[A-Za-z0-9_-]{43}", key)
    assert state(engine) == [("acme", "erp", "MACHINE", "INTEGRATOR", key[:12], key_hash(key), True)]
    with engine.begin() as connection:
        dumped = str(connection.execute(sqlalchemy.text("SELECT to_jsonb(h) FROM clarion.history h")).all())
    assert "ApiKey" in dumped
    assert key not in dumped


def test_a_client_may_have_several_keys_and_keeps_its_role(engine: sqlalchemy.Engine) -> None:
    with engine.begin() as connection:
        first = create_key(connection, "acme", "erp", Role.INTEGRATOR, SystemRandom())
        second = create_key(connection, "acme", "erp", Role.INTEGRATOR, SystemRandom())
        assert first != second
        with pytest.raises(UsageInvalid, match="exists with role INTEGRATOR"):
            create_key(connection, "acme", "erp", Role.ADMINISTRATOR, SystemRandom())
    assert len(state(engine)) == 2


@pytest.mark.parametrize("name", ["", "  ", "x" * 201, "a\nb"])
def test_an_unusable_name_is_refused(engine: sqlalchemy.Engine, name: str) -> None:
    with engine.begin() as connection:
        for organisation, client in ((name, "erp"), ("acme", name)):
            with pytest.raises(UsageInvalid):
                create_key(connection, organisation, client, Role.AUDITOR, SystemRandom())


def test_the_bootstrap_key_is_made_again_and_again_without_harm(engine: sqlalchemy.Engine) -> None:
    version = sqlalchemy.text("SELECT version FROM clarion.configuration")
    versions = []
    for _ in range(3):
        with engine.begin() as connection:
            ensure_bootstrap(connection, KEY)
            versions.append(connection.execute(version).scalar_one())
    expected = ("default", "bootstrap", "MACHINE", "ADMINISTRATOR", "bootstrap", key_hash(KEY), True)
    assert state(engine) == [expected]
    assert versions[0] == versions[1] == versions[2]


def test_another_bootstrap_key_takes_the_place_of_the_one_before(engine: sqlalchemy.Engine) -> None:
    other = KEY + " two"
    with engine.begin() as connection:
        mine = create_key(connection, "default", "bootstrap", Role.ADMINISTRATOR, SystemRandom())

    def valid() -> set[object]:
        return {row[5] for row in state(engine) if row[6]}

    for key in (KEY, other, KEY):
        with engine.begin() as connection:
            ensure_bootstrap(connection, key)
        assert valid() == {key_hash(key), key_hash(mine)}


def test_a_bootstrap_key_that_is_short_or_somebody_elses_is_refused(engine: sqlalchemy.Engine) -> None:
    with engine.begin() as connection:
        taken = create_key(connection, "acme", "erp", Role.INTEGRATOR, SystemRandom())
        for key in ("short", taken):
            with pytest.raises(UsageInvalid, match="CLARION_BOOTSTRAP_API_KEY"):
                ensure_bootstrap(connection, key)


def test_a_key_for_some_resources_keeps_meaning_the_same(engine: sqlalchemy.Engine) -> None:
    tests, receivers = "WEBHOOK_TESTS", "WEBHOOK_RECEIVERS"

    def create(**resources: Any) -> str:
        with engine.begin() as connection:
            return create_key(connection, "acme", "erp", Role.INTEGRATOR, SystemRandom(), **resources)

    create(readable_resources=[tests, receivers, tests], publishable_resources=[tests])
    create(readable_resources=[receivers, tests])
    create()
    with pytest.raises(UsageInvalid, match="exists with readable resources WEBHOOK_RECEIVERS, WEBHOOK_TESTS"):
        create(readable_resources=[tests])
    with pytest.raises(UsageInvalid, match="exists with publishable resources WEBHOOK_TESTS"):
        create(publishable_resources=[])
    with pytest.raises(UsageInvalid, match="no resource is registered as NO_SUCH"):
        create(readable_resources=["NO_SUCH"])
    with engine.connect() as connection:
        stored = connection.execute(
            sqlalchemy.text("SELECT readable_resources, publishable_resources FROM clarion.clients")
        ).all()
    assert [tuple(row) for row in stored] == [([receivers, tests], [tests])]
    assert len(state(engine)) == 3


def test_new_keys_differ() -> None:
    assert len({new_key(SystemRandom()) for _ in range(100)}) == 100


@pytest.mark.parametrize(
    ("header", "key"),
    [
        (None, None),
        ("", None),
        ("Bearer", None),
        ("Bearer   ", None),
        ("token ", None),
        ("Bearer abc", "abc"),
        ("BEARER  abc ", "abc"),
        ("Token abc", "abc"),
        ("abc", "abc"),
        ("a key with spaces", "a key with spaces"),
        ("Bearer a key with spaces", "a key with spaces"),
        ("x" * 513, None),
    ],
)
def test_the_key_in_a_header(header: str | None, key: str | None) -> None:
    assert presented_key(header) == key


class Hand:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.ns = 0

    def monotonic_ns(self) -> int:
        return self.ns

    def lease_ns(self) -> int:
        return self.ns

    def wall(self) -> object:
        raise NotImplementedError

    def now(self) -> Now:
        raise NotImplementedError

    def learn_wall(self, wall: object) -> None:
        raise NotImplementedError


PRINCIPAL = Principal(ClientId(1), "erp", "MACHINE", Role.INTEGRATOR, OrganisationId(1))


def test_a_cached_answer_is_used_for_a_second_at_most() -> None:
    clock = Hand()
    cache = KeyCache(clock, KeyUses(clock))  # type: ignore[arg-type]  # a clock that the test turns
    cache.put(b"hash", PRINCIPAL)
    clock.ns = CACHED_NS_MAX - 1
    assert cache.get(b"hash") is PRINCIPAL
    clock.ns = CACHED_NS_MAX
    assert cache.get(b"hash") is None
    assert cache.get(b"other") is None


def test_the_cache_is_bounded() -> None:
    cache = KeyCache(Hand(), KeyUses(Hand()))  # type: ignore[arg-type]  # a clock that the test turns
    for number in range(10_001):
        cache.put(number.to_bytes(4, "big"), PRINCIPAL)
    assert cache.get((0).to_bytes(4, "big")) is None
    assert cache.get((10_000).to_bytes(4, "big")) is PRINCIPAL


@pytest.mark.parametrize(
    ("role", "permissions"),
    [
        (Role.ADMINISTRATOR, set(Permission)),
        (
            Role.INTEGRATOR,
            {Permission.WEBHOOKS_READ, Permission.WEBHOOKS_WRITE, Permission.EVENTS_WRITE, Permission.CHANGES_READ},
        ),
        (
            Role.OPERATOR,
            {
                Permission.WEBHOOKS_READ,
                Permission.EVENTS_WRITE,
                Permission.CHANGES_PUBLISH,
                Permission.RESOURCES_WRITE,
                Permission.EGRESS_WRITE,
                Permission.CLIENTS_READ,
                Permission.HISTORY_READ,
            },
        ),
        (
            Role.AUDITOR,
            {Permission.WEBHOOKS_READ, Permission.CHANGES_READ, Permission.CLIENTS_READ, Permission.HISTORY_READ},
        ),
    ],
)
def test_what_each_role_may_do(role: Role, permissions: set[Permission]) -> None:
    principal = Principal(ClientId(1), "erp", "MACHINE", role, OrganisationId(1))
    assert {permission for permission in Permission if principal.may(permission)} == permissions
    for permission in set(Permission) - permissions:
        with pytest.raises(RequestRefused) as refusal:
            principal.require(permission)
        assert refusal.value.code is Code.FORBIDDEN
