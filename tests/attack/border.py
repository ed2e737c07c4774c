"""Two organisations on one server: a victim with an object of every kind, and an attacker beside it."""

from __future__ import annotations

import psycopg
from psycopg import sql

from attack.isolation import CANARY, Border
from clarion.access.principal import Role
from harness.api import Caller
from harness.audit_rows import add_attempt, add_change, add_open, add_settled

TABLES = {
    "WebhookReceiver": "receivers",
    "WebhookSubscription": "subscriptions",
    "WebhookHeader": "headers",
    "WebhookEvent": "events",
    "Client": "clients",
    "ApiKey": "api_keys",
    "HistoryEntry": "history",
    "Organisation": "organisations",
    "Change": "ledger",
}
"""Where the victim's objects of each type stand. What all organisations share is no victim: see `SHARED`."""

SHARED = {"Resource", "WebhookEgressRule"}
_FIRST_ID = 910_001


def border_of(administrator: Caller) -> Border:
    """Makes the victim and, with a receiver of its own, the attacker: an administrator of another organisation.

    `administrator` is one of organisation `default`, where resource RUNS is.
    """
    victim = _victim(administrator)
    etags = {
        "receiver": victim.rows("SELECT etag FROM clarion.receivers")[0][0],
        "subscription": victim.rows("SELECT etag FROM clarion.subscriptions")[0][0],
    }
    attacker = administrator.of("attacker", Role.ADMINISTRATOR)
    own = attacker(
        'mutation { createWebhookReceiver(input: {name: "own", webhookUri: "https://93.184.216.34/"}) '
        "{ webhookReceiver { id } } }"
    ).data["createWebhookReceiver"]["webhookReceiver"]["id"]
    victims = {}
    for type_name, table in TABLES.items():
        column = {"events": "event_id", "ledger": "position"}.get(table, "id")
        ((key,),) = victim.rows(
            f"SELECT max({column}) FROM clarion.{table} WHERE "
            + (
                "name = 'victim'"
                if table == "organisations"
                else "organisation_id = (SELECT id FROM clarion.organisations WHERE name = 'victim')"
            )
        )
        victims[type_name] = str(key)
    absent = {type_name: str(int(key) + 50_000) for type_name, key in victims.items()}
    return Border(attacker, victims, absent, etags, own)


def _victim(administrator: Caller) -> Caller:
    """The administrator of organisation `victim`, whose ids begin high, each kind's at another place."""
    with psycopg.connect(administrator.database.url, autocommit=True) as connection:
        for place, table in enumerate(sorted({*TABLES.values()} - {"events", "ledger"})):
            connection.execute(
                sql.SQL("SELECT setval('clarion.{}', {})").format(
                    sql.SQL(f"{table}_id_seq"), sql.Literal(_FIRST_ID + 1_000 * place)
                )
            )
    victim = administrator.of("victim", Role.ADMINISTRATOR, CANARY)
    receiver = victim(
        "mutation($input: CreateWebhookReceiverInput!) { createWebhookReceiver(input: $input) { webhookReceiver { id } } }",
        input={
            "name": CANARY,
            "description": CANARY,
            "webhookUri": f"https://93.184.216.34/{CANARY}",
            "headers": [{"key": f"x-{CANARY}", "value": CANARY}],
        },
    ).data["createWebhookReceiver"]["webhookReceiver"]["id"]
    subscription = victim(
        "mutation($input: CreateWebhookSubscriptionInput!) { createWebhookSubscription(input: $input) "
        "{ webhookSubscription { id } } }",
        input={"receiverId": receiver, "resource": "RUNS", "action": "CREATE", "condition": f'"{CANARY}" != ""'},
    ).data["createWebhookSubscription"]["webhookSubscription"]["id"]
    with psycopg.connect(administrator.database.url) as connection:
        ((owner,),) = connection.execute("SELECT id FROM clarion.organisations WHERE name = 'victim'").fetchall()
        of = {"organisation_id": owner, "receiver_id": int(receiver), "subscription_id": int(subscription)}
        for position in (940_001, 940_002):
            add_change(connection, position, organisation_id=owner, object_id=CANARY)
        add_settled(connection, 930_001, position=940_001, reason=CANARY, **of)
        add_open(connection, 930_002, position=940_002, **of)
        add_attempt(connection, 930_001, 1, organisation_id=owner, body=CANARY.encode())
        connection.execute("INSERT INTO clarion.activations VALUES (%s, %s, 1, NULL)", (int(subscription), owner))
        connection.execute(
            sql.SQL("UPDATE clarion.ledger SET new = {}, actor_name = {} WHERE organisation_id = {}").format(
                sql.Literal(f'{{"id": 1, "title": "{CANARY}"}}'), sql.Literal(CANARY), sql.Literal(owner)
            )
        )
    return victim
