"""`clarion history`: who did what, from where, and what was refused."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final

import click

from clarion.cli import remote
from clarion.core.errors import EnvironmentRefused

if TYPE_CHECKING:
    from clarion.cli.graphql import GraphQL

_FIELDS: Final = """
  id at client { id } clientName apiKeyId fromAddress requestId action objectType objectId before after refusal message
"""
_LIST: Final = remote.list_document("history", "HistoryInputFilters", _FIELDS, "AT_DESC")
_EXPORT: Final = remote.list_document("history", "HistoryInputFilters", _FIELDS, "AT_ASC")
_COLUMNS: Final = (
    "id",
    "at",
    "clientId",
    "clientName",
    "apiKeyId",
    "fromAddress",
    "requestId",
    "action",
    "objectType",
    "objectId",
    "before",
    "after",
    "refusal",
    "message",
)


def _filters(command: Any) -> Any:
    for option in (
        remote.time_options,
        click.option("--object", "object_id", metavar="ID", help="Only what concerns this object of --type."),
        click.option("--type", "object_type", help="Only what concerns such objects, as WebhookReceiver."),
        click.option("--action", help="Only this, as UPDATE."),
        click.option("--refused/--done", default=None, help="Only what was refused, or only what was done."),
        click.option("--client", "client_id", metavar="ID", help="Only what this client did."),
    ):
        command = option(command)
    return command


@click.group
def history() -> None:
    """List and export the history: who did what, what it was before, and what was refused."""


@history.command("list")
@_filters
@remote.limit_option
@remote.json_option
@remote.over_the_api
def list_(api: GraphQL, limit: int, *, as_json: bool, **about: Any) -> None:
    """List the history, newest first."""
    filters = _wanted(**about)
    found = remote.first_nodes(api, _LIST, "history", limit, filters=filters)
    columns = {
        "ID": lambda node: node["id"],
        "AT": lambda node: node["at"],
        "WHO": lambda node: node["clientName"],
        "FROM": lambda node: node["fromAddress"],
        "ACTION": lambda node: node["action"],
        "OBJECT": lambda node: " ".join(filter(None, (node["objectType"], node["objectId"]))),
        "REFUSED": lambda node: node["refusal"],
    }
    remote.print_nodes(found, columns, as_json=as_json, none="nothing of the kind is on record")


@history.command
@_filters
@click.option("--format", "form", type=click.Choice(("ndjson", "csv")), default="ndjson", show_default=True)
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), help="A file; default: standard output.")
@remote.over_the_api
def export(api: GraphQL, form: str, output: Path | None, **about: Any) -> None:
    """Write all of the history that the options leave, oldest first, page by page: an entry on each line.

    In CSV, texts that a spreadsheet would run as a formula begin with an apostrophe. How far it is stands on standard
    error. A file that is there already is replaced when all is written.
    """
    from clarion.cli.csv_text import csv_line

    filters = _wanted(**about)
    count = 0
    with _open(output) as file:
        if form == "csv":
            file.write(csv_line(_COLUMNS))
        for page in api.pages(_EXPORT, "history", first=100, filters=filters):
            for entry in page:
                file.write(csv_line(_cells(entry)) if form == "csv" else remote.line_of(entry) + "\n")
            count += len(page)
            if page and sys.stderr.isatty():
                click.echo(f"\r{count} entries, up to {page[-1]['at']}", err=True, nl=False)
        file.flush()
    ended = "\n" if sys.stderr.isatty() and count else ""
    click.echo(f"{ended}{count} entries exported", err=True)


def _wanted(*, since: Any, until: Any, refused: bool | None, **about: Any) -> dict[str, object]:
    """The filters that the options stand for."""
    return remote.conditions(**about) | remote.period("at", since, until) | remote.given(refused=refused)


def _cells(entry: remote.Node) -> list[object]:
    flat = {**entry, "clientId": entry["client"] and entry["client"]["id"]}
    return [remote.line_of(value) if isinstance(value, dict | list) else value for value in map(flat.get, _COLUMNS)]


@contextmanager
def _open(output: Path | None) -> Iterator[IO[str]]:
    """Standard output, or a file (mode 0600) that is put in its place when all is written."""
    if output is None:
        sys.stdout.reconfigure(encoding="utf-8", newline="")  # type: ignore[union-attr]  # typed as TextIO, which a process has more than
        yield sys.stdout
        return
    unfinished = output.with_name(f"{output.name}.unfinished")
    try:
        unfinished.unlink(missing_ok=True)
        unfinished.touch(mode=0o600, exist_ok=False)
        with unfinished.open("w", encoding="utf-8", newline="") as file:
            yield file
        unfinished.replace(output)
    except OSError as error:
        raise EnvironmentRefused(f"{output} cannot be written: {error.strerror}") from error
    finally:
        unfinished.unlink(missing_ok=True)
