"""The explorer in a real browser: what a person does with it, and that it talks to nobody but its server."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import graphql
import psycopg
import pytest
from playwright.sync_api import Browser, Response, expect

from clarion.access.principal import Role
from clarion.core.system import SystemRandom
from clarion.database.address import DatabaseAddress
from clarion.sender.seal import Sealer
from harness.api import Caller, new_key, served
from harness.audit_rows import add_change
from harness.browser import NARROW, Explorer, chromium, visiting

pytestmark = pytest.mark.system

CREATE_RECEIVER = """mutation CreateWebhookReceiver($input: CreateWebhookReceiverInput!) {
  createWebhookReceiver(input: $input) {
    webhookReceiver {
      id name description webhookUri sharedSecret contentType expectedResponseCode
      active subscriptions { resource action id } headers { key value id }
    }
  }
}"""
CREATE_SUBSCRIPTION = """mutation CreateWebhookSubscription($input: CreateWebhookSubscriptionInput!) {
  createWebhookSubscription(input: $input) {
    webhookSubscription { resource action id active receiverId events { id status } }
  }
}"""
LIST_RECEIVERS = "{ webhookReceivers { edges { node { sharedSecret id webhookUri _etag name } } } }"
LIST_SUBSCRIPTIONS = """{ webhookSubscriptions { edges { node {
    id action resource createdBy { id name } receiver { id description name webhookUri } } } } }"""
RECEIVER = {"input": {"name": "Our example server", "webhookUri": "https://whoknows.where.this.leads"}}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture
def explorer(browser: Browser, administrator: Caller) -> Iterator[Explorer]:
    """The explorer before a key. At the end: it asked nobody else, and no policy was broken."""
    with visiting(browser, administrator.port) as visit:
        yield visit
        assert visit.complaints == []
        assert visit.foreign == []
        assert len(visit.requested) > 3


@pytest.fixture
def entered(explorer: Explorer, administrator: Caller) -> Explorer:
    """The explorer, ready, with an administrator's key."""
    assert administrator.key is not None
    explorer.enter(administrator.key)
    return explorer


def test_a_query_is_typed_with_completion_and_its_result_is_seen(entered: Explorer) -> None:
    entered.page.get_by_role("button", name="New tab").click()
    entered.type_query("{ reso")
    expect(entered.suggestion("resources")).to_be_visible()
    entered.page.keyboard.press("Enter")
    entered.page.keyboard.type(" { na", delay=15)
    expect(entered.suggestion("name")).to_be_visible()
    entered.page.keyboard.press("Enter")
    assert "".join(entered.text("operation.graphql").split()) == "{resources{name}}"
    entered.page.keyboard.press("Control+Enter")
    expect(entered.result).to_contain_text("ISSUES")
    names = [one["name"] for one in json.loads(entered.text("response.json"))["data"]["resources"]]
    assert {"RUNS", "ISSUES"} < set(names)
    expect(entered.page.locator(".answer-bar")).to_contain_text("HTTP 200")


def test_a_misspelt_field_is_marked_before_it_is_sent(entered: Explorer) -> None:
    entered.page.get_by_role("button", name="New tab").click()
    entered.type_query("{ resourcez ")
    expect(entered.page.locator(".graphiql-query-editor .squiggly-error")).to_be_visible()


def test_the_documentation_tells_what_each_resource_is(entered: Explorer) -> None:
    page = entered.page
    page.get_by_role("button", name="Show Documentation Explorer").click()
    page.get_by_role("combobox").fill("ResourceEnum")
    page.get_by_role("option", name="ResourceEnum", exact=True).click()
    panel = page.locator(".graphiql-doc-explorer")
    expect(panel).to_contain_text("What can be subscribed to")
    expect(panel).to_contain_text("All runs.")
    page.get_by_role("button", name="Show Deprecated Values").click()
    expect(panel).to_contain_text("Use RUNS.")


def test_integrators_on_ion_find_their_four_operations_as_they_write_them(entered: Explorer) -> None:
    for title, query, variables in (
        ("CreateWebhookReceiver", CREATE_RECEIVER, RECEIVER),
        (
            "CreateWebhookSubscription",
            CREATE_SUBSCRIPTION,
            {"input": {"receiverId": 1, "resource": "RUNS", "action": "CREATE"}},
        ),
        ("WebhookReceivers", LIST_RECEIVERS, None),
        ("WebhookSubscriptions", LIST_SUBSCRIPTIONS, None),
    ):
        entered.tab(title).click()
        assert (
            entered.text("operation.graphql").partition("\n" if variables is None else "\0")[
                -1 if variables is None else 0
            ]
            == query
        )
        text = entered.text("variables.json")
        assert (json.loads(text) if text else None) == variables


