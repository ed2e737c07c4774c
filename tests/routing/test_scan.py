"""A look that does not walk through everything finds what one would find that does."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import event, given, settings
from hypothesis import strategies as st

from clarion.routing.scan import HiddenRows, ScanFloor


def test_the_scan_floor_waits_for_every_transaction_that_may_hold_a_lower_id() -> None:
    floor = ScanFloor()
    floor.looked(snapshot_xmin=5, lowest_waiting=1)
    floor.read(100)
    floor.wrote(xid=50)
    floor.looked(snapshot_xmin=50, lowest_waiting=None)
    assert floor.floor == 0, "transaction 50 itself, or an older one, may still be running"
    floor.looked(snapshot_xmin=51, lowest_waiting=None)
    assert floor.floor == 100


def test_the_scan_floor_never_passes_a_row_that_still_waits() -> None:
    floor = ScanFloor()
    floor.read(100)
    floor.wrote(xid=50)
    floor.looked(snapshot_xmin=60, lowest_waiting=42)
    assert floor.floor == 41


@dataclass
class Outbox:
    """Transactions that draw ids and end when they like. `hidden`: ids of rows by the transaction that wrote them."""

    last_id: int = 0
    last_xid: int = 0
    hidden: dict[int, list[int]] = field(default_factory=dict)
    visible: set[int] = field(default_factory=set)

    def do(self, step: tuple[str, int]) -> None:
        what, which = step
        running = sorted(self.hidden)
        if what == "begin":
            self.last_xid += 1
            self.hidden[self.last_xid] = []
        elif what == "write" and running:
            self.last_id += 1
            self.hidden[running[which % len(running)]].append(self.last_id)
        elif what in {"commit", "abort"} and running:
            written = self.hidden.pop(running[which % len(running)])
            self.visible.update(written if what == "commit" else ())


steps = st.tuples(st.sampled_from(("begin", "write", "write", "write", "commit", "abort")), st.integers(0, 7))


@settings(max_examples=500, deadline=None)
@given(
    st.lists(
        st.tuples(st.lists(steps, max_size=8), st.lists(steps, max_size=4), st.sampled_from((1, 3, 50))), max_size=40
    ),
    st.booleans(),
)
def test_a_look_above_the_hidden_rows_finds_all_that_can_be_seen(
    looks: list[tuple[list[tuple[str, int]], list[tuple[str, int]], int]], one_large: bool
) -> None:
    outbox, hidden = Outbox(), HiddenRows()
    if one_large:  # a transaction that never ends
        outbox.do(("begin", 0))
        outbox.do(("write", 0))
    for before, during, limit in looks:
        for step in before:
            if not (one_large and step[0] in {"commit", "abort"} and step[1] % max(1, len(outbox.hidden)) == 0):
                outbox.do(step)
        snapshot, running = sorted(outbox.visible), frozenset(outbox.hidden)
        began_above = bool(hidden.owners) and hidden.owners <= running
        event(f"began above: {began_above}")
        found = [row for row in snapshot if row > (hidden.upto if began_above else 0)][:limit]
        assert found == snapshot[:limit]
        for step in during:  # between the snapshot and the reading of the sequence
            if step[0] in {"begin", "write"}:
                outbox.do(step)
        hidden.looked(running, outbox.last_id, began_above=began_above, complete=len(found) < limit)
        assert not [row for rows in outbox.hidden.values() for row in rows if row <= hidden.decided]
        outbox.visible.difference_update(found)


def test_looks_pass_over_what_a_large_transaction_wrote_soon_after_it_wrote_it() -> None:
    hidden = HiddenRows()
    for look in range(1, 50):
        # One large transaction, 100 rows between two looks, and each time another small one.
        running = frozenset({7, 100 + look})
        began_above = bool(hidden.owners) and hidden.owners <= running
        hidden.looked(running, 100 * look, began_above=began_above, complete=True)
        if look > 10:
            assert began_above
            assert 100 * look - hidden.upto <= 1000


def test_who_draws_an_id_while_a_look_is_under_way_is_not_passed_over() -> None:
    """It did not run in that look's snapshot, though its id is not above the sequence as that look read it."""
    large, late = 7, 8
    for looks_before in range(10):
        hidden = HiddenRows()
        for _ in range(looks_before):
            hidden.looked(frozenset({large}), 10, began_above=bool(hidden.owners), complete=True)
        hidden.looked(frozenset({large}), 11, began_above=bool(hidden.owners), complete=True)  # 11 is drawn by `late`
        for _ in range(10):
            hidden.looked(frozenset({large, late}), 11, began_above=bool(hidden.owners), complete=True)
            assert hidden.upto < 11 or late in hidden.owners
        assert hidden.upto >= 10


def test_when_the_large_transaction_has_ended_what_it_wrote_is_decided() -> None:
    hidden, floor = HiddenRows(), ScanFloor()
    for look in range(10):
        hidden.looked(frozenset({7}), 100 * look, began_above=bool(hidden.owners), complete=True)
    assert hidden.decided == 0
    reached = hidden.upto
    hidden.looked(frozenset({9}), 1000, began_above=False, complete=False)
    assert hidden.decided == reached > 0
    floor.decided(hidden.decided, lowest_waiting=5)
    assert floor.floor == 4
    floor.decided(hidden.decided, lowest_waiting=None)
    assert floor.floor == reached
