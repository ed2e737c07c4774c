"""Egress rules: exceptions that operators make to the table of forbidden addresses, for receivers inside the plant.

They hold for every organisation, so only clients of organisation `default`, the deployment's own, may make them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from ipaddress import ip_network
from typing import Any

from sqlalchemy import Row, delete, func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from clarion.access import history
from clarion.access.organisations import OWN_ORGANISATION, of_the_deployment
from clarion.access.principal import Permission, Principal
from clarion.core.environments import Environments
from clarion.core.errors import Code, RequestRefused
from clarion.core.ids import ClientId
from clarion.database import tables
from clarion.database.page import Page, PageRequest, SortKey, limited, page_of
from clarion.registry import fields, rows
from clarion.registry.fields import refused
from clarion.sender.address import Network, parse_host
from clarion.sender.policy import NEVER_BY_RULE, Rule

OBJECT_TYPE = "WebhookEgressRule"
RULES_MAX = 500


@dataclass(frozen=True, slots=True)
class EgressRule:
    """A rule as stored."""

    id: int
    environment: str
    host: str | None
    network: str
    port: int
    note: str
    etag: str
    created: datetime
    created_by_id: ClientId | None


def check_rule(given: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a rule to be: host (or None), network, port, note. Raises RequestRefused naming the input."""
    host = given.get("host")
    if host is not None:
        host = parse_host(host, "input.host")
    return {
        "host": host,
        "network": _network(given["network"]),
        "port": fields.whole_number(1, 65535)(given["port"], "input.port"),
        "note": fields.description(given["note"], "input.note"),
    }


def check_environment(name: str, own: str, environments: Environments) -> str:
    """The environment that a rule is for: `own` or one of the file's. Raises RequestRefused: a mistyped one would open nothing."""
    refusal = None if name == own else environments.refusal(name)
    if refusal is not None:
        raise refused(refusal, "input.environment")
    return name


def _network(text: str) -> Network:
    field = "input.network"
    try:
        network = ip_network(text, strict=False)
    except ValueError:
        raise refused("must be a network such as 10.1.0.0/16, or one address such as 10.1.2.3/32", field) from None
    if str(network) != text and str(network) != f"{text}/{network.max_prefixlen}":
        raise refused(f"must be written as {network}", field, recorded="must be written in its canonical form")
    for never in NEVER_BY_RULE:
        if network.version == never.version and network.overlaps(never):
            raise refused(
                f"holds addresses of {never}, which no rule can open: choose a smaller network, or another", field
            )
    return network


async def require_operator(connection: AsyncConnection, principal: Principal, permission: Permission) -> None:
    """Raises RequestRefused (FORBIDDEN) unless the client has the permission and belongs to the deployment's own organisation."""
    principal.require(permission)
    if not await of_the_deployment(connection, principal):
        raise RequestRefused(
            Code.FORBIDDEN,
            f"egress rules hold for all organisations: only clients of organisation {OWN_ORGANISATION!r} may see or make them",
        )


async def create_rule(
    connection: AsyncConnection, principal: Principal, environment: str, values: Mapping[str, Any]
) -> EgressRule:
    """The new rule. Raises RequestRefused: FORBIDDEN, CONFLICT for one that is there already, INVALID_INPUT for too many."""
    await require_operator(connection, principal, Permission.EGRESS_WRITE)
    rules = tables.egress_rules
    # Two that make a rule at once wait for each other: the number of rules is counted before one is added.
    await connection.execute(select(func.pg_advisory_xact_lock(_LOCK)))
    present = await connection.scalar(select(func.count()).where(rules.c.environment == environment))
    if (present or 0) >= RULES_MAX:
        raise refused(f"an environment has at most {RULES_MAX} rules: delete one first", "input")
    same = select(rules.c.id).where(
        rules.c.environment == environment,
        rules.c.host.is_not_distinct_from(values["host"]),
        rules.c.network == values["network"],
        rules.c.port == values["port"],
    )
    existing = await connection.scalar(same)
    if existing is not None:
        raise RequestRefused(Code.CONFLICT, f"the rule exists already, with id {existing}", "input")
    row = await connection.execute(
        insert(rules)
        .values(
            organisation_id=principal.organisation_id,
            environment=environment,
            created_by_id=principal.client_id,
            **values,
        )
        .returning(*_COLUMNS)
    )
    rule = _rule(row.one())
    await history.record(
        connection, principal, [history.Entry("CREATE", OBJECT_TYPE, str(rule.id), after=_shown(rule))]
    )
    return rule


async def delete_rule(connection: AsyncConnection, principal: Principal, rule_id: int, etag: str) -> None:
    """Take a rule back. Raises RequestRefused: FORBIDDEN, NOT_FOUND on `id`, CONFLICT on `etag`."""
    await require_operator(connection, principal, Permission.EGRESS_WRITE)
    rules = tables.egress_rules.c
    found = (await connection.execute(select(*_COLUMNS).where(rules.id == rule_id))).one_or_none()
    if found is None:
        raise rows.not_found("webhook egress rule", "id")
    rule = _rule(found)
    rows.compare_etag(rule.etag, etag, "webhook egress rule", "etag")
    gone = await connection.execute(delete(tables.egress_rules).where(rules.id == rule_id).returning(rules.id))
    if gone.one_or_none() is None:
        raise rows.not_found("webhook egress rule", "id")
    await history.record(
        connection, principal, [history.Entry("DELETE", OBJECT_TYPE, str(rule_id), before=_shown(rule))]
    )


async def list_rules(
    connection: AsyncConnection, principal: Principal, sort: Sequence[SortKey], request: PageRequest
) -> Page[EgressRule]:
    """One page of all environments' rules. Raises RequestRefused (FORBIDDEN)."""
    await require_operator(connection, principal, Permission.WEBHOOKS_READ)
    found = [_rule(row) for row in await connection.execute(limited(select(*_COLUMNS), sort, request))]
    return page_of(found, sort, request, lambda rule: [getattr(rule, key.name) for key in sort])


async def count_rules(connection: AsyncConnection) -> int:
    """How many rules there are."""
    return int((await connection.execute(select(func.count()).select_from(tables.egress_rules))).scalar_one())


async def find_rule(connection: AsyncConnection, rule_id: int) -> EgressRule:
    """One rule, for whom `require_operator` let through. Raises RequestRefused: NOT_FOUND on `id`."""
    found = (await connection.execute(select(*_COLUMNS).where(tables.egress_rules.c.id == rule_id))).one_or_none()
    if found is None:
        raise rows.not_found("webhook egress rule", "id")
    return _rule(found)


async def rules_of(connection: AsyncConnection, environment: str) -> tuple[Rule, ...]:
    """What the policy of this environment is made with."""
    rules = tables.egress_rules.c
    found = await connection.execute(
        select(rules.host, rules.network, rules.port).where(rules.environment == environment).order_by(rules.id)
    )
    return tuple(Rule(row.host, ip_network(str(row.network)), row.port) for row in found)


_LOCK = 0x434C_4552  # "CLER"
_COLUMNS = tuple(
    tables.egress_rules.c[name]
    for name in ("id", "environment", "host", "network", "port", "note", "etag", "created", "created_by_id")
)


def _rule(row: Row[Any]) -> EgressRule:
    return EgressRule(
        row.id,
        row.environment,
        row.host,
        str(row.network),
        row.port,
        row.note,
        row.etag,
        row.created,
        rows.optional_client(row.created_by_id),
    )


def _shown(rule: EgressRule) -> dict[str, Any]:
    return {name: getattr(rule, name) for name in ("environment", "host", "network", "port", "note")}
