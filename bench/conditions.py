"""What do conditions, templates and chosen fields cost a change?

    .venv/bin/python bench/conditions.py [--changes 2000] [--runs 7] [--json]

UPDATEs of a row of ten columns, each change another; CPU time of this process. Evaluation is all that the router does for
them: the rows are read and the expressions of all subscriptions asked. A condition has three terms,
all of which are looked at, and holds for one change in fifty. Most conditions can be ruled out by a glance at the row; those
measured first cannot.
The floor and the goal are for 50 distinct ones. Many are also asked each alone, in turn with together.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TypeVar

from figures import Figure, Figures, options

from clarion.core.ids import STANDARD_BODY
from clarion.delivery.body import body_of
from clarion.delivery.event import Event
from clarion.ledger.change import Captured, Change
from clarion.routing import together
from clarion.routing.evaluation import Evaluator
from clarion.routing.match import Subscription

_T = TypeVar("_T")
AT = datetime(2026, 11, 26, tzinfo=UTC)
TEMPLATE = (
    '{"text": "Part " + object.number + " is " + object.status, "cost": object.cost, '
    '"done": object.status == "done", "link": "https://erp.example/parts/" + objectId}'
)
FIELDS = json.dumps(["number", "status", "cost"])


def rows(number: int) -> tuple[str, str]:
    """The old and the new row of a change."""
    row = {
        "id": number,
        "number": f"PN-{number}",
        "title": "Bracket, left",
        "status": "in_progress",
        "quantity": number % 50,
        "cost": 12.5,
        "due": "2026-11-26T10:00:00+00:00",
        "done": False,
        "place": 7,
        "spec": {"length": 12.5, "finish": ["anodised", "black"], "checks": 3},
    }
    return json.dumps(row), json.dumps(row | {"status": "done", "quantity": number % 50 + 1})


def changes(count: int) -> list[Captured]:
    made = []
    for number in range(count):
        old, new = rows(number)
        made.append(
            Captured(number, 1, None, "PARTS", "u", str(number), 1, 1, None, None, "7", "Ada", None, old=old, new=new)
        )
    return made


def condition(place: int) -> str:
    """Three terms, of which the last decides; it holds for one change in fifty, and no glance at the row rules it out."""
    return f'object.status == "done" && object.cost > 1.5 && oldObject.quantity + 0 == {place}'


def plain_condition(place: int) -> str:
    """The same as most would write it: a glance at the row rules it out, for 49 changes in fifty."""
    return f'object.status == "done" && object.cost > 1.5 && oldObject.quantity == {place}'


def subscriptions(conditions: Sequence[str | None], template: str | None = None) -> list[Subscription]:
    return [
        Subscription(number, 1, number, "PARTS", "UPDATE", asked, None, template)
        for number, asked in enumerate(conditions, start=1)
    ]


CASES = {
    "1 condition": subscriptions([condition(0)]),
    "4 distinct conditions": subscriptions([condition(place) for place in range(4)]),
    "10 distinct conditions": subscriptions([condition(place) for place in range(10)]),
    "50 distinct conditions": subscriptions([condition(place) for place in range(50)]),
    "50 that a glance rules out": subscriptions([plain_condition(place) for place in range(50)]),
    "1,000 that a glance rules out": subscriptions([plain_condition(place) for place in range(1000)]),
    "50 equal conditions": subscriptions([condition(0)] * 50),
    "50 distinct conditions, one fails": subscriptions(
        [*(condition(place) for place in range(49)), 'object.absent == 1 && object.status == "done"']
    ),
    "1,000 distinct conditions": subscriptions([condition(place) for place in range(1000)]),
    "1 condition with `changed`": subscriptions(
        ['"status" in changed && object.status == "done" && object.cost > 1.5']
    ),
    "1 template of four fields": subscriptions([None], TEMPLATE),
}
ALONE = ("10 distinct conditions", "50 distinct conditions", "1,000 distinct conditions")
WARM_UP = 100
"""Changes until all is compiled."""
LIMITS = {"50 distinct conditions": (250.0, 110.0)}


def evaluation_us(asked: Sequence[Subscription], made: Sequence[Captured]) -> float:
    evaluator = Evaluator(time.monotonic_ns, time.thread_time_ns)
    for row in made[:WARM_UP]:
        evaluator.evaluate(row, asked)
    return per_change_us(lambda row: evaluator.evaluate(row, asked), made)


def alone_us(asked: Sequence[Subscription], made: Sequence[Captured]) -> float:
    """As `evaluation_us`, with no conditions asked together."""
    usual, together.TOGETHER_MIN = together.TOGETHER_MIN, len(asked) + 1
    try:
        return evaluation_us(asked, made)
    finally:
        together.TOGETHER_MIN = usual


def per_change_us(do: Callable[[_T], object], made: Sequence[_T]) -> float:
    before = time.process_time()
    for one in made:
        do(one)
    return (time.process_time() - before) / len(made) * 1e6


def events(made: Sequence[Captured], fields: str | None, run: int) -> list[Event]:
    """Events of changes whose bodies were never made before."""
    return [
        Event(
            queue_id=row.outbox_id,
            event_id=row.outbox_id,
            round=0,
            organisation_id=1,
            receiver_id=1,
            subscription_id=1,
            sequence=1,
            lane=1,
            change=Change(
                row.outbox_id,
                run,
                row.resource,
                row.action,
                row.object_id,
                AT,
                AT,
                row.actor_id,
                row.actor_name,
                None,
                row.old,
                row.new,
            ),
            body_sha256=None,
            render_version=STANDARD_BODY,
            fields=fields,
            body=None,
        )
        for row in made
    ]


def _figures(name: str) -> list[Figure]:
    beside = [Figure(f"  {name}, each alone", "us/change"), Figure(f"  {name}, alone / together", "times")]
    return [Figure(name, "us/change", *LIMITS.get(name, ())), *(beside if name in ALONE else ())]


def main() -> None:
    parser = options(__doc__, runs=7)
    parser.add_argument("--changes", type=int, default=2000)
    given = parser.parse_args()
    made = changes(given.changes)
    bodies = {"standard body": None, "standard body with three fields of ten": FIELDS}
    figures = Figures(
        *(figure for name in CASES for figure in _figures(name)), *(Figure(name, "us/body") for name in bodies)
    )
    for run in range(given.runs):
        for name, asked in CASES.items():
            # The more conditions, the fewer changes.
            some = made[: len(made) // (1 + len(asked) // 100)]
            figures[name].add(evaluation_us(asked, some))
            if name in ALONE:
                figures[f"  {name}, each alone"].add(alone_us(asked, some))
                figures[f"  {name}, alone / together"].add(
                    figures[f"  {name}, each alone"].runs[-1] / figures[name].runs[-1]
                )
        for name, fields in bodies.items():
            figures[name].add(per_change_us(body_of, events(made, fields, run)))
    figures.show(as_json=given.json, notes=[f"{given.changes} changes a run"])


if __name__ == "__main__":
    main()
