"""The published addresses, and the rules that operators make."""

from __future__ import annotations

import time
from typing import Any

import pytest

from clarion.access.principal import Role
from clarion.core.environments import Environments, parse_environments
from clarion.core.errors import RequestRefused
from clarion.registry import egress_rules
from harness.api import Answer, Caller

CREATE = (
    "mutation($input: CreateWebhookEgressRuleInput!) { createWebhookEgressRule(input: $input) { webhookEgressRule "
    "{ id _etag environment host network port note createdBy { name } } } }"
)
DELETE = "mutation($id: ID!, $etag: String!) { deleteWebhookEgressRule(id: $id, etag: $etag) { id } }"
LIST = "{ webhookEgressRules { edges { node { id host network port note } } pageInfo { totalCount } } }"
REGISTER = 'mutation($uri: String!) { createWebhookReceiver(input: {name: "erp", webhookUri: $uri}) { webhookReceiver { id } } }'
ERP = {"network": "10.1.0.0/16", "port": 443, "note": "ERP of plant 1"}


@pytest.fixture
def operator(administrator: Caller) -> Caller:
    return administrator.of("default", Role.OPERATOR)


def create(caller: Caller, **given: Any) -> Answer:
    return caller(CREATE, input=ERP | given)


def test_a_rule_opens_registration_at_once_and_closes_it_when_it_is_taken_back(
    operator: Caller, integrator: Caller
) -> None:
    uri = "https://10.1.2.3/hooks"
    assert integrator(REGISTER, uri=uri).refusal == ("ADDRESS_NOT_ALLOWED", "input.webhookUri")
    rule = create(operator).data["createWebhookEgressRule"]["webhookEgressRule"]
    expected = {"id": "1", "_etag": rule["_etag"], "environment": "default", "host": None}
    assert rule == ERP | expected | {"createdBy": {"name": "operator"}}
    assert integrator(REGISTER, uri=uri).data["createWebhookReceiver"]["webhookReceiver"] == {"id": "1"}
    for other in ("https://10.2.2.3/hooks", "https://10.1.2.3:8443/hooks", "https://127.0.0.1/"):
        assert integrator(REGISTER, uri=other).refusal == ("ADDRESS_NOT_ALLOWED", "input.webhookUri")
    assert operator(DELETE, id="1", etag="x").refusal == ("CONFLICT", "etag")
    assert operator(DELETE, id="1", etag=rule["_etag"]).data["deleteWebhookEgressRule"] == {"id": "1"}
    assert integrator(REGISTER, uri=uri).refusal == ("ADDRESS_NOT_ALLOWED", "input.webhookUri")
    assert operator(DELETE, id="1", etag=rule["_etag"]).refusal == ("NOT_FOUND", "id")
    recorded = operator.rows(
        "SELECT action, client_name, before, after FROM clarion.history WHERE object_type = 'WebhookEgressRule' "
        "AND refusal IS NULL ORDER BY id"
    )
    shown = ERP | {"environment": "default", "host": None}
    assert recorded == [("CREATE", "operator", None, shown), ("DELETE", "operator", shown, None)]


def test_a_rule_may_name_a_host_inside(operator: Caller) -> None:
    made = create(operator, host="ERP.plant.local").data["createWebhookEgressRule"]["webhookEgressRule"]
    assert made["host"] == "erp.plant.local"
    assert create(operator, host="erp.plant.local").refusal == ("CONFLICT", "input")
    listed = operator(LIST).data["webhookEgressRules"]
    assert [edge["node"]["host"] for edge in listed["edges"]] == ["erp.plant.local"]
    assert listed["pageInfo"] == {"totalCount": 1}


def test_a_rule_of_another_environment_opens_nothing_here(operator: Caller, integrator: Caller) -> None:
    made = create(operator, environment="plant-2").data["createWebhookEgressRule"]["webhookEgressRule"]
    assert made["environment"] == "plant-2"
    assert integrator(REGISTER, uri="https://10.1.2.3/").refusal == ("ADDRESS_NOT_ALLOWED", "input.webhookUri")
    for name in ("Plant 2", "x" * 101, "nul\x00"):
        assert create(operator, environment=name).refusal == ("INVALID_INPUT", "input.environment")


