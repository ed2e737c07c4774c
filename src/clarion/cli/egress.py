"""`clarion egress`: the addresses that requests come from, listed and proved; the rules for where they go are beside it."""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass, replace
from ipaddress import ip_network
from pathlib import Path
from typing import TYPE_CHECKING

import click

from clarion.cli.egress_rules import addresses, rules
from clarion.cli.output import print_json, print_table, styled
from clarion.core.errors import CheckFailed
from clarion.core.settings import Address, Settings, load_settings

if TYPE_CHECKING:
    from clarion.core.environments import Environment
    from clarion.sender.policy import Policy
    from clarion.sender.route import Route


@click.group
def egress() -> None:
    """Check and list the addresses that requests come from, and make rules for where they may go."""


egress.add_command(rules)
egress.add_command(addresses)


@egress.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON: the document of /.well-known/webhook-egress.json.")
def list_(*, as_json: bool) -> None:
    """List the environments of CLARION_ENVIRONMENTS_FILE and their addresses; the own one is marked."""
    from clarion.core.environments import load_environments

    settings = load_settings()
    environments = load_environments(settings.environments_file, settings.environment)
    if as_json:
        print_json(environments.published())
        return
    if not environments.all:
        click.echo("no environments: CLARION_ENVIRONMENTS_FILE is not set, so nothing is promised to receivers")
        return
    rows = [
        (
            "*" if environment is environments.own else "",
            environment.name,
            one.address,
            one.since.isoformat() if one.since else "",
            one.until.isoformat() if one.until else "",
            " ".join(environment.urls),
        )
        for environment in environments.all
        for one in environment.addresses
    ]
    print_table(["own", "environment", "address", "from", "until", "application"], rows)


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was looked at."""

    check: str
    subject: str
    passed: bool
    result: str


@egress.command
@click.option(
    "--to", "uri", help="Open one real TLS connection to this https:// URI, for each address; nothing is sent."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def check(uri: str | None, *, as_json: bool) -> None:
    """Prove that requests can leave this host as configured; exit code 1 if not.

    Looks at the environment, at each source address, and at the proxy. With --to the way is gone to its end: policy, source
    address, proxy, TLS. The policy has the rules that were made through the API, if there is a database.
    """
    from clarion.app import egress_route
    from clarion.core.environments import load_environments

    settings = load_settings()
    own = load_environments(settings.environments_file, settings.environment).own
    checks = _environment(settings, own)
    if uri is not None and all(one.passed for one in checks):
        route = egress_route(settings, own)
        checks += asyncio.run(_connections(route, _policy(settings, own), settings.ca_file, uri))
    if as_json:
        print_json([asdict(one) for one in checks])
    else:
        print_table(
            ["check", "subject", "", "result"],
            [
                (one.check, one.subject, styled("ok", "green") if one.passed else styled("FAILED", "red"), one.result)
                for one in checks
            ],
        )
    failed = sum(not one.passed for one in checks)
    if failed:
        raise CheckFailed(f"{failed} of {len(checks)} checks failed", "the table says what and why")


def _environment(settings: Settings, own: Environment | None) -> list[Check]:
    from clarion.app import source_addresses
    from clarion.sender.route import parse_proxy

    found = [
        Check("environment", own.name, True, f"{len(own.addresses)} addresses are published")
        if own is not None
        else Check("environment", "none", True, "no addresses are published; receivers cannot rely on any")
    ]
    if settings.source_addresses_translated:
        found.append(Check("translation", "NAT", True, "declared: the published addresses are put on behind this host"))
    sources = source_addresses(settings, own)
    found += [_source(source, settings, own) for source in sources]
    if not sources:
        found.append(Check("source address", "any", True, "the system chooses: none is configured"))
    if settings.egress_proxy is not None:
        proxy = parse_proxy(settings.egress_proxy.get_secret_value())
        found.append(Check("proxy", f"{proxy.host}:{proxy.port}", True, "requests go through it by CONNECT"))
    return found


def _source(source: Address, settings: Settings, own: Environment | None) -> Check:
    """Whether this host has the address, and receivers were told of it."""
    from clarion.app import address_missing
    from clarion.core.system import SystemClock
    from clarion.sender.policy import is_own

    if not is_own(source):
        missing = address_missing(source)
        return Check("source address", str(source), False, f"{missing.message}; {missing.hint}")
    now = SystemClock().wall()
    seen_as_it_is = not settings.source_addresses_translated and settings.egress_proxy is None
    if own is not None and own.addresses and seen_as_it_is:
        told = {one.address for one in own.addresses if one.in_force(now)}
        if source not in told:
            return Check(
                "source address",
                str(source),
                False,
                f"is on this host, but {own.name} does not publish it as in force: firewalls of receivers refuse it;"
                " add it to the file, or set CLARION_SOURCE_ADDRESSES_TRANSLATED=true if a NAT puts another on",
            )
    return Check("source address", str(source), True, "is on this host")


def _policy(settings: Settings, own: Environment | None) -> Policy:
    """What requests are held to, rules of the own environment included; without a database that of the settings."""
    from clarion.app import egress_policy
    from clarion.cli.database import database_url
    from clarion.database.check import connect
    from clarion.database.embedded import opened
    from clarion.database.migrate import assert_migrated
    from clarion.database.roles import quoted, read_roles
    from clarion.sender.policy import Policy, Rule

    if settings.database_url is None and not (settings.data_dir / "postgres").exists():
        return Policy(settings.allowed_networks)
    with opened(database_url(settings), settings.data_dir) as address:
        assert_migrated(address)
        with connect(address) as connection:
            policy = egress_policy(settings, own, connection)
            # As the worker sees them: row-level security hides them from a plain login.
            connection.execute(f"SET LOCAL ROLE {quoted(read_roles(connection).engine, connection)}".encode())
            rules = connection.execute(
                "SELECT host, network::text, port FROM clarion.egress_rules WHERE environment = %s ORDER BY id",
                (settings.environment_name,),
            ).fetchall()
    return replace(policy, rules=tuple(Rule(host, ip_network(network), port) for host, network, port in rules))


async def _connections(route: Route, policy: Policy, ca_file: Path | None, uri: str) -> list[Check]:
    """One connection from each source address, opened as for a request and closed."""
    from clarion.core.errors import RequestRefused
    from clarion.core.system import SystemClock
    from clarion.sender.connection import Opener
    from clarion.sender.opening import Opening
    from clarion.sender.route import OpeningFailed, Route

    try:
        target = policy.parse(uri)
    except RequestRefused as refused:
        return [Check("connection", uri, False, refused.message)]
    found = []
    clock = SystemClock()
    for one in [Route((source,), route.proxy) for source in route.sources] or [route]:
        try:
            opening = Opening(clock.monotonic_ns)
            connection = await Opener(policy, one, ca_file).open(target, _Nobody(), 0, None, opening)
        except OpeningFailed as failed:
            found.append(Check("connection", uri, False, f"{failed.failure.outcome}: {failed.failure.error}"))
            continue
        found.append(
            Check("connection", uri, True, f"left from {connection.source_address}, reached {connection.peer_address}")
        )
        connection.close()
    return found


class _Nobody:
    """Owns a connection that is closed unused."""

    def exchange_ended(self, *_: object) -> None:
        raise AssertionError("nothing was sent")

    def connection_ended(self, *_: object) -> None:
        pass
