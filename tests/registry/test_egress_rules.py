"""What a rule may say, whatever is written into its fields."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clarion.core.errors import RequestRefused
from clarion.registry.egress_rules import check_rule
from clarion.sender.address import parse_webhook_uri
from clarion.sender.policy import NEVER_BY_RULE

HOSTS = st.one_of(
    st.text(max_size=30),
    st.text(alphabet="abcXY019-._ü。１①:@/[]%\x00", max_size=20),
    st.from_regex(r"[a-z0-9-]{1,8}(\.[a-z0-9-]{1,8}){0,3}", fullmatch=True),
)
NETWORKS = st.one_of(
    st.text(max_size=20),
    st.builds(
        lambda address, bits: str(ip_network(f"{address}/{min(bits, address.max_prefixlen)}", strict=False)),
        st.ip_addresses(),
        st.integers(0, 128),
    ),
)


def rule(**values: Any) -> dict[str, Any] | RequestRefused:
    """The rule's checked values, or how it is refused."""
    try:
        return check_rule({"network": "10.1.0.0/16", "port": 443, "note": ""} | values)
    except RequestRefused as refused:
        return refused


@given(HOSTS)
def test_a_host_is_one_that_a_webhooks_uri_can_have_or_is_refused(host: str) -> None:
    checked = rule(host=host)
    if isinstance(checked, RequestRefused):
        assert checked.field == "input.host"
    else:
        # Read again as a URI's host it is the same name: the policy compares the two as texts.
        target = parse_webhook_uri(f"https://{checked['host']}/", lambda _host, _port: (checked["network"],))
        assert (target.host, target.literal) == (checked["host"], None)


@given(NETWORKS)
def test_no_network_that_is_accepted_holds_what_no_rule_can_open(text: str) -> None:
    checked = rule(network=text)
    if isinstance(checked, RequestRefused):
        assert checked.field == "input.network"
    else:
        network = checked["network"]
        assert str(network) in {text, f"{text}/{network.max_prefixlen}"}
        assert not any(network.version == never.version and network.overlaps(never) for never in NEVER_BY_RULE)


@pytest.mark.parametrize("never", NEVER_BY_RULE, ids=str)
def test_neither_a_part_nor_a_whole_of_what_no_rule_can_open_is_accepted(never: object) -> None:
    whole = ip_network(str(never))
    for network in (whole, whole.supernet(), next(whole.subnets()), ip_network((whole[-1], whole.max_prefixlen))):
        with pytest.raises(RequestRefused, match="which no rule can open"):
            check_rule({"network": str(network), "port": 443, "note": ""})
