"""The hash chain, recomputed here from its written definition with nothing but hashlib."""

from __future__ import annotations

import hashlib
import json
import struct
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from clarion.ledger.chain import GENESIS, link, payload_digest, since_1970_us

text = st.text(st.characters(codec="utf-8"), max_size=30)
absent_or_text = st.none() | text


@given(
    text,
    st.integers(1, 2**60),
    st.datetimes(datetime(1990, 1, 1), datetime(2100, 1, 1)),  # noqa: DTZ001 - bounds, in any zone
    text,
    text,
)
def test_link_is_the_documented_hash_of_length_prefixed_metadata(
    resource: str, change_id: int, at: datetime, object_id: str, old: str
) -> None:
    recorded_at = at.replace(tzinfo=UTC)
    payload = payload_digest(b"s" * 16, old, None, None, None, None)
    microseconds = round((recorded_at - datetime(1970, 1, 1, tzinfo=UTC)).total_seconds() * 10**6)
    parts = ["7", str(change_id), str(microseconds), resource, "u", object_id]
    metadata = b"".join(struct.pack(">I", len(part.encode())) + part.encode() for part in parts)
    expected = hashlib.sha256(GENESIS + metadata + hashlib.sha256(b"s" * 16 + old.encode()).digest()).digest()
    assert link(GENESIS, 7, change_id, since_1970_us(recorded_at), resource, "u", object_id, payload) == expected


@given(absent_or_text, absent_or_text, absent_or_text)
def test_actor_and_correlation_count_only_when_there_are_some(
    actor_id: str | None, actor_name: str | None, correlation_id: str | None
) -> None:
    digest = payload_digest(b"s" * 16, "{}", "{}", actor_id, actor_name, correlation_id)
    context = [actor_id, actor_name, correlation_id]
    tail = b"" if context == [None] * 3 else json.dumps(context, ensure_ascii=False, separators=(",", ":")).encode()
    rewritten = [None if part is None else json.loads(json.dumps(part)) for part in context]
    assert rewritten == context
    if all(part is None or part.isprintable() for part in context):
        assert digest == hashlib.sha256(b"s" * 16 + b"{}{}" + tail).digest()


@given(st.lists(st.tuples(text, text), min_size=2, max_size=6), st.data())
def test_any_altered_change_alters_every_later_link(changes: list[tuple[str, str]], data: st.DataObject) -> None:
    def chained(rows: list[tuple[str, str]]) -> list[bytes]:
        links, previous = [], GENESIS
        for number, (object_id, new) in enumerate(rows, 1):
            payload = payload_digest(b"s" * 16, None, new, None, None, None)
            previous = link(
                previous, 1, number, since_1970_us(datetime(2026, 1, 1, tzinfo=UTC)), "RUNS", "c", object_id, payload
            )
            links.append(previous)
        return links

    altered_at = data.draw(st.integers(0, len(changes) - 1))
    altered = list(changes)
    altered[altered_at] = (changes[altered_at][0] + "x", changes[altered_at][1])
    before, after = chained(changes), chained(altered)
    assert before[:altered_at] == after[:altered_at]
    assert all(one != other for one, other in zip(before[altered_at:], after[altered_at:], strict=True))
