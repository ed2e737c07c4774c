# ruff: noqa: RUF001 - look-alike characters are what is tested

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clarion.sender.answer import judge_status, kept_headers, retry_after_s
from clarion.sender.outcome import Outcome

NOW = datetime(2026, 11, 24, 1, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_any_2xx_is_success_unless_one_status_is_expected(status: int) -> None:
    assert judge_status(status, None) == (Outcome.SUCCEEDED, None)
    assert judge_status(status, 418)[0] is Outcome.UNEXPECTED_STATUS
    assert judge_status(status, status) == (Outcome.SUCCEEDED, None)


@pytest.mark.parametrize("status", [199, 300, 301, 302, 304, 307, 308, 400, 404, 410, 429, 500, 503, 999])
def test_other_statuses_are_failure_and_the_error_names_them(status: int) -> None:
    outcome, error = judge_status(status, None)
    assert outcome is Outcome.UNEXPECTED_STATUS
    assert f"answered {status}, expected any 2xx" in (error or "")
    assert ("redirects are not followed" in (error or "")) == (300 <= status < 400)


def _after(value: bytes) -> int | None:
    return retry_after_s([(b"Server", b"x"), (b"Retry-After", value)], NOW)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (b"0", 0),
        (b"120", 120),
        (b" 7 ", 7),
        (b"86400", 86400),
        (b"86401", 86400),
        (b"9" * 64, 86400),
        (b"Tue, 24 Nov 2026 01:02:00 GMT", 120),
        (b"Tuesday, 24-Nov-26 01:02:00 GMT", 120),
        (b"Tue Nov 24 01:02:00 2026", 120),
        (b"Tue, 24 Nov 2026 00:00:00 GMT", 0),
        (b"Tue, 24 Nov 2099 00:00:00 GMT", 86400),
        (b"", None),
        (b"-1", None),
        (b"1.5", None),
        (b"soon", None),
        ("１２０".encode(), None),
        (b"9" * 65, None),
        (b"Tue, 99 Nov 2026 01:02:00 GMT", None),
    ],
)
def test_retry_after_is_read_in_both_forms_and_capped_at_a_day(value: bytes, seconds: int | None) -> None:
    assert _after(value) == seconds


def test_without_retry_after_there_is_nothing_to_obey() -> None:
    assert retry_after_s([(b"server", b"x")], NOW) is None


@given(st.one_of(st.binary(max_size=80), st.text("0123456789 ,:-GMTueNovJan+", max_size=40).map(str.encode)))
def test_any_retry_after_gives_a_bounded_wait_or_none(value: bytes) -> None:
    seconds = _after(value)
    assert seconds is None or 0 <= seconds <= 86400


def test_headers_are_kept_as_they_came_up_to_8_kib() -> None:
    hostile = (b"X-\x1b[31m", b"\xff\x00<script>")
    assert kept_headers([hostile]) == (("X-\x1b[31m", "ÿ\x00<script>"),)
    kept = kept_headers([(b"x", b"y" * 5000)] * 200)
    assert len(kept) == 7
    assert {len(value) for _, value in kept} == {1024}
