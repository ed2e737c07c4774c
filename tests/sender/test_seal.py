from __future__ import annotations

import base64
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clarion.core.errors import EnvironmentRefused
from clarion.core.system import SystemRandom
from clarion.sender.seal import Sealer, SecretUnreadable, create_key, fingerprint, load_key

KEY = bytes(range(32))
SEALER = Sealer(KEY, SystemRandom())


@given(st.binary(max_size=200), st.text(max_size=40))
def test_what_was_sealed_opens_under_the_same_binding(plaintext: bytes, binding: str) -> None:
    binding = binding.encode("utf-8", "replace").decode()
    assert SEALER.unseal(SEALER.seal(plaintext, binding), binding) == plaintext


@given(st.binary(max_size=50), st.integers(1, 10**6), st.integers(1, 10**6), st.sampled_from(["secret", "header"]))
def test_a_sealed_value_does_not_open_in_another_row_organisation_or_purpose(
    plaintext: bytes, organisation: int, receiver: int, purpose: str
) -> None:
    sealed = SEALER.seal(plaintext, f"{purpose}:{organisation}:{receiver}")
    other = "header" if purpose == "secret" else "secret"
    for binding in (
        f"{purpose}:{organisation}:{receiver + 1}",
        f"{purpose}:{organisation + 1}:{receiver}",
        f"{other}:{organisation}:{receiver}",
        "",
    ):
        with pytest.raises(SecretUnreadable):
            SEALER.unseal(sealed, binding)


@given(st.integers(0, 8 * 100 - 1))
def test_one_changed_bit_anywhere_closes_a_sealed_value(bit: int) -> None:
    sealed = bytearray(SEALER.seal(b"x" * 11, "b"))
    assert len(sealed) == 100
    sealed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(SecretUnreadable):
        SEALER.unseal(bytes(sealed), "b")


@given(st.binary(max_size=120))
def test_any_bytes_that_were_never_sealed_are_unreadable(sealed: bytes) -> None:
    with pytest.raises(SecretUnreadable):
        SEALER.unseal(sealed, "b")


def test_the_halves_of_two_sealed_values_cannot_be_put_together() -> None:
    first, second = SEALER.seal(b"one", "b"), SEALER.seal(b"two", "b")
    with pytest.raises(SecretUnreadable):
        SEALER.unseal(first[:61] + second[61:], "b")


def test_another_key_opens_nothing() -> None:
    with pytest.raises(SecretUnreadable) as refused:
        Sealer(bytes(32), SystemRandom()).unseal(SEALER.seal(b"x", "b"), "b")
    assert "key-encryption key" in refused.value.hint


def test_sealing_twice_gives_different_bytes_and_never_shows_the_plaintext() -> None:
    first, second = SEALER.seal(b"the secret", "b"), SEALER.seal(b"the secret", "b")
    assert first != second
    assert b"the secret" not in first
    assert "0001" not in repr(SEALER)


def test_a_key_file_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "secret.key"
    key = create_key(path, SystemRandom())
    assert load_key(path) == key
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["secret.key"]
    with pytest.raises(EnvironmentRefused, match="exists already"):
        create_key(path, SystemRandom())
    assert load_key(path) == key
    assert [entry.name for entry in tmp_path.iterdir()] == ["secret.key"]


def test_a_key_cannot_be_made_where_there_is_no_directory(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentRefused, match="cannot be written"):
        create_key(tmp_path / "missing" / "secret.key", SystemRandom())


@pytest.mark.parametrize(
    "content", [b"", b"\n", base64.b64encode(bytes(31)), base64.b64encode(bytes(33)), b"not base64 at all!", bytes(32)]
)
def test_a_file_without_a_key_is_refused_with_its_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "secret.key"
    path.write_bytes(content)
    with pytest.raises(EnvironmentRefused, match=r"secret\.key holds no key"):
        load_key(path)


def test_a_missing_or_unreadable_key_is_refused_with_a_way_out(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentRefused, match="no key-encryption key") as missing:
        load_key(tmp_path / "secret.key")
    assert "backup" in missing.value.hint
    with pytest.raises(EnvironmentRefused, match="cannot be read"):
        load_key(tmp_path)


def test_fingerprints_tell_keys_apart_without_showing_them() -> None:
    assert fingerprint(KEY) == fingerprint(bytes(KEY)) != fingerprint(bytes(32))
    assert KEY.hex() not in fingerprint(KEY)
    assert len(fingerprint(KEY)) == 32