def test_a_rule_is_found_by_its_global_name(operator: Caller) -> None:
    create(operator)
    node = "query($id: ID!) { node(id: $id) { id ... on WebhookEgressRule { network } } }"
    assert operator(node, id="WebhookEgressRule:1").data["node"] == {"id": "1", "network": "10.1.0.0/16"}
    assert operator(node, id="WebhookEgressRule:2").refusal == ("NOT_FOUND", "id")
    stranger = operator.of("tenant", Role.ADMINISTRATOR)
    assert stranger(node, id="WebhookEgressRule:1").refusal[0] == "FORBIDDEN"


def test_with_a_file_a_rule_is_for_one_of_its_environments() -> None:
    table = {"environments": {"staging": {}, "production": {}}}
    environments = Environments(parse_environments(table, "file"))
    assert egress_rules.check_environment("staging", "production", environments) == "staging"
    assert egress_rules.check_environment("default", "default", environments) == "default"
    with pytest.raises(RequestRefused, match="one of staging, production") as refused:
        egress_rules.check_environment("stagign", "production", environments)
    assert refused.value.field == "input.environment"


@pytest.mark.parametrize(
    ("given", "field", "reason"),
    [
        ({"network": "10.1.2.3/16"}, "network", "must be written as 10.1.0.0/16"),
        ({"network": "010.1.0.0/16"}, "network", "must be a network"),
        ({"network": "everything"}, "network", "must be a network"),
        ({"network": "0.0.0.0/0"}, "network", "holds addresses of 0.0.0.0/8"),
        ({"network": "::/0"}, "network", "holds addresses of ::/8"),
        ({"network": "127.0.0.1/32"}, "network", "holds addresses of 127.0.0.0/8"),
        ({"network": "169.254.169.254"}, "network", "holds addresses of 169.254.0.0/16"),
        ({"network": "100.64.0.0/10"}, "network", "holds addresses of 100.100.100.200/32"),
        ({"network": "::ffff:10.0.0.0/104"}, "network", "must be written as"),
        ({"port": 0}, "port", "from 1 to 65535"),
        ({"host": "10.1.2.3"}, "host", "leave it out for addresses"),
        ({"host": "2130706433"}, "host", "leave it out for addresses"),
        ({"host": "erp..local"}, "host", "empty label"),
        ({"host": "erp local"}, "host", "letters, digits and inner hyphens"),
        ({"host": ""}, "host", "empty label"),
    ],
)
def test_what_no_rule_may_say_is_refused(operator: Caller, given: dict[str, Any], field: str, reason: str) -> None:
    answer = create(operator, **given)
    assert answer.refusal == ("INVALID_INPUT", f"input.{field}")
    assert reason in answer.error["message"]


def test_only_operators_of_the_deployments_own_organisation_make_rules(
    administrator: Caller, integrator: Caller
) -> None:
    assert create(integrator, port=0).refusal[0] == "FORBIDDEN"
    assert create(administrator.of("default", Role.AUDITOR)).refusal[0] == "FORBIDDEN"
    stranger = administrator.of("tenant", Role.ADMINISTRATOR)
    for answer in (create(stranger), stranger(LIST), stranger(DELETE, id="1", etag="x")):
        assert answer.refusal[0] == "FORBIDDEN"
        assert "organisation 'default'" in answer.error["message"]
    assert create(administrator).data is not None


def test_there_is_an_end_to_the_number_of_rules(operator: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(egress_rules, "RULES_MAX", 1)
    create(operator)
    assert create(operator, port=8443).refusal == ("INVALID_INPUT", "input")


def test_the_addresses_are_published_to_everyone_and_may_be_kept(integrator: Caller) -> None:
    public = integrator.with_key(None)
    answer = public.send(b"", "GET", "/.well-known/webhook-egress.json")
    assert answer.status == 200
    assert answer.body == {"environment": None, "fixed": False, "addresses": [], "environments": []}
    assert answer.headers["cache-control"] == "public, max-age=300"
    again = public.send(b"", "GET", "/.well-known/webhook-egress.json", if_none_match=answer.headers["etag"])
    assert again.status == 304
    shown = integrator("{ webhookEgress { environment fixed addresses { cidr from until } environments { name } } }")
    assert shown.data["webhookEgress"] == {"environment": None, "fixed": False, "addresses": [], "environments": []}


def test_a_refusal_by_a_name_and_one_by_an_address_take_full_quarters_of_a_second(integrator: Caller) -> None:
    for uri in ("https://10.0.0.1/", "https://printer.local/", "https://0x7f000001/"):
        started = time.monotonic()
        assert integrator(REGISTER, uri=uri).refusal == ("ADDRESS_NOT_ALLOWED", "input.webhookUri")
        assert time.monotonic() - started > 0.249