def test_a_receiver_is_made_with_the_first_tab_and_subscribed_with_the_second(
    entered: Explorer, administrator: Caller
) -> None:
    made = entered.run()["data"]["createWebhookReceiver"]["webhookReceiver"]
    assert (made["name"], made["webhookUri"]) == tuple(RECEIVER["input"].values())
    expect(entered.result).to_contain_text("Our example server")
    assert administrator.rows("SELECT name FROM clarion.receivers WHERE id = %s", int(made["id"])) == [
        ("Our example server",)
    ]
    entered.tab("CreateWebhookSubscription").click()
    subscribed = entered.run()["data"]["createWebhookSubscription"]["webhookSubscription"]
    assert (subscribed["receiverId"], subscribed["resource"], subscribed["action"]) == ("1", "RUNS", "CREATE")


def test_numbers_are_shown_with_all_their_digits(entered: Explorer, administrator: Caller) -> None:
    with psycopg.connect(administrator.database.url) as connection:
        ((organisation_id,),) = connection.execute(
            "SELECT id FROM clarion.organisations WHERE name = 'default'"
        ).fetchall()
        add_change(
            connection,
            1,
            organisation_id=organisation_id,
            change_id=1,
            resource="RUNS",
            action="c",
            object_id="9007199254740993",
            old=None,
            new='{"id":9007199254740993,"cost":12345678901234567890.10}',
        )
    entered.page.get_by_role("button", name="Search the ledger").click()
    entered.run()
    expect(entered.result).to_contain_text("12345678901234567890.10")
    assert '"id": 9007199254740993' in entered.text("response.json")


def test_every_example_is_valid_in_the_schema(entered: Explorer, administrator: Caller) -> None:
    schema = graphql.build_client_schema(administrator(graphql.get_introspection_query()).data)
    buttons = entered.page.get_by_role("navigation", name="Examples").get_by_role("button")
    assert buttons.count() >= 14
    seen = set()
    for index in range(buttons.count()):
        buttons.nth(index).click()
        query, variables = entered.text("operation.graphql"), entered.text("variables.json")
        document = graphql.parse(query)
        assert graphql.validate(schema, document) == [], query
        for definition in document.definitions:
            assert isinstance(definition, graphql.OperationDefinitionNode)
            given = json.loads(variables) if variables else {}
            found = graphql.execution.values.get_variable_values(schema, definition.variable_definitions or (), given)
            assert not isinstance(found, list), (query, found)
        seen.add(query)
    assert len(seen) == buttons.count()


def test_a_wrong_key_says_what_to_do_and_a_right_one_works_after_it(explorer: Explorer, administrator: Caller) -> None:
    page = explorer.page
    page.get_by_label("API key").fill("clk_00000000_nobody")
    page.keyboard.press("Enter")
    expect(explorer.refusal).to_contain_text("does not know this key")
    expect(explorer.refusal).to_contain_text("ask an administrator")
    page.get_by_label("API key").fill("zwei Wörter")
    page.keyboard.press("Enter")
    expect(explorer.refusal).to_contain_text("This is no API key")
    assert administrator.key is not None
    explorer.enter(administrator.key)


def test_the_page_says_whose_key_it_is_and_what_it_may_do(entered: Explorer) -> None:
    account = entered.page.locator(".account")
    expect(account.locator("summary")).to_contain_text("admin")
    expect(account.locator("summary")).to_contain_text("default")
    account.locator("summary").click()
    expect(account).to_contain_text("kept until this tab is closed")
    expect(account).to_contain_text("WEBHOOKS_WRITE")
    entered.page.keyboard.press("Escape")
    expect(account.get_by_text("WEBHOOKS_WRITE")).to_be_hidden()


def test_before_a_key_the_page_says_where_to_get_one(explorer: Explorer) -> None:
    explorer.page.get_by_text("Where do I get a key?").click()
    expect(explorer.page.get_by_text("clarion keys create --name you")).to_be_visible()
    expect(explorer.page.get_by_role("button", name="Open the explorer")).to_be_disabled()


def stored(explorer: Explorer, key: str | None) -> tuple[bool, bool]:
    """Whether the key is kept for the tab, and for the browser."""
    both: list[bool] = explorer.page.evaluate(
        "key => [sessionStorage, localStorage].map(store => Object.values({...store}).includes(key))", key
    )
    return both[0], both[1]


def test_the_key_is_kept_for_the_tab_alone_unless_the_user_says_otherwise(
    entered: Explorer, administrator: Caller
) -> None:
    page = entered.page
    assert stored(entered, administrator.key) == (True, False)
    page.reload()
    entered.ready()
    page.get_by_role("button", name="Sign out").click()
    assert stored(entered, administrator.key) == (False, False)
    page.get_by_label("Remember it in this browser").check()
    entered.enter(administrator.key or "")
    assert stored(entered, administrator.key) == (False, True)
    page.get_by_role("button", name="Forget key").click()
    page.get_by_label("API key").wait_for()
    assert stored(entered, administrator.key) == (False, False)


