"""Nothing crosses from one organisation to another: every place for an id, made from the schema.

Each place is tried with the ids of the types that it is named after, and of one other in turn; `scripts/proof api` tries
all types everywhere.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from attack.border import SHARED, TABLES, border_of
from attack.isolation import CANARY, Attack, Border, attacks, lists, node_types, schema_of, selection, spellings
from clarion.access.principal import Role
from clarion.api import gate, session
from clarion.database.address import DatabaseAddress
from clarion.sender.seal import Sealer
from harness.api import UNLIMITED, Caller, served

BLUNT = {
    "mutation deleteWebhookEgressRule(id)",
    "mutation unregisterResource(id)",
    "mutation updateResource(input.id)",
    "query node(id: Resource:)",
    "query node(id: WebhookEgressRule:)",
    "query resource(id)",
    "query webhookEgressRule(id)",
}
"""Attacks that cannot find anything, since what they name belongs to the deployment and not to an organisation."""
SLOW = {"mutation testWebhookReceiver(id)"}
"""Its answer waits for a worker, and none runs here; that it finds its receiver is tested where one does."""


@pytest.fixture
def border(administrator: Caller) -> Border:
    """A victim with an object of every kind, and an administrator of another organisation with a receiver of its own."""
    return border_of(administrator)


def differences(border: Border, tried: Sequence[Attack]) -> list[tuple[str, str, str]]:
    return [
        told
        for attack, other in zip(tried, itertools.cycle(border.victims), strict=False)
        for told in border.differences(attack, {*border.likely(attack), other})
    ]


def test_every_id_of_another_organisation_is_an_absent_one(border: Border) -> None:
    schema = schema_of(border.attacker)
    assert set(node_types(schema)) <= TABLES.keys() | SHARED, "a new type: where do its rows stand?"
    tried = list(attacks(schema, border.etags["receiver"]))
    assert differences(border, tried) == []
    assert len(tried) >= 35


def test_each_attack_would_find_the_object_if_it_were_ones_own(border: Border, administrator: Caller) -> None:
    owner = administrator.of("victim", Role.ADMINISTRATOR, "owner")
    blunt = []
    for attack in attacks(schema_of(owner), "0" * 32):
        answer = owner.post(attack.with_id(border.absent["WebhookReceiver"]))
        codes = {error["extensions"]["code"] for error in answer.body.get("errors", [])}
        assert not codes & {"QUERY_INVALID", "QUERY_TOO_COMPLEX", "INVALID_INPUT"}, (attack, answer.body)
        if "filters" not in attack.where and attack.where not in SLOW and not border.found(attack, owner):
            blunt.append(attack.where)
    assert set(blunt) == BLUNT


def test_no_spelling_and_no_other_type_finds_it_either(border: Border) -> None:
    for type_name, key in border.victims.items():
        ids = [border.absent[type_name], *spellings(key)]
        numbers = range(len(ids))
        query = (
            f"query({' '.join(f'$id{number}: ID!' for number in numbers)}) "
            f"{{ {' '.join(f'n{number}: node(id: $id{number}) {{ __typename id }}' for number in numbers)} }}"
        )
        for asked in node_types(schema_of(border.attacker)):
            answer = border.attacker(query, **{f"id{number}": f"{asked}:{ids[number]}" for number in numbers})
            found = [
                str(
                    (
                        answer.body["data"][f"n{number}"],
                        [
                            (error["message"], error["extensions"])
                            for error in answer.body.get("errors", ())
                            if error["path"] == [f"n{number}"]
                        ],
                    )
                ).replace(repr(f"{asked}:{ids[number]}"), "ID")
                for number in numbers
            ]
            assert dict.fromkeys(found) == {found[0]: None}, (asked, type_name)


def test_lists_and_their_cursors_show_ones_own_alone(border: Border, administrator: Caller) -> None:
    victim = administrator.of("victim", Role.ADMINISTRATOR, "another")
    schema = schema_of(border.attacker)
    for name, field in lists(schema).items():
        chosen = selection(schema, field.type, 5)
        theirs = victim(f"{{ {name}(first: 1) {{ pageInfo {{ startCursor }} }} }}").body
        cursor = (
            theirs["data"][name]["pageInfo"]["startCursor"] if theirs.get("data") and theirs["data"][name] else None
        )
        for arguments in (
            "first: 5",
            "last: 5",
            *([f'first: 5, after: "{cursor}"', f'last: 5, before: "{cursor}"'] if cursor else []),
        ):
            answer = border.attacker(f"{{ {name}({arguments}) {chosen} }}")
            shown = str(answer.body)
            assert answer.status == 200
            assert CANARY not in shown, (name, arguments)
            for key in border.victims.values():
                assert f"'id': '{key}'" not in shown, (name, arguments)


def test_beside_ones_own_object_a_foreign_one_is_absent_all_the_same(border: Border) -> None:
    foreign, absent = (
        border.attacker(
            f"{{ own: webhookReceiver(id: {border.own_receiver}) {{ id name }} "
            f"theirs: webhookReceiver(id: {one}) {{ id name subscriptions {{ id }} }} }}"
        )
        for one in (border.victims["WebhookReceiver"], border.absent["WebhookReceiver"])
    )
    assert foreign.body["data"] == {"own": {"id": border.own_receiver, "name": "own"}, "theirs": None}
    assert foreign.body == absent.body


def test_an_etag_of_another_organisations_object_opens_nothing(border: Border) -> None:
    for etag in (*border.etags.values(), "0" * 32):
        answer = border.attacker(
            f'mutation {{ deleteWebhookReceiver(id: {border.own_receiver}, etag: "{etag}") {{ id }} }}'
        )
        assert answer.refusal == ("CONFLICT", "etag")


@pytest.fixture
def unguarded(
    border: Border, module_database: DatabaseAddress, sealer: Sealer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Border]:
    """The same border at a server whose own check is gone: it takes the attacker for a client of the victim's.

    Only the database still knows who asks: each transaction names the attacker's organisation.
    """
    ((victim,),) = border.attacker.rows("SELECT id FROM clarion.organisations WHERE name = 'victim'")
    ((attacker,),) = border.attacker.rows("SELECT id FROM clarion.organisations WHERE name = 'attacker'")
    authenticate, begin = gate.principal_of_key, session.Session.__init__

    async def mistaken(*arguments: Any) -> Any:
        principal = await authenticate(*arguments)
        return None if principal is None else dataclasses.replace(principal, organisation_id=victim)

    def begun(self: session.Session, *arguments: Any, **named: Any) -> None:
        begin(self, *arguments, **named)
        self._settings["clarion.organisation_id"] = str(attacker)

    monkeypatch.setattr(gate, "principal_of_key", mistaken)
    monkeypatch.setattr(session.Session, "__init__", begun)
    with served(module_database, sealer, settings=UNLIMITED) as port:
        yield dataclasses.replace(border, attacker=dataclasses.replace(border.attacker, port=port))


def test_with_the_applications_check_gone_row_level_security_still_holds(unguarded: Border) -> None:
    schema = schema_of(unguarded.attacker)
    # The check is gone: the server itself says that its client is the victim's.
    before = unguarded.attacker.rows("SELECT count(*), max(updated) FROM clarion.receivers")
    assert differences(unguarded, list(attacks(schema, unguarded.etags["receiver"]))) == []
    for name, field in lists(schema).items():
        assert CANARY not in str(unguarded.attacker(f"{{ {name} {selection(schema, field.type, 5)} }}").body)
    assert unguarded.attacker.rows("SELECT count(*), max(updated) FROM clarion.receivers") == before
