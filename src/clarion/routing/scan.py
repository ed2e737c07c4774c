"""What of the outbox a look need not walk through. Pure.

Ids are drawn in the order of commits only per object, so each look begins at the lowest id that may still appear. Two
things would make such looks long: dead rows that vacuum may not remove yet, and the rows of a large transaction that is
not committed. `ScanFloor` knows below which id everything is decided, `HiddenRows` what lies above it and cannot be seen.
"""

from __future__ import annotations

_LOOKS_UNTIL_SETTLED = 3


class HiddenRows:
    """Ids up to `upto`, in which nothing becomes visible as long as all of the transactions `owners` run.

    A row that a look did not find, with an id drawn before, is of a transaction that ran in the look's snapshot. Most of
    those end soon; a range is used when it belongs to the few that do not. While they run, looks begin above it.
    """

    def __init__(self) -> None:
        self.decided = 0
        """Ids up to here are decided: the owners of a range have ended, and what is left of it can be seen."""
        self.upto = 0
        self.owners: frozenset[int] = frozenset()
        self._next_upto = 0
        self._next_owners: frozenset[int] = frozenset()
        self._looks_count = 0
        self._sequence_before: int | None = None

    def looked(self, running: frozenset[int], sequence_last: int, *, began_above: bool, complete: bool) -> None:
        """A look was made in whose snapshot these transactions ran.

        `sequence_last` is the last id drawn, read during the look. `began_above`: it began above the range. `complete`: it
        found all rows that it could see from there, and all of them are routed.
        """
        before, self._sequence_before = self._sequence_before, sequence_last
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
        if self._next_owners and self._looks_count < _LOOKS_UNTIL_SETTLED:
            return
        if self._next_owners:
            self.upto, self.owners = self._next_upto, self._next_owners
        # As drawn before this look's snapshot: whoever drew it was in this look's snapshot, or had ended.
        self._next_upto, self._next_owners, self._looks_count = before or 0, running, 0


class ScanFloor:
    """The id below which every outbox row is decided: taken, or its transaction over.

    Keeps the scan short while an old snapshot holds vacuum back. A reading of the sequence counts once every
    transaction that ran at that moment has ended and one more look has found nothing below it.
    """

    def __init__(self, floor: int = 0) -> None:
        """`floor` is an id below which every row is known to be decided."""
        self.floor = floor
        self._reading: int | None = None
        self._reading_xid: int | None = None

    def decided(self, upto: int, lowest_waiting: int | None) -> None:
        """A look above the floor found `lowest_waiting` first, when every row up to `upto` was decided."""
        self.floor = max(self.floor, upto if lowest_waiting is None else min(upto, lowest_waiting - 1))

    def read(self, sequence_last: int) -> None:
        """Note the sequence's last value, as read before the batch statement whose xid `wrote` will give."""
        if self._reading is None:
            self._reading = sequence_last

    def wrote(self, xid: int) -> None:
        """The batch statement's transaction: whoever drew an id up to the reading has a lower xid."""
        if self._reading is not None and self._reading_xid is None:
            self._reading_xid = xid

    def looked(self, snapshot_xmin: int, lowest_waiting: int | None) -> None:
        """A look above the floor in a snapshot with this xmin found `lowest_waiting` first."""
        if self._reading is None or self._reading_xid is None or snapshot_xmin <= self._reading_xid:
            return
        reached = self._reading if lowest_waiting is None else min(self._reading, lowest_waiting - 1)
        self.floor = max(self.floor, reached)
        self._reading = self._reading_xid = None
