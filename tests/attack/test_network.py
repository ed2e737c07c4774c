"""The attacks end to end, in network namespaces: what counts is which listeners accepted a connection."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from attack import programme
from attack.hostile import CPU_MS_MAX, LATE_PERCENT_MAX, RESIDENT_KIB_MAX, hostile
from attack.programme import Tried
from attack.whole import environment_addresses, starting, whole
from clarion.database.address import DatabaseAddress
from harness.deployment import Deployment
from harness.network import Network, missing, network

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def keylog(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keys") / "keys.log"


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory, keylog: Path) -> Iterator[Network]:
    assert not missing(), missing()
    environment = programme.ENVIRONMENT | {"SSLKEYLOGFILE": str(keylog)}
    with network(tmp_path_factory.mktemp("network"), programme.certified(), environment) as made:
        yield made


def _judge(tried: Tried, *, controls: int) -> None:
    assert tried.wrong == []
    assert tried.accepted == 0
    assert tried.controls == tried.controls_of >= controls
    assert tried.cases


def test_no_text_that_is_no_uri_leads_anywhere(net: Network) -> None:
    _judge(programme.texts(net), controls=8)


def test_no_special_purpose_address_is_connected_to_and_every_public_neighbour_is(net: Network) -> None:
    _judge(programme.addresses(net), controls=80)


def test_our_own_addresses_and_names_stay_closed_whatever_a_rule_says(net: Network) -> None:
    _judge(programme.own(net), controls=3)


def test_no_trick_of_a_name_server_leads_inside(net: Network) -> None:
    _judge(programme.answers(net), controls=8)


def test_connections_are_never_shared_and_the_environment_has_no_say(net: Network, keylog: Path) -> None:
    _judge(programme.sharing(net, keylog), controls=5)


def test_what_is_forbidden_never_reaches_the_proxy(net: Network) -> None:
    _judge(programme.proxied(net), controls=2)


def test_planted_headers_that_would_split_a_request_send_nothing(net: Network) -> None:
    _judge(programme.injections(net), controls=1)


def test_a_hundred_receivers_of_one_host_get_64_connections_together(net: Network) -> None:
    _judge(programme.crowding(net), controls=300)


@pytest.mark.parametrize("environment", environment_addresses())
def test_a_firewall_that_admits_the_environments_addresses_lets_requests_in(net: Network, environment: str) -> None:
    sources = environment_addresses()[environment]
    _judge(programme.fixed_addresses(net, sources), controls=2 * len(sources))


def test_serve_itself_sends_nothing_to_what_is_planted_and_leaves_from_its_environments_addresses(
    net: Network, database: DatabaseAddress, tmp_path: Path
) -> None:
    with starting(net, tmp_path) as start, Deployment(database, tmp_path, start) as deployment:
        _judge(whole(net, deployment, "production", sample=12), controls=6)


def test_hostile_answers_keep_to_the_bounds_of_time_memory_and_cpu(net: Network) -> None:
    hurt = hostile(net, attempts=16, timeout_s=2, together=True)
    assert hurt.wrong == []
    assert hurt.accepted == 0
    bounds = (hurt.late_percent, hurt.resident_kib, hurt.cpu_ms)
    within = zip(bounds, (LATE_PERCENT_MAX, RESIDENT_KIB_MAX, CPU_MS_MAX), strict=True)
    assert all(value <= bound for value, bound in within), (bounds, hurt.worst)
