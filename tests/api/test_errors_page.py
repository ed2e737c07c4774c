"""Every code has a page, every page a code, and what a page shows is what the API answers."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from clarion.access.principal import Principal, Role
from clarion.api.idempotency import _lock_number
from clarion.capture.publish import publish
from clarion.capture.published import Published, attach_published
from clarion.core.errors import BeforeGraphQL, Code
from clarion.core.ids import ClientId, OrganisationId
from harness.api import Caller

ROOT = Path(__file__).parents[2]
INDEX = ROOT / "docs/reference/errors.md"
PAGES = {path.stem: path.read_text() for path in sorted((ROOT / "docs/reference/errors").glob("*.md"))}
SOURCES = {path: path.read_text() for path in (ROOT / "src/clarion").rglob("*.py")}
CODES = {*Code, *BeforeGraphQL}
WARNINGS = {code for text in SOURCES.values() for code in re.findall(r'(?:Notice|UriWarning)\(\s*"([A-Z_]+)"', text)}

UNSTABLE = re.compile(r'("correlationId": )"[0-9a-f]{16}"')


def test_every_code_and_every_warning_has_a_page_and_no_other() -> None:
    assert {"CA_CERTIFICATE_EXPIRES", "CLIENT_CERTIFICATE_EXPIRES"} <= WARNINGS
    assert set(PAGES) == CODES | WARNINGS


def test_the_index_links_every_page_once() -> None:
    linked = re.findall(r"\[`([A-Z_]+)`\]\(errors/\1\.md\)", INDEX.read_text())
    assert sorted(linked) == sorted(PAGES)


def test_no_code_is_written_as_a_bare_text_in_the_api() -> None:
    bare = {
        f"{path.name}: {match}"
        for path, text in SOURCES.items()
        if path.parent.name == "api"
        for match in re.findall(r'Refused\(\s*\d+,\s*("[A-Z_]+")', text)
    }
    assert bare == set()


@pytest.mark.parametrize("code", sorted(CODES))
def test_a_page_says_when_with_which_status_and_what_to_do(code: str) -> None:
    page = PAGES[code]
    assert page.startswith(f"# `{code}`: ")
    status, _, _ = page.partition("\n\n## When\n\n")[0].rpartition("**HTTP status:** ")[2].partition(" ")
    assert re.findall(r"^## (.+)$", page, re.MULTILINE) == ["When", "Example", "What to do"]
    assert re.findall(r"^HTTP/1\.1 (\d+) ", page, re.MULTILINE) == [status.rstrip(",;")]


@dataclass(frozen=True, slots=True)
class Example:
    """A request and the answer that the page shows for it."""

    request_line: str
    headers: dict[str, str]
    body: str
    status: int
    answer_headers: dict[str, str]
    answer: Any

    @classmethod
    def of(cls, page: str) -> Example:
        request, answer = re.findall(r"```http\n(.*?)\n```", page, re.DOTALL)
        line, headers, body = parts(request)
        status_line, answer_headers, answer_body = parts(answer)
        return cls(line, headers, body, int(status_line.split()[1]), answer_headers, json.loads(answer_body))


def parts(message: str) -> tuple[str, dict[str, str], str]:
    head, _, body = message.partition("\n\n")
    line, *headers = head.split("\n")
    return line, dict(header.split(": ", 1) for header in headers), body


def send(example: Example, caller: Caller) -> tuple[int, dict[str, str], str]:
    """The answer to the very bytes that the page shows, with a real key in place of `<key of …>`."""
    headers = {"host": "127.0.0.1", "content-length": str(len(example.body.encode())), "connection": "close"}
    for name, value in example.headers.items():
        role = re.search(r"<key of an? ([A-Z]+)>", value)
        headers[name] = value if role is None else f"Bearer {caller.of('default', Role(role[1])).key}"
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    with socket.create_connection(("127.0.0.1", caller.port), 20) as connection:
        connection.sendall(f"{example.request_line}\r\n{head}\r\n{example.body}".encode())
        content = b""
        # Not until the end: an answer to half a body comes before its connection ends.
        while chunk := connection.recv(65_536):
            content += chunk
            answer_head, separator, answer_body = content.partition(b"\r\n\r\n")
            length = re.search(rb"content-length: (\d+)", answer_head, re.IGNORECASE)
            if separator and length is not None and len(answer_body) >= int(length[1]):
                break
    line, *shown = answer_head.decode().split("\r\n")
    return int(line.split()[1]), {k.lower(): v for k, v in (one.split(": ", 1) for one in shown)}, answer_body.decode()


@contextmanager
def nothing_special(_example: Example, _caller: Caller) -> Iterator[None]:
    yield


@contextmanager
def ten_tests_were_made(_example: Example, caller: Caller) -> Iterator[None]:
    caller.rows(
        "INSERT INTO clarion.tests (organisation_id, receiver_id, requested_by_id) "
        "SELECT organisation_id, id, 1 FROM clarion.receivers, generate_series(1, 10)"
    )
    yield


@contextmanager
def the_key_came_with_another_body(example: Example, caller: Caller) -> Iterator[None]:
    assert send(replace(example, body=example.body.replace("Invoices", "Orders")), caller)[0] == 200
    yield


@contextmanager
def another_request_with_the_key_at_work(example: Example, caller: Caller) -> Iterator[None]:
    caller.of("default", Role.ADMINISTRATOR)
    ((client_id, organisation_id),) = caller.rows(
        "SELECT id, organisation_id FROM clarion.clients WHERE name = 'administrator'"
    )
    principal = Principal(ClientId(client_id), "", "MACHINE", Role.ADMINISTRATOR, OrganisationId(organisation_id))
    with psycopg.connect(caller.database.url) as connection:
        number = _lock_number(principal, example.headers["idempotency-key"])
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (number,))
        yield


@contextmanager
def an_application_publishes_the_object(_example: Example, caller: Caller) -> Iterator[None]:
    with psycopg.connect(caller.database.url, autocommit=True) as connection:
        attach_published(connection, Published("SHIPMENTS", organisation=None))
    with psycopg.connect(caller.database.url) as connection:
        publish(connection, "SHIPMENTS", "CREATE", 1, {}, organisation="default")
        yield
        connection.rollback()


@contextmanager
def without_the_right_to_read_receivers(_example: Example, caller: Caller) -> Iterator[None]:
    ((role,),) = caller.rows("SELECT quote_ident(api_role) FROM clarion.deployment")
    caller.rows(f"REVOKE SELECT ON clarion.receivers FROM {role}")
    try:
        yield
    finally:
        caller.rows(f"GRANT SELECT ON clarion.receivers TO {role}")


SITUATIONS: dict[str, Callable[[Example, Caller], AbstractContextManager[None]]] = {
    Code.RATE_LIMITED: ten_tests_were_made,
    Code.INTERNAL: without_the_right_to_read_receivers,
    BeforeGraphQL.IDEMPOTENCY_KEY_REUSED: the_key_came_with_another_body,
    BeforeGraphQL.IDEMPOTENCY_KEY_IN_USE: another_request_with_the_key_at_work,
    BeforeGraphQL.BUSY: an_application_publishes_the_object,
}
"""What a page's example is sent in, as the page says in words."""


def normal(answer: str) -> Any:
    return json.loads(UNSTABLE.sub(r'\1"0000000000000000"', json.dumps(json.loads(answer))))


@pytest.mark.parametrize("code", sorted(CODES))
def test_what_a_page_shows_is_what_the_api_answers(
    code: str, administrator: Caller, make_receiver: Callable[..., Any]
) -> None:
    make_receiver()
    example = Example.of(PAGES[code])
    with SITUATIONS.get(code, nothing_special)(example, administrator):
        status, headers, body = send(example, administrator)
    assert normal(body) == normal(json.dumps(example.answer)), body
    assert status == example.status
    assert {name: headers.get(name) for name in example.answer_headers} == example.answer_headers
    assert {error["extensions"]["code"] for error in json.loads(body)["errors"]} == {code}
    inside = re.search(r"clarion\.|SELECT|asyncpg|sqlalchemy|psycopg|Traceback|\.py\b|/src/|[a-z]Error\b", body)
    assert inside is None, inside