def test_a_key_that_is_revoked_meanwhile_leads_back_and_the_tabs_are_kept(
    explorer: Explorer, administrator: Caller
) -> None:
    page = explorer.page
    key = new_key(administrator.database, "default", Role.INTEGRATOR, "leaving")
    explorer.enter(key)
    page.get_by_role("button", name="New tab").click()
    explorer.type_query("query Mine { __typename }")
    expect(explorer.tab("Mine")).to_be_visible()
    administrator.rows(
        "UPDATE clarion.api_keys SET revoked = now() WHERE client_id = (SELECT id FROM clarion.clients WHERE name = 'leaving')"
    )
    waited_until = time.monotonic() + 20
    while administrator.with_key(key)("{ __typename }").status != 401:
        assert time.monotonic() < waited_until
    page.get_by_role("button", name="Execute query").click()
    expect(explorer.refusal).to_contain_text("no longer takes this key")
    explorer.enter(administrator.key or "")
    expect(explorer.tab("Mine")).to_be_visible()


def test_all_of_it_can_be_reached_and_named_without_a_mouse(explorer: Explorer, administrator: Caller) -> None:
    page = explorer.page
    expect(page.get_by_label("API key")).to_be_focused()
    page.keyboard.type(administrator.key or "")
    page.keyboard.press("Enter")
    explorer.ready()
    nameless = page.evaluate(
        "() => [...document.querySelectorAll('button, summary, [role=tab]')]"
        ".filter(one => !(one.ariaLabel || one.innerText.trim() || one.title)).map(one => one.outerHTML)"
    )
    assert nameless == []
    example = page.get_by_role("button", name="What can be subscribed to")
    example.focus()
    page.keyboard.press("Enter")
    expect(explorer.tab("Resources")).to_have_attribute("aria-selected", "true")
    page.keyboard.press("Control+Enter")
    expect(explorer.result).to_contain_text("All runs.")


def test_in_a_narrow_window_everything_is_within_reach(browser: Browser, administrator: Caller) -> None:
    with visiting(browser, administrator.port, NARROW, "dark") as explorer:
        page = explorer.page
        explorer.enter(administrator.key or "")
        page.get_by_role("button", name="Show Examples").click()
        page.get_by_role("button", name="What can be subscribed to").click()
        assert explorer.run()["data"]["resources"]
        expect(explorer.result).to_contain_text("ISSUES")
        for part in (page.get_by_label("Operation Editor"), explorer.result):
            box = part.bounding_box()
            assert box is not None
            assert box["width"] > 250
            assert box["height"] > 120
        assert page.evaluate("document.documentElement.scrollWidth") <= NARROW[0]
        assert (explorer.complaints, explorer.foreign) == ([], [])


def test_a_deployment_without_runs_has_examples_about_what_it_has(
    browser: Browser, shared_database: DatabaseAddress, administrator: Caller
) -> None:
    random = SystemRandom()
    with psycopg.connect(shared_database.url, autocommit=True) as connection:
        (kept,) = connection.execute(
            "DELETE FROM clarion.resources WHERE name = 'RUNS' "
            "RETURNING (name, singular, description, schema_name, table_name, key_columns)::text"
        ).fetchall()
        assert kept
        try:
            with served(shared_database, Sealer(random.token(32), random)) as port, visiting(browser, port) as explorer:
                explorer.enter(administrator.key or "")
                explorer.tab("CreateWebhookSubscription").click()
                assert json.loads(explorer.text("variables.json"))["input"]["resource"] == "ISSUES"
                explorer.page.get_by_role("button", name="Preview a condition").click()
                assert json.loads(explorer.text("variables.json"))["input"]["resource"] == "ISSUES"
        finally:
            connection.execute(
                "INSERT INTO clarion.resources (name, singular, description, schema_name, table_name, key_columns) "
                "VALUES ('RUNS', 'RUN', 'All runs.', 'public', 'runs', '{id}')"
            )


def test_the_policy_holds_in_the_browser(explorer: Explorer) -> None:
    """The other tests show that nothing is missing from it; this one that it refuses."""
    page = explorer.page
    answers: list[Response] = []
    page.on("response", lambda response: answers.append(response))  # noqa: PLW0108 - Playwright marks what it is given
    refused = page.evaluate(
        """async () => {
          const violations = [];
          document.addEventListener('securitypolicyviolation', event => violations.push(event.effectiveDirective));
          const script = document.createElement('script');
          script.textContent = 'window.intruded = true';
          document.head.append(script);
          await fetch('http://127.0.0.1:9/').catch(() => null);
          const picture = new Image();
          picture.src = 'http://127.0.0.1:9/x.png';
          await new Promise(resolve => { picture.onerror = resolve; });
          return [window.intruded ?? false, violations];
        }"""
    )
    assert refused == [False, ["script-src-elem", "connect-src", "img-src"]]
    assert answers == []
    explorer.complaints.clear()
    explorer.requested[:] = [url for url in explorer.requested if ":9/" not in url]
