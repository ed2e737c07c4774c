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
    floor.reading.wrote(50)
    floor.looked(snapshot_xmin=50, lowest_waiting=None)
    assert floor.floor == 0, "transaction 50 itself, or an older one, may still be running"
    floor.looked(snapshot_xmin=51, lowest_waiting=None)
    assert floor.floor == 100


def test_the_scan_floor_never_passes_a_row_that_still_waits() -> None:
    floor = ScanFloor()
    floor.read(100)
    floor.reading.wrote(50)
    floor.looked(snapshot_xmin=60, lowest_waiting=42)
    assert floor.floor == 41


@dataclass
class Outbox:
    """Transactions that draw ids and end when they like. `hidden`: ids of rows by the transaction that wrote them.

    As in PostgreSQL, a snapshot lists those that run of the transactions with numbers up to the last one that has ended.
    """

    last_id: int = 0
    last_xid: int = 0
    last_ended: int = 0
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
            ending = running[which % len(running)]
            written = self.hidden.pop(ending)
            self.last_ended = max(self.last_ended, ending)
            self.visible.update(written if what == "commit" else ())

    def number(self) -> int:
        """Of a transaction that does nothing else."""
        self.last_xid += 1
        self.last_ended = self.last_xid
        return self.last_xid

    @property
    def xmax(self) -> int:
        return self.last_ended + 1

    @property
    def listed(self) -> frozenset[int]:
        return frozenset(xid for xid in self.hidden if xid < self.xmax)


steps = st.tuples(st.sampled_from(("begin", "write", "write", "write", "commit", "abort")), st.integers(0, 7))


@settings(max_examples=500)
@given(
    st.lists(
        st.tuples(st.lists(steps, max_size=8), st.lists(steps, max_size=4), st.sampled_from((1, 3, 50)), st.booleans()),
        max_size=40,
    ),
    st.booleans(),
)
def test_a_look_above_the_hidden_rows_finds_all_that_can_be_seen(
    looks: list[tuple[list[tuple[str, int]], list[tuple[str, int]], int, bool]], one_large: bool
) -> None:
    outbox, hidden, floor = Outbox(), HiddenRows(), ScanFloor()
    if one_large:  # a transaction that never ends
        outbox.do(("begin", 0))
        outbox.do(("write", 0))
    for before, during, limit, writes in looks:
        for step in before:
            if not (one_large and step[0] in {"commit", "abort"} and step[1] % max(1, len(outbox.hidden)) == 0):
                outbox.do(step)
        snapshot, listed, xmax = sorted(outbox.visible), outbox.listed, outbox.xmax
        xmin = min(listed, default=xmax)
        began_above = bool(hidden.owners) and hidden.owners <= outbox.hidden.keys()
        event(f"began above: {began_above}")
        found = [row for row in snapshot if row > (hidden.upto if began_above else floor.floor)][:limit]
        assert found == snapshot[:limit]
        for step in during:  # between the snapshot and the reading of the sequence
            if step[0] in {"begin", "write"}:
                outbox.do(step)
        sequence_last = outbox.last_id
        if not began_above:
            floor.looked(xmin, found[0] if found else None)
        floor.read(sequence_last)
        xid = outbox.number() if found or writes else None
        hidden.looked(listed, xmax, sequence_last, began_above=began_above, complete=len(found) < limit)
        if xid is not None:
            floor.reading.wrote(xid)
            hidden.reading.wrote(xid)
        floor.decided(hidden.decided, snapshot[0] if snapshot else None)
        assert not [row for rows in outbox.hidden.values() for row in rows if row <= max(hidden.decided, floor.floor)]
        outbox.visible.difference_update(found)


def test_looks_pass_over_what_a_large_transaction_wrote_soon_after_it_wrote_it() -> None:
    hidden = HiddenRows()
    for look in range(1, 50):
        # One large transaction, 100 rows between two looks, and each time another small one, and a batch.
        running = frozenset({7, 100 + 2 * look})
        began_above = bool(hidden.owners) and hidden.owners <= running
        hidden.looked(running, 101 + 2 * look, 100 * look, began_above=began_above, complete=True)
        hidden.reading.wrote(101 + 2 * look)
        if look > 10:
            assert began_above
            assert 100 * look - hidden.upto <= 1000


def learned(hidden: HiddenRows, running: set[int], sequence_last: int, xid: int, looks_count: int = 10) -> None:
    """So many looks in which the same transactions run, each with a number had after it; the last is `xid`."""
    for number in range(xid - looks_count + 1, xid + 1):
        began_above = bool(hidden.owners) and hidden.owners <= running
        hidden.looked(frozenset(running), number, sequence_last, began_above=began_above, complete=True)
        hidden.reading.wrote(number)


def test_who_draws_an_id_while_a_look_is_under_way_is_not_passed_over() -> None:
    """It did not run in that look's snapshot, though its id is not above the sequence as that look read it."""
    large, late = 7, 50
    for looks_before in range(10):
        hidden = HiddenRows()
        learned(hidden, {large}, 10, 40, looks_before)
        hidden.looked(
            frozenset({large}), 41, 11, began_above=bool(hidden.owners), complete=True
        )  # 11 is drawn by `late`
        for number in range(60, 70):
            hidden.reading.wrote(number)
            hidden.looked(frozenset({large, late}), number + 1, 11, began_above=bool(hidden.owners), complete=True)
            assert hidden.upto < 11 or late in hidden.owners
        assert hidden.upto >= 10


def test_who_began_last_is_not_passed_over_though_no_snapshot_lists_it() -> None:
    """No transaction with a higher number has ended yet."""
    hidden = HiddenRows()
    learned(hidden, {7}, 10, 40)
    assert (hidden.upto, hidden.owners) == (10, {7})
    for _ in range(10):
        # 41 has drawn 11.
        hidden.looked(frozenset({7}), 41, 11, began_above=True, complete=True)
    assert (hidden.upto, hidden.owners) == (10, {7})
    assert hidden.reading.lacks_number


def test_when_the_large_transaction_has_ended_what_it_wrote_is_decided() -> None:
    hidden, floor = HiddenRows(), ScanFloor()
    learned(hidden, {7}, 900, 40)
    assert hidden.decided == 0
    reached = hidden.upto
    hidden.looked(frozenset({41}), 42, 1000, began_above=False, complete=False)
    assert hidden.decided == reached == 900
    floor.decided(hidden.decided, lowest_waiting=5)
    assert floor.floor == 4
    floor.decided(hidden.decided, lowest_waiting=None)
    assert floor.floor == reached


def test_what_is_decided_needs_no_number() -> None:
    hidden, floor = HiddenRows(), ScanFloor(10)
    floor.read(10)
    learned(hidden, {7}, 10, 40)
    hidden.looked(frozenset({7}), 41, 10, began_above=True, complete=True)
    assert not floor.reading.lacks_number
    assert not hidden.reading.lacks_number
