"""Token buckets: exact over any sequence of requests, bounded in memory; and what clients see of them."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clarion.access.principal import Role
from clarion.api.rate import ENTRIES_MAX, ORGANISATION_SHARE, Buckets, Quota, RateLimiter, Strangers
from clarion.core.settings import Settings
from clarion.database.address import DatabaseAddress
from clarion.sender.seal import Sealer
from harness.api import Caller, served

NS = 1_000_000_000
QUOTAS = st.builds(Quota, st.integers(1, 2_000), st.integers(1, 6_000))
REQUESTS = st.lists(st.tuples(st.integers(0, 3 * NS), st.integers(1, 2), st.integers(1, 8_000)), max_size=60)


@given(QUOTAS, REQUESTS)
def test_no_client_ever_gets_more_than_its_burst_and_its_rate(
    quota: Quota, requests: list[tuple[int, int, int]]
) -> None:
    limiter, now_ns = RateLimiter(quota), 0
    granted: dict[int, list[tuple[int, int]]] = {}
    for wait_ns, client, points in requests:
        now_ns += wait_ns
        standing = limiter.charge(client, 1, points, now_ns)
        if standing.retry_after_s is None:
            granted.setdefault(client, []).append((now_ns, min(points, quota.burst)))
        assert 0 <= standing.remaining <= standing.limit == quota.burst
    for who in granted.values():
        for first, (began_ns, _) in enumerate(who):
            for last, (ended_ns, _) in enumerate(who[first:], first):
                taken = sum(points for _, points in who[first : last + 1])
                assert taken * NS <= quota.burst * NS + (ended_ns - began_ns) * quota.points_per_second


@given(QUOTAS, REQUESTS)
def test_an_organisation_has_five_times_what_a_client_has(quota: Quota, requests: list[tuple[int, int, int]]) -> None:
    limiter, taken = RateLimiter(quota), 0
    for client in range(20):
        if limiter.charge(client, 1, quota.burst, 0).retry_after_s is None:
            taken += 1
    assert taken == ORGANISATION_SHARE
    assert limiter.charge(99, 2, quota.burst, 0).retry_after_s is None


@given(QUOTAS, REQUESTS, st.integers(1, 8_000))
def test_who_waits_as_long_as_told_is_let_in_and_not_a_second_earlier(
    quota: Quota, requests: list[tuple[int, int, int]], points: int
) -> None:
    limiter, now_ns = RateLimiter(quota), 0
    for wait_ns, client, others in requests:
        now_ns += wait_ns
        limiter.charge(client, 1, others, now_ns)
    refused = limiter.charge(1, 1, points, now_ns)
    if refused.retry_after_s is None:
        return
    # A refusal takes nothing, so that asking meanwhile does not put the moment off.
    for second in range(1, refused.retry_after_s):
        assert limiter.charge(1, 1, points, now_ns + (second - 1) * NS).retry_after_s is not None
    assert limiter.charge(1, 1, points, now_ns + refused.retry_after_s * NS).retry_after_s is None


@given(st.integers(1, 2_000), st.integers(1, 6_000))
def test_after_the_reset_all_points_are_back(points_per_second: int, burst: int) -> None:
    limiter = RateLimiter(Quota(points_per_second, burst))
    spent = limiter.charge(1, 1, burst, 5)
    assert spent.remaining == 0
    assert limiter.charge(1, 1, burst, 5 + spent.reset_s * NS).remaining == 0


@given(QUOTAS, st.integers(1, 8_000), st.integers(1, 8_000))
def test_what_is_owed_is_paid_before_anything_else_is_had(quota: Quota, owed: int, points: int) -> None:
    limiter = RateLimiter(quota)
    limiter.charge(1, 1, quota.burst, 0)
    told = limiter.owe(1, 1, owed, points, 0)
    assert told.remaining == 0 and told.retry_after_s is not None
    # No more than a burst, so that nobody is kept out for longer than it takes to fill twice.
    missing = min(owed, quota.burst) + min(points, quota.burst)
    assert told.retry_after_s == max(-(-missing // quota.points_per_second), 1)
    assert limiter.charge(1, 1, points, (told.retry_after_s - 1) * NS).retry_after_s == 1
    assert limiter.charge(1, 1, points, told.retry_after_s * NS).retry_after_s is None


def test_a_clock_that_stands_still_gives_nothing_back() -> None:
    limiter = RateLimiter(Quota(1_000, 10))
    assert [limiter.charge(1, 1, 5, 7).retry_after_s for _ in range(3)] == [None, None, 1]


def test_buckets_are_bounded_and_the_one_longest_unused_goes() -> None:
    buckets = Buckets(Quota(1, 10), entries_max=100)
    for name in range(1_000):
        buckets.take(name, 10, 0)
        buckets.take("often", 1, 0)
    assert len(buckets) == 100
    assert buckets.level("often", 0) == 0
    assert buckets.level(0, 0) == 10 * NS
    assert ENTRIES_MAX <= 20_000


def test_an_address_that_guesses_keys_is_not_looked_up_for_but_keys_that_were_good_are() -> None:
    strangers = Strangers(Quota(1, 3), entries_max=10)
    strangers.known(b"good")
    for _ in range(3):
        assert strangers.wait_s("::1", b"guess", 0) == 0
        strangers.unknown("::1", b"guess", 0)
    assert strangers.wait_s("::1", b"guess", 0) == 1
    assert strangers.wait_s("::1", b"good", 0) == 0
    assert strangers.wait_s("::2", b"guess", 0) == 0
    assert strangers.wait_s("::1", b"guess", NS) == 0
    strangers.unknown("::1", b"good", 0)  # revoked meanwhile
    assert strangers.wait_s("::1", b"good", 0) > 0


@pytest.fixture
def tight(administrator: Caller, sealer: Sealer) -> Iterator[Caller]:
    """An API that gives each client one point a second, and forty at once."""
    settings = Settings(api_points_per_second=1, api_points_burst=40)
    with served(administrator.database, sealer, settings=settings) as port:
        yield Caller(port, administrator.key, administrator.database)


def create(number: int) -> str:
    return (
        f'mutation {{ createWebhookReceiver(input: {{name: "r{number}", webhookUri: "https://93.184.216.34/"}}) '
        "{ webhookReceiver { id } } }"
    )


def test_a_mutation_costs_ten_points_and_what_is_refused_does_nothing(tight: Caller) -> None:
    for number in range(4):
        answer = tight(create(number))
        assert "errors" not in answer.body
        assert answer.headers["ratelimit-limit"] == "40"
        assert int(answer.headers["ratelimit-remaining"]) in range(30 - 10 * number, 34 - 10 * number)
    refused = tight(create(4))
    assert (refused.status, refused.refusal[0]) == (200, "RATE_LIMITED")
    wait = refused.error["extensions"]["retryAfterSeconds"]
    assert 1 <= wait <= 10
    assert str(wait) in refused.error["message"]
    assert refused.headers["retry-after"] == str(wait)
    assert tight.rows("SELECT count(*) FROM clarion.receivers") == [(4,)]


def test_what_is_refused_for_want_of_points_is_counted_and_stands_in_the_history_as_one_entry(
    administrator: Caller, sealer: Sealer
) -> None:
    settings = Settings(api_points_per_second=1, api_points_burst=40)
    with served(administrator.database, sealer, settings=settings) as port:
        caller = Caller(port, administrator.key, administrator.database)
        refused = [answer for answer in (caller(create(number)) for number in range(8)) if "errors" in answer.body]
        assert len(refused) >= 3
        caller.post([{"query": create(0)}] * 3)
        published = [caller.send(b"{}", path="/v1/changes") for _ in range(41)]
        counts = {"/graphql": len(refused) + 1, "/v1/changes": sum(one.status == 429 for one in published)}
        assert counts["/v1/changes"] > 0
        assert administrator.rows("SELECT * FROM clarion.history WHERE refusal IS NOT NULL") == []
    # The counts of minutes that are not over are written at the end.
    (entry,) = administrator.rows(
        "SELECT client_name, action, object_type, object_id, from_address, refusal, after FROM clarion.history "
        "WHERE refusal IS NOT NULL"
    )
    total = sum(counts.values())
    assert entry == (
        *("admin", "manyRequests", "Client", "1", "127.0.0.1", "RATE_LIMITED"),
        {"count": total, "codes": {"RATE_LIMITED": total}, "actions": counts},
    )


def test_every_answer_to_a_known_client_says_how_it_stands_and_no_other(tight: Caller) -> None:
    ping = json.dumps({"query": "{ __typename }"}).encode()
    for answer in (tight.send(ping), tight.send(b"{"), tight.send(ping, content_type="text/plain")):
        assert {"ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"} <= set(answer.headers)
        assert "retry-after" not in answer.headers
    assert not any(name.startswith("ratelimit") for name in tight.with_key(None).send(ping).headers)


def test_reading_a_document_that_is_then_refused_is_owed(tight: Caller) -> None:
    """Whoever has no points left does not have documents read for nothing."""
    document = "{ " + "a " * 400 + "}"
    while True:
        refused = tight(document)
        if refused.refusal[0] == "RATE_LIMITED":
            break
    # 402 tokens are 21 points, which are owed: as many again are needed for the next time.
    assert refused.error["extensions"]["retryAfterSeconds"] > 21
    # A second of that passed at most; to be refused for it costs no more.
    again = tight("{ __typename }").error["extensions"]["retryAfterSeconds"]
    assert refused.error["extensions"]["retryAfterSeconds"] - 21 <= again <= 22


def test_a_document_costs_by_its_length_too(tight: Caller) -> None:
    """Few tokens can be long ones, which take as long to read."""
    answer = tight("{ __typename } #" + "x" * 12_800)
    assert int(answer.headers["ratelimit-remaining"]) in (20, 21)


def test_an_array_that_is_refused_is_refused_as_an_array(tight: Caller) -> None:
    answer = tight.post([{"query": create(number)} for number in range(3)])
    assert len(answer.body) == 3 and "errors" not in answer.body[0]
    refused = tight.post([{"query": create(number)} for number in range(3)])
    assert [one["errors"][0]["extensions"]["code"] for one in refused.body] == ["RATE_LIMITED"] * 3
    assert "retry-after" in refused.headers


def test_nobody_is_asked_for_more_than_there_can_be(tight: Caller) -> None:
    answer = tight.post([{"query": create(number)} for number in range(5)])
    assert ["errors" in one for one in answer.body] == [False] * 5
    assert int(answer.headers["ratelimit-remaining"]) < 10


def test_one_client_that_is_refused_keeps_no_other_out(tight: Caller) -> None:
    while "errors" not in tight(create(0)).body:
        pass
    other = tight.of("default", Role.INTEGRATOR)
    assert "errors" not in other(create(1)).body


def test_unknown_keys_from_one_address_are_told_to_wait(module_database: DatabaseAddress, sealer: Sealer) -> None:
    with served(module_database, sealer) as port:
        caller = Caller(port, None, module_database)
        for number in range(1_000):
            answer = caller.with_key(f"unknown key {number}").send(b"{}")
            if answer.status == 429:
                break
            assert (answer.status, answer.refusal[0]) == (401, "UNAUTHENTICATED")
        assert (number >= 100, answer.status, answer.refusal[0]) == (True, 429, "RATE_LIMITED")
        assert answer.headers["retry-after"] == "1"
