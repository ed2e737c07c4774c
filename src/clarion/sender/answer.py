"""What an answer means: success or not, when to come back, and how much of it is kept. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from clarion.sender.outcome import Outcome

RETRY_AFTER_MAX_S = 24 * 60 * 60
HEADER_VALUE_KEPT_MAX = 1024
HEADERS_KEPT_BYTES_MAX = 8 * 1024

RETRY_AFTER_STATUSES = frozenset({429, 503})
"""The statuses on which the receiver's Retry-After is obeyed."""
_RETRY_AFTER_LENGTH_MAX = 64
_SUCCEEDED = (Outcome.SUCCEEDED, None)


def judge_status(status_code: int, expected: int | None) -> tuple[Outcome, str | None]:
    """The outcome of an answer, with a sentence if it is not success.

    Success is the `expected` status alone where the receiver set one, otherwise any 2xx.
    """
    if status_code == expected or (expected is None and 200 <= status_code < 300):
        return _SUCCEEDED
    wanted = "any 2xx" if expected is None else str(expected)
    redirect = "; redirects are not followed" if 300 <= status_code < 400 else ""
    return Outcome.UNEXPECTED_STATUS, f"answered {status_code}, expected {wanted}{redirect}"


def retry_after_s(headers: Sequence[tuple[bytes, bytes]], wall: datetime) -> int | None:
    """Seconds to wait as asked for by Retry-After, in [0, 86400]; None if not asked for, or not understandably.

    Both forms of RFC 9110 section 10.2.3 are read; a date is taken relative to `wall`. The first header counts.
    """
    text = next((value for name, value in headers if name.lower() == b"retry-after"), b"").decode("latin-1").strip()
    if not text or len(text) > _RETRY_AFTER_LENGTH_MAX or not text.isascii():
        return None
    if text.isdigit():
        return min(int(text), RETRY_AFTER_MAX_S)
    try:
        moment = parsedate_to_datetime(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        seconds = (moment - wall).total_seconds()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return max(0, min(round(seconds), RETRY_AFTER_MAX_S))


def kept_headers(headers: Sequence[tuple[bytes, bytes]]) -> tuple[tuple[str, str], ...]:
    """The headers of an answer as text (ISO 8859-1), each value cut at 1 KiB, all together at 8 KiB."""
    kept: list[tuple[str, str]] = []
    room = HEADERS_KEPT_BYTES_MAX
    for name, value in headers:
        room -= len(name) + min(len(value), HEADER_VALUE_KEPT_MAX)
        if room < 0:
            break
        kept.append((name.decode("latin-1"), value[:HEADER_VALUE_KEPT_MAX].decode("latin-1")))
    return tuple(kept)


class KeptHeaders:
    """`kept_headers` for the answers of one receiver, which nearly all have the same headers: the last result is kept."""

    def __init__(self) -> None:
        self._headers: Sequence[tuple[bytes, bytes]] = ()
        self._kept: tuple[tuple[str, str], ...] = ()

    def of(self, headers: Sequence[tuple[bytes, bytes]]) -> tuple[tuple[str, str], ...]:
        """As `kept_headers`; `headers` must not be changed afterwards."""
        if headers is self._headers or headers == self._headers:
            return self._kept
        kept = kept_headers(headers)
        if sum(len(name) + len(value) for name, value in headers) <= HEADERS_KEPT_BYTES_MAX:
            self._headers, self._kept = headers, kept
        return kept
