"""`clarion attach` and `clarion detach`: which tables' changes are captured."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from clarion.core.settings import load_settings

if TYPE_CHECKING:
    import psycopg

    from clarion.capture.attach import Attachment
    from clarion.capture.published import Published

_RESOURCE_ALONE = "--resource goes with --table or --published"


@click.command
@click.option(
    "--file",
    "file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="TOML file with several tables, attached together or not at all.",
)
@click.option("--table", help="The table, as schema.table (schema public if it is not named).")
@click.option("--resource", help="What its changes are called: plural capitals, for example PURCHASE_ORDERS.")
@click.option("--key", "keys", multiple=True, help="Key column; repeat for several. Default: the primary key.")
@click.option("--organisation", help="Whose rows these are. Default: default.")
@click.option("--organisation-column", help="Column with the organisation's name, instead of one for all rows.")
@click.option("--exclude", "excluded", multiple=True, help="Column that never leaves the database; repeat for several.")
@click.option("--label", help="Column that names the object for people.")
@click.option(
    "--truncate",
    type=click.Choice(["refuse", "delete"]),
    help="What TRUNCATE does: it is refused (default), or captured as the DELETE of each row.",
)
@click.option("--description", help="One sentence for those who subscribe.")
@click.option("--singular", help="Another spelling that subscriptions may use, for example PURCHASE_ORDER.")
@click.option("--published", is_flag=True, help="There is no table: the application publishes its changes.")
@click.option("--publisher", "publishers", multiple=True, help="Database role that may publish; repeat for several.")
@click.option("--any-organisation", is_flag=True, help="Each publish names the organisation, instead of one for all.")
@click.option("--plan", is_flag=True, help="Print the SQL that would run, for psql, and change nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the list of what is attached as JSON.")
def attach(*, file: Path | None, plan: bool, as_json: bool, **options: Any) -> None:
    """Capture the changes of a table from now on, of those in a file, or those published of a resource; without any, list
    what is attached.

    Run it as the tables' owner. A server that runs beside it offers the resources within a second.
    """
    from clarion.app import open_database
    from clarion.capture.attach import attach as attach_tables
    from clarion.capture.attach import attach_statements
    from clarion.capture.published import attach_published
    from clarion.database.check import connect

    published = _published(file, options)
    attachments = [] if published else _attachments(file, options)
    if plan and published:
        raise click.UsageError("--plan is for tables: there is none")
    if plan and not attachments:
        raise click.UsageError("--plan needs --table and --resource, or --file")
    with open_database(load_settings()) as address, connect(address) as connection:
        if plan:
            _print_statements(attach_statements(connection, attachments))
            return
        if attachments:
            attach_tables(connection, attachments)
            connection.commit()
            for attachment in attachments:
                click.echo(f"{attachment.qualified} is attached as {attachment.resource}", err=True)
            if not as_json:
                return
        if published:
            attach_published(connection, published)
            connection.commit()
            who = ", ".join(published.publishers) or "nobody yet: name a role by --publisher"
            click.echo(f"{published.resource} is attached; it may be published by {who}", err=True)
            if not as_json:
                return
        _list_attached(connection, as_json=as_json)


def _published(file: Path | None, options: dict[str, Any]) -> Published | None:
    """The resource without a table that the command line asks for, or None; its own options are taken out."""
    from clarion.capture.published import Published

    is_published, publishers, any_organisation = (
        options.pop(name) for name in ("published", "publishers", "any_organisation")
    )
    if not is_published:
        if publishers or any_organisation:
            raise click.UsageError("--publisher and --any-organisation go with --published")
        return None
    if file is not None or any(
        options[name] for name in ("table", "keys", "excluded", "organisation_column", "label", "truncate")
    ):
        raise click.UsageError(
            "--published has no table: no --file, --table, --key, --exclude, --organisation-column, --label or --truncate"
        )
    if options["resource"] is None:
        raise click.UsageError(_RESOURCE_ALONE)
    if any_organisation and options["organisation"] is not None:
        raise click.UsageError("--organisation and --any-organisation exclude each other")
    return Published(
        options["resource"],
        publishers,
        options["singular"],
        options["description"] or "",
        None if any_organisation else options["organisation"] or "default",
    )


def _attachments(file: Path | None, options: dict[str, Any]) -> list[Attachment]:
    """What the command line asks for: the file's tables, the one that the options describe, or none."""
    from clarion.capture.resources_file import attachment_of, read_resources

    given = [name for name, value in options.items() if value]
    if file is not None:
        if given:
            raise click.UsageError(f"--file stands alone: {', '.join(sorted(given))} belongs into the file")
        return read_resources(file)
    if (options["table"] is None) != (options["resource"] is None):
        raise click.UsageError(_RESOURCE_ALONE)
    if options["table"] is None:
        if given:
            raise click.UsageError("name the table with --table and --resource")
        return []
    if options["organisation"] is not None and options["organisation_column"] is not None:
        raise click.UsageError("--organisation and --organisation-column exclude each other")
    return [
        attachment_of(
            options["table"],
            options["resource"],
            keys=options["keys"],
            excluded=options["excluded"],
            organisation="default" if options["organisation"] is None else options["organisation"],
            organisation_column=options["organisation_column"],
            description=options["description"] or "",
            singular=options["singular"],
            label=options["label"],
            truncate=options["truncate"] or "refuse",
        )
    ]


def _print_statements(statements: list[str]) -> None:
    for statement in statements:
        click.echo(f"{statement};")


def _list_attached(connection: psycopg.Connection[Any], *, as_json: bool) -> None:
    from clarion.capture.publishers import publishers_of
    from clarion.cli.output import print_json, print_table

    rows = connection.execute(
        "SELECT name, schema_name || '.' || table_name, key_columns::text[], label_column::text, excluded_columns::text[], "
        "lower(on_truncate), description FROM clarion.resources ORDER BY name"
    ).fetchall()
    names = ("resource", "table", "key", "label", "excluded", "truncate", "description")
    publishing = {row[0]: publishers_of(connection, row[0]) for row in rows if row[1] is None}
    if as_json:
        listed = [dict(zip(names, row, strict=True)) for row in rows]
        print_json([row | {"publishers": publishing.get(row["resource"])} for row in listed])
        return
    print_table(
        ("RESOURCE", "TABLE", "KEY", "DESCRIPTION"),
        [
            (
                resource,
                table or f"published by {', '.join(publishing[resource]) or 'nobody'}",
                ", ".join(key),
                description,
            )
            for resource, table, key, _, _, _, description in rows
        ],
    )


@click.command
@click.argument("resource")
@click.option("--plan", is_flag=True, help="Print the SQL that would run, for psql, and change nothing.")
def detach(resource: str, *, plan: bool) -> None:
    """Stop capturing the changes of RESOURCE. What was captured before is still delivered."""
    from clarion.app import open_database
    from clarion.capture.attach import detach as detach_resource
    from clarion.capture.attach import detach_statements
    from clarion.database.check import connect

    with open_database(load_settings()) as address, connect(address) as connection:
        if plan:
            _print_statements(detach_statements(connection, resource))
            return
        detach_resource(connection, resource)
    click.echo(f"{resource} is detached", err=True)
