"""What of the outbox a look need not walk through. Pure.

Ids are drawn in the order of commits only per object, so each look begins at the lowest id that may still appear. Two
things would make such looks long: dead rows that vacuum may not remove yet, and the rows of a large transaction that is
not committed. `ScanFloor` knows below which id everything is decided, `HiddenRows` what lies above it and cannot be seen.

Both begin with a reading of the sequence. A snapshot lists the transactions that run and have a number below its xmax; one that began last
may run without being listed. Hence the number that is had after the reading: every transaction that drew an id up to there has a
lower one, so a snapshot with an xmax above that number lists all of them that run.
"""

from __future__ import annotations

_LOOKS_UNTIL_SETTLED = 3


class Reading:
    """The last id drawn at some moment, and a transaction's number that was given out after it."""

    def __init__(self) -> None:
        self.last: int | None = None
        self.xid: int | None = None

    def read(self, sequence_last: int) -> None:
        """The sequence was read; an earlier reading that is in use stays."""
        if self.last is None:
            self.last = sequence_last

    def wrote(self, xid: int) -> None:
        """A transaction of ours has this number, had after the last reading, and has ended."""
        if self.last is not None and self.xid is None:
            self.xid = xid

    @property
    def lacks_number(self) -> bool:
        """Whether it is of no use before the next `wrote`."""
        return self.last is not None and self.xid is None

    def before(self, xid: int) -> int | None:
        """The last id if all who drew one up to it have numbers below `xid`."""
        return self.last if self.xid is not None and self.xid < xid else None

    def forget(self) -> None:
        self.last = self.xid = None


class HiddenRows:
    """Ids up to `upto`, in which nothing becomes visible as long as all of the transactions `owners` run.

    A row that a look did not find, with an id that was drawn before, is of a transaction that ran in the look's snapshot. Most of
    those end soon; a range is used when it belongs to the few that do not. While they run, looks begin above it.
    """

    def __init__(self) -> None:
        self.decided = 0
        """Ids up to here are decided: the owners of a range have ended, and what is left of it can be seen."""
        self.upto = 0
        self.owners: frozenset[int] = frozenset()
        self.reading = Reading()
        self._next_upto = 0
        self._next_owners: frozenset[int] = frozenset()
        self._looks_count = 0

    def looked(
        self, running: frozenset[int], snapshot_xmax: int, sequence_last: int, *, began_above: bool, complete: bool
    ) -> None:
        """A look was made in whose snapshot these transactions ran, of those with a number below the snapshot's xmax.

        `sequence_last` is the last id drawn, read during the look. `began_above`: it began above the range. `complete`: it
        found all rows that it could see from there, and all of them are routed.
        """
        if self.owners and not self.owners & running:
            self.decided = max(self.decided, self.upto)
        if not complete:
            self.upto = self._next_upto = 0
            self.owners = self._next_owners = frozenset()
            return
        if not began_above:
            self.owners &= running
        self._next_owners &= running
        self._looks_count += 1
        if self._next_owners:
            if self._looks_count < _LOOKS_UNTIL_SETTLED:
                return
            self.upto, self.owners = self._next_upto, self._next_owners
            self._next_owners = frozenset()
        if (drawn := self.reading.before(snapshot_xmax)) is not None:
            self._next_upto, self._next_owners, self._looks_count = drawn, running, 0
            self.reading.forget()
        if sequence_last > self.upto:
            self.reading.read(sequence_last)


class ScanFloor:
    """The id below which every outbox row is decided: taken, or its transaction over.

    Keeps the scan short while an old snapshot holds vacuum back. A reading of the sequence counts once every
    transaction that ran at that moment has ended and one more look has found nothing below it.
    """

    def __init__(self, floor: int = 0) -> None:
        """`floor` is an id below which every row is known to be decided."""
        self.floor = floor
        self.reading = Reading()

    def decided(self, upto: int, lowest_waiting: int | None) -> None:
        """A look above the floor found `lowest_waiting` first, when every row up to `upto` was decided."""
        self.floor = max(self.floor, upto if lowest_waiting is None else min(upto, lowest_waiting - 1))

    def read(self, sequence_last: int) -> None:
        """Note the sequence's last value, as read before the statement whose number `reading` will be told."""
        if sequence_last > self.floor:
            self.reading.read(sequence_last)

    def looked(self, snapshot_xmin: int, lowest_waiting: int | None) -> None:
        """A look above the floor in a snapshot with this xmin found `lowest_waiting` first."""
        if (drawn := self.reading.before(snapshot_xmin)) is None:
            return
        self.decided(drawn, lowest_waiting)
        self.reading.forget()
