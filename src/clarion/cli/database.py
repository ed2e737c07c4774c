"""`clarion migrate`: the database's schema, roles and our own resources."""

from __future__ import annotations

import click

from clarion.core.settings import Settings, load_settings


@click.command
def migrate() -> None:
    """Bring the database to this version's schema.

    The database is that of CLARION_DATABASE_URL; without it, the embedded server's, which is started for this. Run it
    again and again without harm.
    """
    from clarion.app import prepare_database
    from clarion.capture.guard import ensure as ensure_guard
    from clarion.database.check import connect
    from clarion.database.embedded import opened

    settings = load_settings()
    with opened(database_url(settings), settings.data_dir) as address:
        prepare_database(address, progress=lambda line: click.echo(line, err=True))
        if settings.database_url is None:
            with connect(address) as connection:
                ensure_guard(connection)
        click.echo(f"{address.display()}: migrated")


def database_url(settings: Settings) -> str | None:
    """CLARION_DATABASE_URL in clear; None for the embedded server."""
    return settings.database_url.get_secret_value() if settings.database_url is not None else None
