"""Verification of Ed25519 signatures (RFC 8032 section 5.1) with the standard library alone.

Nothing here is secret, so nothing needs to take constant time. A verification takes one to three milliseconds.
"""

from __future__ import annotations

from hashlib import sha512

_P = 2**255 - 19
_ORDER = 2**252 + 27742317777372353535851937790883648493
_D = -121665 * pow(121666, _P - 2, _P) % _P
_SQRT_MINUS_1 = pow(2, (_P - 1) // 4, _P)

# A point in extended coordinates: x = X/Z, y = Y/Z, X*Y = T*Z.
_Point = tuple[int, int, int, int]
_NEUTRAL: _Point = (0, 1, 1, 0)


class PublicKey:
    """A public key, ready to verify."""

    def __init__(self, encoded: bytes) -> None:
        """`encoded` are its 32 bytes. Raises ValueError if they are no point, or one that anybody can sign for."""
        point = _decoded(encoded)
        if point is None or _equal(_doubled(_doubled(_doubled(point))), _NEUTRAL):
            raise ValueError("these bytes are no Ed25519 public key")
        self._encoded = encoded
        self._minus = (_P - point[0], point[1], 1, _P - point[3])

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Whether `signature` (64 bytes) is this key's for `message`."""
        if len(signature) != 64:
            return False
        half, s = signature[:32], int.from_bytes(signature[32:], "little")
        if s >= _ORDER:
            return False
        h = int.from_bytes(sha512(half + self._encoded + message).digest(), "little") % _ORDER
        # s*B - h*A, both at once (Shamir's trick), has to be the point that the signature begins with.
        both = _sum(_BASE, self._minus)
        result = _NEUTRAL
        for bit in range(max(s.bit_length(), h.bit_length()) - 1, -1, -1):
            result = _doubled(result)
            match s >> bit & 1, h >> bit & 1:
                case 1, 1:
                    result = _sum(result, both)
                case 1, 0:
                    result = _sum(result, _BASE)
                case 0, 1:
                    result = _sum(result, self._minus)
        return _encoded(result) == half


def _sum(p: _Point, q: _Point) -> _Point:
    a = (p[1] - p[0]) * (q[1] - q[0]) % _P
    b = (p[1] + p[0]) * (q[1] + q[0]) % _P
    c = 2 * p[3] * q[3] * _D % _P
    d = 2 * p[2] * q[2] % _P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % _P, g * h % _P, f * g % _P, e * h % _P


def _doubled(p: _Point) -> _Point:
    a = p[0] * p[0] % _P
    b = p[1] * p[1] % _P
    h = a + b
    e = h - (p[0] + p[1]) * (p[0] + p[1])
    g = a - b
    f = 2 * p[2] * p[2] + g
    return e * f % _P, g * h % _P, f * g % _P, e * h % _P


def _equal(p: _Point, q: _Point) -> bool:
    return (p[0] * q[2] - q[0] * p[2]) % _P == 0 and (p[1] * q[2] - q[1] * p[2]) % _P == 0


def _encoded(p: _Point) -> bytes:
    inverse = pow(p[2], _P - 2, _P)
    x, y = p[0] * inverse % _P, p[1] * inverse % _P
    return (y | (x & 1) << 255).to_bytes(32, "little")


def _decoded(encoded: bytes) -> _Point | None:
    """The point of RFC 8032 section 5.1.3, or None."""
    if len(encoded) != 32:
        return None
    y = int.from_bytes(encoded, "little")
    sign, y = y >> 255, y & (1 << 255) - 1
    if y >= _P:
        return None
    square = (y * y - 1) * pow(_D * y * y + 1, _P - 2, _P) % _P
    x = pow(square, (_P + 3) // 8, _P)
    if (x * x - square) % _P:
        x = x * _SQRT_MINUS_1 % _P
    if (x * x - square) % _P or (x == 0 and sign):
        return None
    if x & 1 != sign:
        x = _P - x
    return x, y, 1, x * y % _P


def _base() -> _Point:
    point = _decoded((4 * pow(5, _P - 2, _P) % _P).to_bytes(32, "little"))
    assert point is not None
    return point


_BASE = _base()
