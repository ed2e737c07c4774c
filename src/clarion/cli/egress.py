"""`clarion egress`: the addresses that requests come from, listed and proved."""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass

import click

from clarion.cli.output import print_json, print_table, styled
from clarion.core.errors import CheckFailed, ClarionError, UsageInvalid
from clarion.core.settings import Settings, load_settings


@click.group
def egress() -> None:
    """Check and list the addresses that requests come from."""


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
    address, proxy, TLS. The policy is that of the settings; rules made through the API are not looked at.
    """
    settings = load_settings()
    checks = _environment(settings)
    checks += asyncio.run(_connections(settings, uri)) if uri is not None and all(one.passed for one in checks) else []
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


def _environment(settings: Settings) -> list[Check]:
    from clarion.app import egress_route
    from clarion.core.environments import load_environments

    own = load_environments(settings.environments_file, settings.environment).own
    found = [
        Check("environment", own.name, True, f"{len(own.addresses)} addresses are published")
        if own is not None
        else Check("environment", "none", True, "no addresses are published; receivers cannot rely on any")
    ]
    try:
        route = egress_route(settings)
    except UsageInvalid:
        raise
    except ClarionError as error:
        return [*found, Check("source address", "", False, f"{error.message}; {error.hint}")]
    if settings.source_addresses_translated:
        found.append(Check("translation", "NAT", True, "declared: the published addresses are put on behind this host"))
    found += [Check("source address", str(source), True, "is on this host") for source in route.sources]
    if not route.sources:
        found.append(Check("source address", "any", True, "the system chooses: none is configured"))
    if route.proxy is not None:
        found.append(
            Check("proxy", f"{route.proxy.host}:{route.proxy.port}", True, "requests go through it by CONNECT")
        )
    return found


async def _connections(settings: Settings, uri: str) -> list[Check]:
    """One connection from each source address, opened as for a request and closed."""
    from clarion.app import egress_route
    from clarion.core.errors import RequestRefused
    from clarion.sender.connection import Opener
    from clarion.sender.policy import Policy
    from clarion.sender.route import OpeningFailed, Route

    route = egress_route(settings)
    policy = Policy(settings.allowed_networks)
    try:
        target = policy.parse(uri)
    except RequestRefused as refused:
        return [Check("connection", uri, False, refused.message)]
    found = []
    for one in [Route((source,), route.proxy) for source in route.sources] or [route]:
        try:
            connection = await Opener(policy, one, settings.ca_file).open(target, _Nobody(), 0)
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
