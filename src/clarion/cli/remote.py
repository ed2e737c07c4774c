"""What the commands over the API share: how they connect, what they read from files, and how they show answers."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import wraps
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import click

from clarion.cli.output import inert, inert_json, print_fitting_table
from clarion.core.errors import UsageInvalid

if TYPE_CHECKING:
    from clarion.cli.graphql import GraphQL

Node = Mapping[str, Any]

LIMIT_DEFAULT: Final = 50
TIMES: Final = ("%Y-%m-%d", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S", "%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%dT%H:%M:%S.%fZ")
"""How times are written in options; all are UTC."""
_PAGE_MAX: Final = 100
_FILE_BYTES_MAX: Final = 1024 * 1024
_TIMEOUT_SECONDS: Final = 45
"""Longer than the test of a receiver may take: its timeout, 30 seconds at most, and four more."""

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
yes_option = click.option("--yes", "-y", is_flag=True, help="Do not ask.")
limit_option = click.option(
    "--limit", type=click.IntRange(1, 100_000), default=LIMIT_DEFAULT, show_default=True, help="How many at most."
)


def api_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say which API a command talks to, as whom: `url` and `key_file`."""
    for option in (
        click.option(
            "--key-file",
            type=click.Path(path_type=Path),
            help="File with the API key, - for standard input. Default: CLARION_API_KEY.",
        ),
        click.option("--url", help="Where the API is. Default: CLARION_API_URL, or http:// and CLARION_LISTEN."),
    ):
        command = option(command)
    return command


