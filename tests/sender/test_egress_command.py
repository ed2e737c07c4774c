"""`clarion egress` as an operator runs it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from clarion.database.address import DatabaseAddress
from harness.process import ClarionProcess, Finished
from sender.posting import Receivers

pytest_plugins: list[str] = []
ION = Path(__file__).parents[2] / "deploy/ion/environments.toml"


@pytest.fixture
def egress(clarion_process: Callable[..., ClarionProcess]) -> Callable[..., Finished]:
    """Runs `clarion egress` with settings (without their prefix) to its end."""

    def run(*arguments: str, **settings: str) -> Finished:
        return clarion_process("egress", *arguments, **{f"CLARION_{n}": v for n, v in settings.items()}).wait()

    return run


def test_the_list_marks_the_own_environment(egress: Callable[..., Finished]) -> None:
    shown = egress("list", ENVIRONMENTS_FILE=str(ION), ENVIRONMENT="gov-production")
    assert shown.code == 0
    assert [line.split()[:3] for line in shown.stdout.splitlines() if line.startswith("*")] == [
        ["*", "gov-production", "3.30.162.33"],
        ["*", "gov-production", "3.30.213.145"],
    ]
    document = json.loads(egress("list", "--json", ENVIRONMENTS_FILE=str(ION)).stdout)
    assert len(document["environments"]) == 4
    assert "nothing is promised" in egress("list").stdout


def test_an_address_that_this_host_has_not_got_fails_the_check_and_the_start(egress: Callable[..., Finished]) -> None:
    settings = {"ENVIRONMENTS_FILE": str(ION), "ENVIRONMENT": "production"}
    checked = egress("check", **settings)
    assert checked.code == 1
    assert "the egress address 54.149.61.144 is on no interface of this host" in checked.stdout
    translated = egress("check", "--json", **settings, SOURCE_ADDRESSES_TRANSLATED="true")
    assert translated.code == 0
    assert [one["check"] for one in json.loads(translated.stdout)] == ["environment", "translation", "source address"]
    unknown = egress("check", ENVIRONMENTS_FILE=str(ION), ENVIRONMENT="nowhere")
    assert unknown.code == 2
    assert "it has staging, production" in unknown.stderr


def test_every_address_is_looked_at_and_one_that_nobody_published_fails(
    egress: Callable[..., Finished], tmp_path: Path
) -> None:
    file = tmp_path / "environments.toml"
    file.write_text('[environments.plant]\naddresses = ["44.0.0.1"]\n')
    settings = {"ENVIRONMENTS_FILE": str(file), "ENVIRONMENT": "plant", "SOURCE_ADDRESSES": "127.0.0.5,54.149.61.144"}
    checked = egress("check", "--json", **settings)
    assert checked.code == 1
    found = [one for one in json.loads(checked.stdout) if one["check"] == "source address"]
    assert [(one["subject"], one["passed"]) for one in found] == [("127.0.0.5", False), ("54.149.61.144", False)]
    assert "plant does not publish it as in force" in found[0]["result"]
    assert "is on no interface of this host" in found[1]["result"]
    for behind in ({"SOURCE_ADDRESSES_TRANSLATED": "true"}, {"EGRESS_PROXY": "http://proxy.invalid:3128"}):
        assert egress("check", **(settings | {"SOURCE_ADDRESSES": "127.0.0.5"} | behind)).code == 0


def test_the_check_is_held_to_the_rules_in_the_database(
    egress: Callable[..., Finished], database: DatabaseAddress
) -> None:
    """From a loopback address there is no way to the plant's; what is asked is whether the policy lets it try."""
    settings = {"DATABASE_URL": database.url, "ENVIRONMENT": "plant", "SOURCE_ADDRESSES": "127.0.0.5"}
    uri = "https://10.255.255.254:9443/"
    assert "is not allowed" in egress("check", "--to", uri, **settings).stdout
    with psycopg.connect(database.url) as connection:
        connection.execute(
            "INSERT INTO clarion.organisations (name) VALUES ('default') ON CONFLICT DO NOTHING",
        )
        connection.execute(
            "INSERT INTO clarion.egress_rules (organisation_id, environment, network, port, note) "
            "SELECT id, 'plant', '10.255.255.254/32', 9443, 'test' FROM clarion.organisations WHERE name = 'default'"
        )
    tried = egress("check", "--to", uri, **settings)
    assert tried.code == 1
    assert "CONNECT_FAILED" in tried.stdout


@pytest.mark.parametrize("source", ["127.0.0.5", "127.0.0.5,127.0.0.6"])
def test_the_check_goes_the_way_to_its_end(egress: Callable[..., Finished], receivers: Receivers, source: str) -> None:
    settings = {"SOURCE_ADDRESSES": source, "ALLOWED_NETWORKS": "127.0.0.0/8", "CA_FILE": str(receivers.ca_file)}
    checked = json.loads(egress("check", "--json", "--to", receivers.uri("/echo"), **settings).stdout)
    assert [one["result"] for one in checked if one["check"] == "connection"] == [
        f"left from {address}, reached 127.0.0.1" for address in source.split(",")
    ]
    failed = egress("check", "--to", receivers.uri("/echo", "expired"), **settings)
    assert failed.code == 1
    assert "TLS_FAILED: certificate has expired" in failed.stdout
    assert "this destination is not allowed" in egress("check", "--to", "https://127.0.0.1/").stdout
