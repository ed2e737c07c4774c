"""The environments file: what it may hold, and what is said of what it may not."""

from __future__ import annotations

import tomllib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clarion.core.environments import Environment, load_environments, parse_environments
from clarion.core.errors import UsageInvalid

ION = Path(__file__).parents[2] / "deploy/ion/environments.toml"


def one(table: str) -> Environment:
    (environment,) = parse_environments(tomllib.loads(f"[environments.plant]\n{table}"), "file")
    return environment


def test_the_example_deployment_has_every_environment_and_address() -> None:
    environments = load_environments(ION, "production")
    listed = {
        url.removeprefix("https://"): [str(one.address) for one in environment.addresses]
        for environment in environments.all
        for url in environment.urls
    }
    assert listed == {
        "staging.firstresonance.io": ["44.232.1.74", "52.43.58.96"],
        "sandbox.firstresonance.io": ["44.232.1.74", "52.43.58.96"],
        "app.firstresonance.io": ["54.149.61.144", "52.88.34.10"],
        "staging.ion-gov.com": ["3.30.182.161", "52.222.27.236"],
        "sandbox.ion-gov.com": ["3.30.182.161", "52.222.27.236"],
        "app.ion-gov.com": ["3.30.162.33", "3.30.213.145"],
    }
    assert environments.own is not None
    assert environments.own.hosts == {"app.firstresonance.io"}
    published = environments.published()
    assert (published["environment"], published["fixed"]) == ("production", True)
    assert published["addresses"][0] == {
        "address": "54.149.61.144", "cidr": "54.149.61.144/32", "from": None, "until": None
    }  # fmt: skip


def test_without_a_file_nothing_is_promised() -> None:
    for name in (None, "plant"):
        published = load_environments(None, name).published()
        assert published == {"environment": None, "fixed": False, "addresses": [], "environments": []}


def test_addresses_come_and_go_at_their_moments() -> None:
    environment = one(
        'addresses = ["44.0.0.1/32", "2a00:1450::1/128", {address = "44.0.0.2", from = 2027-01-01, until = 2027-02-01T10:00:00+02:00}]'
    )
    first, second, coming = environment.addresses
    assert first.in_force(datetime(2000, 1, 1, tzinfo=UTC))
    assert second.published()["cidr"] == "2a00:1450::1/128"
    assert not coming.in_force(datetime(2026, 12, 31, 23, 59, 59, tzinfo=UTC))
    assert coming.in_force(datetime(2027, 1, 1, tzinfo=UTC))
    assert not coming.in_force(datetime(2027, 2, 1, 8, tzinfo=UTC))
    assert coming.published()["until"] == "2027-02-01T08:00:00+00:00"


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        ('adresses = ["44.0.0.1"]', "unknown key 'adresses'; known: addresses, label, urls"),
        ('addresses = "44.0.0.1"', "`addresses` must be a list"),
        ('addresses = ["44.0.0.0/24"]', "'44.0.0.0/24' is no IP address"),
        ('addresses = ["044.0.0.1"]', "'044.0.0.1' is no IP address"),
        ("addresses = [44]", "an address is a text or a table"),
        ("addresses = [{}]", "None is no IP address"),
        ('addresses = ["127.0.0.1"]', "nothing can come from 127.0.0.1"),
        ('addresses = ["0.0.0.0"]', "nothing can come from 0.0.0.0"),
        ('addresses = ["44.0.0.1", "44.0.0.1"]', "an address is there twice"),
        ('addresses = [{address = "44.0.0.1", from = "2027-01-01"}]', "must be a date or a time, without quotes"),
        ('addresses = [{address = "44.0.0.1", from = 2027-01-01T00:00:00}]', "a time needs its zone"),
        ('addresses = [{address = "44.0.0.1", from = 2027-01-02, until = 2027-01-01}]', "ends before it begins"),
        ('addresses = ["255.255.255.255"]', "no host's address lies in 240.0.0.0/4"),
        ('addresses = ["::ffff:127.0.0.1"]', "no host's address lies in ::/8"),
        ('addresses = ["2a00:1450::1%eth0"]', "has a zone"),
        ('addresses = [{address = "44.0.0.1", from = 0001-01-01T00:00:00+14:00}]', "outside of the years"),
        ('urls = ["http://app.example"]', "is no https:// URL"),
        ('urls = ["https://[app.example"]', "is no https:// URL"),
        ('urls = ["https://app.example."]', "is no https:// URL"),
        ('urls = ["https://bücher.example/"]', "is no https:// URL"),
        ('urls = ["https://user@app.example/"]', "is no https:// URL"),
        ('label = " "', "`label` must be a printable text"),
    ],
)
def test_a_mistake_is_refused_with_its_place(table: str, reason: str) -> None:
    with pytest.raises(UsageInvalid) as refused:
        one(table)
    assert "file, environment plant" in refused.value.message
    assert reason in refused.value.message


def test_without_an_address_in_force_nothing_is_guessed() -> None:
    environment = one('addresses = ["10.1.2.3", {address = "44.0.0.2", from = 2027-01-01}]')
    assert [str(address) for address in environment.sources(datetime(2026, 1, 1, tzinfo=UTC))] == ["10.1.2.3"]
    ended = one('addresses = [{address = "44.0.0.2", until = 2027-01-01}]')
    with pytest.raises(UsageInvalid, match="none is in force at 2027-01-01T00:00:00Z"):
        ended.sources(datetime(2027, 1, 1, tzinfo=UTC))
    assert one("").sources(datetime(2027, 1, 1, tzinfo=UTC)) == ()


def test_hosts_are_as_those_of_webhooks_are() -> None:
    assert one('urls = ["https://App.Example:8443/x?y", "https://10.1.2.3"]').hosts == {"app.example", "10.1.2.3"}


def test_names_and_files_are_checked(tmp_path: Path) -> None:
    with pytest.raises(UsageInvalid, match="lower-case"):
        parse_environments({"environments": {"Plant 1": {}}}, "file")
    for name in ("Plant 1", "x" * 101, ""):
        with pytest.raises(UsageInvalid, match="CLARION_ENVIRONMENT: a name has"):
            load_environments(None, name)
    with pytest.raises(UsageInvalid, match="unknown key 'environment'"):
        parse_environments({"environment": {}}, "file")
    with pytest.raises(UsageInvalid, match="no such"):
        load_environments(tmp_path / "no such", None)
    (tmp_path / "bad.toml").write_text("[environments")
    with pytest.raises(UsageInvalid, match="is no TOML"):
        load_environments(tmp_path / "bad.toml", None)
    with pytest.raises(UsageInvalid, match="no environment 'prod'") as refused:
        load_environments(ION, "prod")
    assert refused.value.hint == "it has staging, production, gov-staging, gov-production"


values = st.recursive(
    st.one_of(
        st.text(max_size=20), st.integers(), st.booleans(), st.datetimes(), st.dates(), st.ip_addresses().map(str)
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(
            st.sampled_from(["label", "urls", "addresses", "address", "from", "until", "x"]), inner, max_size=4
        ),
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.text(max_size=8), values, max_size=3))
def test_whatever_toml_holds_it_is_parsed_or_refused(tables: dict[str, Any]) -> None:
    try:
        found = parse_environments({"environments": tables}, "file")
    except UsageInvalid:
        return
    assert {environment.name for environment in found} == set(tables)
