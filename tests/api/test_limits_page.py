from __future__ import annotations

from pathlib import Path

from clarion.api import connections, cost, deadline, documents, gate, idempotency, limits, operations, rate, session
from clarion.api.server import _UNKNOWN_KEYS
from clarion.core.settings import Settings
from clarion.database.maintenance import ANSWERS_KEPT
from clarion.records import changes, event_list

PAGE = " ".join((Path(__file__).parents[2] / "docs/reference/limits.md").read_text().split())


def test_the_page_has_the_figures_that_hold() -> None:
    settings = Settings()
    assert ANSWERS_KEPT.total_seconds() == 86_400
    assert rate.ORGANISATION_SHARE == 5
    assert gate.IDEMPOTENCY_KEY in PAGE
    for sentence in (
        f"headers | {connections.HEAD_BYTES_MAX // 1024} KiB, {connections.HEADERS_MAX} headers,",
        f"headers, within {connections.HEAD_SECONDS_MAX} s |",
        f"| time to send the body | {gate.BODY_SECONDS_MAX} s |",
        f"| body | {operations.BODY_BYTES_MAX // 1024} KiB",
        f"| operations of an array | {operations.OPERATIONS_MAX},",
        f"| time to work | {deadline.REQUEST_S_MAX:g} s |",
        f"does not count, up to {deadline.WAITED_S_MAX:g} s",
        f"| one statement of the database | {session.STATEMENT_TIMEOUT_MS // 1000} s |",
        f"with what it shows | {session.STATEMENTS_MAX} |",
        f"| tokens | {limits.TOKENS_MAX:,} |",
        f"of introspection | {limits.DEPTH_MAX}; {limits.INTROSPECTION_DEPTH_MAX} |",
        f"| aliases of an operation | {limits.ALIASES_MAX} |",
        f"| root fields of an operation | {limits.ROOT_FIELDS_MAX} |",
        f"| fields of an operation | {limits.FIELDS_MAX:,} |",
        f"| directives in one place | {limits.DIRECTIVES_MAX} |",
        f"| operations; fragments | {limits.OPERATIONS_MAX}; {limits.FRAGMENTS_MAX} |",
        f"the first {documents.ERRORS_MAX} are told",
        f"of up to {documents.GUESSED_TOKENS_MAX} tokens",
        f"**nodes**, at most {cost.NODES_MAX:,} for a request",
        f"counts {cost.ROOT_LIST} at the root and {cost.NESTED_LIST} below",
        f"values of all fields, {cost.VALUES_MAX:,} at most",
        f"every {operations.NODES_OF_POINT} nodes or, if that is more, every {operations.VALUES_OF_POINT} values",
        f"| a mutation | {operations.POINTS_OF_MUTATION} for each",
        f"at least 1 for every {operations.TOKENS_OF_POINT} of its tokens, or every {operations.CHARACTERS_OF_POINT} characters",
        f"has {settings.api_points_burst:,} points and gets {settings.api_points_per_second:,} back",
        f"more than {_UNKNOWN_KEYS.burst} unknown API keys came, and {_UNKNOWN_KEYS.points_per_second} more each second",
        f"may not read all resources | {changes.INDEXED_MAX:,} |",
        f"`changeId` and `recordedAt` | {changes.SEARCHED_MAX:,} |",
        f"| {event_list.CHANGES_SEARCHED_MAX:,} changes, {event_list.CHANGES_OF_OBJECTS_MAX} of them with events |",
        f"more than {event_list.SUBSCRIPTIONS_MAX} subscriptions' | {event_list.SEARCHED_MAX:,} settled",
        f"{event_list.OPEN_SEARCHED_MAX:,} open |",
        f"1 to {idempotency.KEY_LENGTH_MAX} printable ASCII",
        f"the second waits {idempotency.WAIT_S:g} s at most",
        f"more than {idempotency.ANSWER_BYTES_MAX // 1024} KiB",
    ):
        assert sentence in PAGE, sentence
