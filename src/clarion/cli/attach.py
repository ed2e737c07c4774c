"""`clarion attach` and `clarion detach`: which tables' changes are captured."""

from __future__ import annotations

import json

import click

from clarion.core.settings import load_settings


@click.command
@click.option("--table", help="The table, as schema.table (schema public if it is not named).")
@click.option("--resource", help="What its changes are called: plural capitals, for example PURCHASE_ORDERS.")
@click.option("--key", "keys", multiple=True, help="Key column; repeat for several. Default: the primary key.")
@click.option("--organisation", default="default", show_default=True, help="Whose rows these are.")
@click.option("--organisation-column", help="Column with the organisation's name, instead of one for all rows.")
@click.option("--exclude", "excluded", multiple=True, help="Column that never leaves the database; repeat for several.")
@click.option("--description", default="", help="One sentence for those who subscribe.")
@click.option("--singular", help="Another spelling that subscriptions may use, for example PURCHASE_ORDER.")
@click.option("--json", "as_json", is_flag=True, help="Print the list of what is attached as JSON.")
def attach(
    table: str | None,
    resource: str | None,
    keys: tuple[str, ...],
    organisation: str,
    organisation_column: str | None,
    excluded: tuple[str, ...],
    description: str,
    singular: str | None,
    *,
    as_json: bool,
) -> None:
    """Capture the changes of a table from now on; without --table, list what is attached.

    Run it as the table's owner. A server that runs beside it offers the resource within a second.
    """
    from clarion.app import open_database
    from clarion.capture.attach import Attachment
    from clarion.capture.attach import attach as attach_tables
    from clarion.cli.output import print_table
    from clarion.database.check import connect

    if (table is None) != (resource is None):
        raise click.UsageError("--table and --resource go together")
    with open_database(load_settings()) as address, connect(address) as connection:
        if table is not None and resource is not None:
            schema, _, name = table.rpartition(".")
            attach_tables(
                connection,
                [
                    Attachment(
                        resource=resource,
                        table=name,
                        schema=schema or "public",
                        singular=singular,
                        description=description,
                        key_columns=keys,
                        excluded_columns=excluded,
                        organisation=None if organisation_column else organisation,
                        organisation_column=organisation_column,
                    )
                ],
            )
            connection.commit()
            click.echo(f"{schema or 'public'}.{name} is attached as {resource}", err=True)
            if not as_json:
                return
        rows = connection.execute(
            "SELECT name, schema_name || '.' || table_name, array_to_string(key_columns, ', '), description "
            "FROM clarion.resources ORDER BY name"
        ).fetchall()
    if as_json:
        click.echo(
            json.dumps([dict(zip(("resource", "table", "key", "description"), row, strict=True)) for row in rows])
        )
    else:
        print_table(("RESOURCE", "TABLE", "KEY", "DESCRIPTION"), rows)


@click.command
@click.argument("resource")
def detach(resource: str) -> None:
    """Stop capturing the changes of RESOURCE. What was captured before is still delivered."""
    from clarion.app import open_database
    from clarion.capture.attach import detach as detach_resource
    from clarion.database.check import connect

    with open_database(load_settings()) as address, connect(address) as connection:
        detach_resource(connection, resource)
    click.echo(f"{resource} is detached", err=True)
