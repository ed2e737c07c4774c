"""`clarion egress` as an operator runs it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

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