def over_the_api(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command those options, and the API as its first argument."""

    @api_options
    @wraps(command)
    def called(*arguments: Any, url: str | None, key_file: Path | None, **options: Any) -> None:
        with connected(url, key_file) as api:
            command(api, *arguments, **options)

    return called


@contextmanager
def connected(url: str | None, key_file: Path | None) -> Iterator[GraphQL]:
    """The API that the options and settings name, until the block ends. Raises UsageInvalid when they name none."""
    api = _connect(url, key_file)
    try:
        yield api
    finally:
        api.close()


def _connect(url: str | None, key_file: Path | None) -> GraphQL:
    from clarion.cli.graphql import GraphQL
    from clarion.core.settings import load_settings

    settings = load_settings()
    address = url or settings.api_base_url
    if key_file is not None:
        key = file_text(str(key_file)).strip()
    elif settings.api_key is not None:
        key = settings.api_key.get_secret_value()
    else:
        raise UsageInvalid(
            "no API key is given",
            "set CLARION_API_KEY, or name a file with --key-file; `clarion keys create --organisation default` makes one",
        )
    api = GraphQL(address, key, ca_file=settings.ca_file, timeout_seconds=_TIMEOUT_SECONDS)
    if address.startswith("http://") and not _is_this_host(urlsplit(address).hostname or ""):
        click.echo(
            f"clarion: the key goes to {address} unencrypted; use https:// where others share the network", err=True
        )
    return api


def _is_this_host(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def file_text(name: str) -> str:
    """What is in a file, or comes from standard input for `-`. Raises UsageInvalid if it cannot be read as text."""
    try:
        if name == "-":
            content = sys.stdin.buffer.read(_FILE_BYTES_MAX + 1)
        else:
            with Path(name).open("rb") as file:
                content = file.read(_FILE_BYTES_MAX + 1)
        if len(content) > _FILE_BYTES_MAX:
            raise UsageInvalid(f"{name} is larger than 1 MiB")
        return content.decode()
    except OSError as error:
        raise UsageInvalid(f"{name} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageInvalid(f"{name} is not UTF-8 text") from error


def text_or_file(text: str) -> str:
    """An argument's text; `@FILE` stands for what is in the file, `-` for standard input, `@@` for an @ at the start."""
    if text.startswith("@@"):
        return text[1:]
    if text == "-" or text.startswith("@"):
        return file_text(text.removeprefix("@")).removesuffix("\n").removesuffix("\r")
    return text


def time_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options that say from when on (`since`) and until when."""
    for name, parameter, told in (
        ("--until", "until", "Only before this time (UTC)."),
        ("--from", "since", "Only from this time on (UTC)."),
    ):
        option = click.option(name, parameter, type=click.DateTime(TIMES), help=told)
        command = option(command)
    return command


def period(name: str, since: datetime | None, until: datetime | None) -> dict[str, object]:
    """A filter of a time, from `since` on and before `until`; none if neither is given."""
    bounds = {"gte": time_text(since), "lt": time_text(until)}
    given_bounds = {bound: time for bound, time in bounds.items() if time is not None}
    return {name: given_bounds} if given_bounds else {}


def time_text(time: datetime | None) -> str | None:
    """A time that an option named, as the API reads it."""
    return None if time is None else time.replace(tzinfo=UTC).isoformat()


class _TakenBack:
    """Stands for a value that an option takes back."""


NONE: Final = _TakenBack()


class IntegerOrNone(click.ParamType[Any]):
    """An integer, or the word `none`, which takes a value back."""

    name = "integer|none"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if str(value).lower() == "none":
            return NONE
        return click.INT.convert(value, param, ctx)


def given(**options: object) -> dict[str, object]:
    """The options that were given, by the names of GraphQL. NONE and an empty text take a value back: null."""
    found: dict[str, object] = {}
    for name, value in options.items():
        if value is None or value == ():
            continue
        head, *rest = name.split("_")
        found[head + "".join(map(str.capitalize, rest))] = None if value is NONE or value == "" else value
    return found


def names_of_resources(
    _context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]
) -> tuple[str, ...]:
    """Resources as the API writes them; for options that take several."""
    return tuple(value.upper() for value in values)


def readable(values: Mapping[str, object], *, all_readable: bool) -> dict[str, object]:
    """`values` of an update, in which --all-readable takes back what --readable may have said. Raises UsageInvalid for both."""
    if not all_readable:
        return dict(values)
    if "readableResources" in values:
        raise UsageInvalid("--readable and --all-readable exclude each other", "give one of the two")
    return {**values, "readableResources": None}


def conditions(**options: object) -> dict[str, object]:
    """Filters from options by the names of GraphQL: one value is compared, several are alternatives."""
    return {
        name: {"in": list(value)} if isinstance(value, tuple) else {"eq": value}
        for name, value in given(**{key: value for key, value in options.items() if value != ""}).items()
    }


def first_nodes(api: GraphQL, document: str, connection: str, limit: int, **variables: object) -> list[dict[str, Any]]:
    """Up to `limit` nodes. `document` takes `$first` and `$after`."""
    found: list[dict[str, Any]] = []
    for page in api.pages(document, connection, first=min(limit, _PAGE_MAX), **variables):
        found += page
        if len(found) >= limit:
            break
    return found[:limit]


def list_document(connection: str, filters_type: str, fields: str, sort: str = "") -> str:
    """The query of a list: `$first`, `$after` and `$filters` are its variables."""
    sorted_by = f", sort: [{sort}]" if sort else ""
    return (
        f"query List($first: Int, $after: String, $filters: {filters_type}) {{\n"
        f"  {connection}(first: $first, after: $after, filters: $filters{sorted_by}) {{\n"
        f"    edges {{ node {{ {fields} }} }} pageInfo {{ hasNextPage endCursor }}\n  }}\n}}"
    )


def changed(
    api: GraphQL, etag_document: str, document: str, key: str, values: Mapping[str, object], *, as_json: bool
) -> Node | None:
    """The object after a change, with what the API warns of said; None if the whole answer was printed as JSON.

    `etag_document` asks for one object by `$id`, `document` is a mutation of an `$input` whose payload has that object.
    """
    ((name, found),) = api.run(etag_document, id=key).items()
    (payload,) = api.run(document, input={"id": key, "etag": found["_etag"], **values}).values()
    if as_json:
        print_answer(payload)
        return None
    print_warnings(payload)
    after: Node = payload[name]
    return after


def delete(
    api: GraphQL,
    document: str,
    found: Node,
    question: str,
    what: str,
    *,
    yes: bool,
    as_json: bool,
    done: str = "deleted",
) -> None:
    """Takes an object away, after the question. `found` has its `id` and `_etag`; `document` is a mutation of both.

    Raises UsageInvalid and Abort as `confirm`, ApiRefused.
    """
    confirm(question, yes=yes)
    (gone,) = api.run(document, id=found["id"], etag=found["_etag"]).values()
    if as_json:
        print_answer(gone)
    else:
        click.echo(f"{what} {gone['id']} {done}")


def confirm(question: str, *, yes: bool) -> None:
    """Asks before something that cannot be undone. Raises UsageInvalid where nobody can be asked, Abort for a no."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageInvalid(f"{inert(question)} Nobody can be asked here", "--yes says that it is meant")
    click.confirm(inert(question), abort=True, err=True)


def print_answer(value: object) -> None:
    """One indented JSON document with all digits of its numbers, inert."""
    import msgspec

    click.echo(inert_json(msgspec.json.format(_encoded(value), indent=2).decode()))


def print_answer_line(value: object) -> None:
    """The same on one line, written at once."""
    click.echo(line_of(value))
    sys.stdout.flush()


def line_of(value: object) -> str:
    """A JSON document on one line, with all digits of its numbers, inert."""
    return inert_json(_encoded(value).decode())


def _encoded(value: object) -> bytes:
    import msgspec

    return msgspec.json.Encoder(decimal_format="number").encode(value)


def print_nodes(
    nodes: Sequence[Node], columns: Mapping[str, Callable[[Node], object]], *, as_json: bool, none: str
) -> None:
    """A list: JSON, or a table with these columns; `none` is said where there is nothing."""
    if as_json:
        print_answer(nodes)
    elif nodes:
        print_fitting_table(list(columns), [[cell(node) for cell in columns.values()] for node in nodes])
    else:
        click.echo(none, err=True)


def print_details(node: Node, *, as_json: bool, left_out: Sequence[str] = ()) -> None:
    """One object: JSON, or a line for each field that has a value, named as in the API."""
    if as_json:
        print_answer(node)
        return
    shown = {name: value for name, value in node.items() if name not in left_out and value not in (None, [], "")}
    width = max(map(len, shown), default=0)
    for name, value in shown.items():
        click.echo(f"{name.ljust(width)}  {_shown(value)}")


def reads(node: Node) -> object:
    """Which resources a client may read, or a receiver may be sent, for people."""
    names = node["readableResources"]
    return "all" if names is None else names or "none"


def inactive(subscription: Node) -> str:
    """That a subscription makes no events, and why; an empty text for one that does."""
    reason = subscription["inactiveReason"]
    return f"inactive ({reason})" if reason else ""


def print_warnings(payload: Node) -> None:
    """What the API said beside the answer, on standard error."""
    for warning in payload.get("warnings") or ():
        click.echo(inert(f"warning: {warning['message']} ({warning['code']}, {warning['field']})"), err=True)


def _shown(value: object) -> str:
    if isinstance(value, str):
        return inert(value)
    if isinstance(value, Mapping) and "name" in value:
        identity = f" ({value['id']})" if "id" in value else ""
        return inert(f"{value['name']}{identity}")
    if isinstance(value, list) and not any(isinstance(one, Mapping | list) for one in value):
        return inert(", ".join(map(str, value)))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return line_of(value)
