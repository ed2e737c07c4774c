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
@click.option("--published", is_flag=True, help="There is no table: the application publishes its changes.")
@click.option("--publisher", "publishers", multiple=True, help="Database role that may publish; repeat for several.")
@click.option("--any-organisation", is_flag=True, help="Each publish names the organisation, instead of one for all.")
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
    publishers: tuple[str, ...],
    *,
    published: bool,
    any_organisation: bool,
    as_json: bool,
) -> None:
    """Capture the changes of a table, or those published of a resource, from now on; without either, list what is attached.

    Run it as the table's owner. A server that runs beside it offers the resource within a second.
    """
    from clarion.app import open_database
    from clarion.capture.attach import Attachment
    from clarion.capture.attach import attach as attach_tables
    from clarion.capture.published import Published, attach_published
    from clarion.capture.publishers import publishers_of
    from clarion.cli.output import print_table
    from clarion.database.check import connect

    if published and (table or keys or excluded or organisation_column):
        raise click.UsageError("--published has no table: no --table, --key, --exclude or --organisation-column")
    if (publishers or any_organisation) and not published:
        raise click.UsageError("--publisher and --any-organisation go with --published")
    if (table is not None or published) != (resource is not None):
        raise click.UsageError("--resource goes with --table or --published")
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
        elif resource is not None:
            attach_published(
                connection,
                Published(resource, publishers, singular, description, None if any_organisation else organisation),
            )
            connection.commit()
            who = ", ".join(publishers) or "nobody yet: name a role by --publisher"
            click.echo(f"{resource} is attached; it may be published by {who}", err=True)
            if not as_json:
                return
        rows = connection.execute(
            "SELECT name, schema_name || '.' || table_name, array_to_string(key_columns, ', '), description "
            "FROM clarion.resources ORDER BY name"
        ).fetchall()
        publishing = {name: publishers_of(connection, name) for name, table, *_ in rows if table is None}
    if as_json:
        listed = [dict(zip(("resource", "table", "key", "description"), row, strict=True)) for row in rows]
        click.echo(json.dumps([row | {"publishers": publishing.get(row["resource"])} for row in listed]))
    else:
        shown = [
            (name, table or f"published by {', '.join(publishing[name]) or 'nobody'}", *others)
            for name, table, *others in rows
        ]
        print_table(("RESOURCE", "TABLE", "KEY", "DESCRIPTION"), shown)


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
