"""`clarion serve`: API, router and delivery, each in the process it belongs to."""

from __future__ import annotations

import asyncio
import sys

import click

from clarion.core.settings import load_settings

ROLES = ("api", "router", "delivery")
_INTERRUPTED = 130


@click.command
@click.option(
    "--role",
    "roles",
    type=click.Choice(ROLES),
    multiple=True,
    help="Run this role only; repeat for several. Default: all three.",
)
@click.option(
    "--workers",
    "workers_count",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="How many processes deliver; they and those of other hosts share the receivers.",
)
@click.option(
    "--adopt",
    "adopting",
    is_flag=True,
    help="The database is a restore or a clone, and this is where it lives now: start a new incarnation and deliver.",
)
def serve(roles: tuple[str, ...], workers_count: int, *, adopting: bool) -> int:
    """Run API, router and delivery.

    Prints `clarion ready on http://HOST:PORT` when requests are answered and changes are delivered. Logs go to stderr.
    SIGTERM or Ctrl-C ends it: what is under way is finished first.
    """
    from clarion.app import bootstrap, egress_route, listen, load_secret_key, make_sealer, open_server, settle_identity
    from clarion.core.environments import load_environments
    from clarion.core.system import SystemClock, SystemRandom
    from clarion.database.check import connect
    from clarion.registry.signing_keys import ensure_signing_key
    from clarion.supervisor import Part, Supervisor
    from clarion.telemetry.log import configure

    settings = load_settings()
    configure(settings.log_level, "serve")
    wanted = frozenset(roles or ROLES)
    # Refused here, where it can be read, rather than in a child. Only who delivers needs the addresses.
    own = load_environments(settings.environments_file, settings.environment).own
    if "delivery" in wanted:
        egress_route(settings, own)
    listening = listen(settings) if "api" in wanted else None
    with open_server(settings, progress=lambda line: click.echo(line, err=True)) as (address, embedded):
        with connect(address) as connection:
            sealer = make_sealer(settings, load_secret_key(settings, connection))
            ensure_signing_key(connection, sealer, SystemRandom())
            held = settle_identity(connection, adopting=adopting)
        if held is not None:
            click.echo(
                f"clarion: delivery is held: {held}\n"
                "         `clarion serve --adopt` makes this the deployment that delivers; otherwise nothing is sent",
                err=True,
            )
            wanted -= {"delivery"}
        bootstrap(settings, address)
        parts = [Part(frozenset({"api"}), listening)] if listening is not None else []
        if wanted - {"api"}:
            parts.append(Part(wanted - {"api"}))
        if "delivery" in wanted:
            # The first one delivers beside the router; the others do nothing else.
            further = range(2, workers_count + 1)
            parts.extend(Part(frozenset({"delivery"}), number=number) for number in further)

        def ready() -> None:
            if listening is None:
                click.echo("clarion ready")
            else:
                host, port = listening.getsockname()[:2]
                click.echo(f"clarion ready on http://{f'[{host}]' if ':' in host else host}:{port}")
            sys.stdout.flush()

        async def supervise() -> bool:
            revive = embedded.revive if embedded is not None else None
            return await Supervisor(parts, address.url, SystemClock(), ready, revive).run()

        return _INTERRUPTED if asyncio.run(supervise()) else 0
