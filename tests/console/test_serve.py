"""The explorer's files over HTTP: what each answer's headers promise to a browser, and that nothing else can be had."""

from __future__ import annotations

import gzip
import http.client
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from clarion.console import serve
from clarion.core.system import SystemRandom
from clarion.database.address import DatabaseAddress
from clarion.sender.seal import Sealer
from harness.api import Caller, served

STATIC = Path(serve.__file__).parent / "static"
ASSETS = "/graphql/assets/"


@dataclass(frozen=True, slots=True)
class Got:
    status: int
    headers: dict[str, str]
    body: bytes


def get(port: int, path: str, method: str = "GET", **headers: str) -> Got:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        return Got(response.status, {name.lower(): value for name, value in response.getheaders()}, response.read())
    finally:
        connection.close()


def page(caller: Caller, **headers: str) -> Got:
    """The page as a browser asks for it; without any key."""
    return get(caller.port, "/graphql", accept="text/html,application/xhtml+xml,*/*;q=0.8", **headers)


def asset_names() -> list[str]:
    """The names of all files of the built console."""
    assert STATIC.is_dir(), "the console is not built: scripts/setup says why"
    return sorted(path.name for path in (STATIC / "graphql" / "assets").iterdir() if path.suffix != ".gz")


def test_a_browser_gets_the_page_without_a_key(administrator: Caller) -> None:
    got = page(administrator)
    assert (got.status, got.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert b"<title>Clarion API explorer</title>" in got.body


def test_the_pages_policy_lets_it_talk_to_nobody_else(administrator: Caller) -> None:
    headers = page(administrator).headers
    policy = {rule.split()[0]: rule.split()[1:] for rule in headers["content-security-policy"].split(";")}
    assert policy == {
        "default-src": ["'none'"],
        "script-src": ["'self'"],
        "style-src": ["'self'", "'unsafe-inline'"],
        "connect-src": ["'self'"],
        "worker-src": ["'self'"],
        "img-src": ["'self'", "data:"],
        "font-src": ["'self'"],
        "base-uri": ["'none'"],
        "form-action": ["'none'"],
        "frame-ancestors": ["'none'"],
    }
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cross-origin-opener-policy"] == "same-origin"
    assert headers["x-content-type-options"] == "nosniff"
    assert "camera=()" in headers["permissions-policy"]


def test_the_page_has_no_script_of_its_own_and_names_no_other_host(administrator: Caller) -> None:
    body = page(administrator).body.decode()
    assert not re.search(r"<script(?![^>]*\ssrc=)", body)
    assert not re.search(r"\son\w+=|//", body)


def test_all_that_the_page_names_is_there(administrator: Caller) -> None:
    named = re.findall(r'(?:src|href)="\./(graphql/assets/[^"]+)"', page(administrator).body.decode())
    assert len(named) >= 3
    for path in named:
        assert get(administrator.port, f"/{path}").status == 200, path


def test_every_file_says_what_it_is_and_may_be_kept_for_ever(administrator: Caller) -> None:
    names = asset_names()
    assert {name.rpartition(".")[2] for name in names} == {"css", "js", "svg", "ttf", "woff2"}
    for name in names:
        got = get(administrator.port, ASSETS + name)
        assert got.status == 200, name
        assert got.headers["content-type"] == serve.TYPES[name.rpartition(".")[2]], name
        assert got.headers["cache-control"] == "public, max-age=31536000, immutable", name
        assert got.headers["x-content-type-options"] == "nosniff", name
        assert got.headers["content-security-policy"].startswith("default-src 'none'"), name
        assert re.search(r"-[A-Za-z0-9_-]{8}\.\w+$", name), f"{name} has no hash in its name"


def test_compressed_or_not_a_file_is_the_same(administrator: Caller) -> None:
    compressed_count = 0
    for name in asset_names():
        plain, small = (get(administrator.port, ASSETS + name, accept_encoding=it) for it in ("identity", "br, gzip"))
        assert "content-encoding" not in plain.headers
        if small.headers.get("content-encoding") == "gzip":
            compressed_count += 1
            assert gzip.decompress(small.body) == plain.body, name
            assert small.headers["etag"] != plain.headers["etag"], name
        else:
            assert small.body == plain.body, name
        assert "accept-encoding" in small.headers["vary"]
    assert compressed_count >= 10


@pytest.mark.parametrize("refused", ["gzip;q=0", "gzip; q=0.0", "deflate", "xgzip", ""])
def test_who_does_not_take_gzip_does_not_get_it(administrator: Caller, refused: str) -> None:
    assert "content-encoding" not in page(administrator, accept_encoding=refused).headers


def test_what_the_browser_has_is_not_sent_again(administrator: Caller) -> None:
    for encoding in ("gzip", "identity"):
        first = page(administrator, accept_encoding=encoding)
        again = page(administrator, accept_encoding=encoding, if_none_match=first.headers["etag"])
        assert (again.status, again.body) == (304, b"")
        assert again.headers["content-security-policy"] == first.headers["content-security-policy"]
        assert page(administrator, accept_encoding=encoding, if_none_match='"other"').status == 200
    # After an upgrade the page names other files, so a browser has to ask each time.
    assert page(administrator).headers["cache-control"] == "no-cache"


def test_a_program_that_gets_is_told_to_post(administrator: Caller) -> None:
    for accept in ("*/*", "application/json", "application/graphql-response+json"):
        got = get(administrator.port, "/graphql?query=%7B__typename%7D", accept=accept)
        assert (got.status, got.headers["allow"]) == (405, "POST")
        assert b"POST" in got.body
        assert "accept" in got.headers["vary"]


def test_queries_still_go_to_the_same_address(administrator: Caller) -> None:
    assert administrator("{ __typename }").data == {"__typename": "Query"}
    assert administrator.with_key(None)("{ __typename }").status == 401


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../../index.html",
        "../../../serve.py",
        "%2e%2e/%2e%2e/index.html",
        "..%2f..%2findex.html",
        "..%5c..%5cindex.html",
        "%2fetc%2fpasswd",
        "/etc/passwd",
        "index.html",
        "built-from",
        "licenses.md",
        "x%00.js",
    ],
)
def test_nothing_but_the_files_themselves_can_be_had(administrator: Caller, name: str) -> None:
    got = get(administrator.port, ASSETS + name, accept="text/html")
    assert got.status == 404, name
    assert b"root:" not in got.body


def test_the_compressed_form_has_no_address_of_its_own(administrator: Caller) -> None:
    compressed = next(path.name for path in (STATIC / "graphql" / "assets").glob("*.gz"))
    assert get(administrator.port, ASSETS + compressed).status == 404


def test_an_installation_without_the_console_says_so_and_its_api_works(
    shared_database: DatabaseAddress, administrator: Caller, tmp_path: Path
) -> None:
    random = SystemRandom()
    with served(shared_database, Sealer(random.token(32), random), console=tmp_path) as port:
        got = get(port, "/graphql", accept="text/html")
        assert got.status == 404
        assert b"built without the API explorer" in got.body
        assert Caller(port, administrator.key, shared_database)("{ __typename }").data == {"__typename": "Query"}
