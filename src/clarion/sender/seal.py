"""Secrets at rest: AES-256-GCM, one random data key per secret, wrapped by the key-encryption key.

A sealed secret is `version (1 byte) | nonce (12) | wrapped data key (32 + 16) | nonce (12) | ciphertext + tag`.
Both layers authenticate the binding, a text that names purpose, organisation and object, so that a sealed
value that was moved to another row, or to another purpose, does not open.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from clarion.core.clock import Random
from clarion.core.errors import ClarionError, EnvironmentRefused

KEY_BYTES = 32
_NONCE_BYTES = 12
_TAG_BYTES = 16
_VERSION = b"\x01"
_WRAPPED_END = 1 + _NONCE_BYTES + KEY_BYTES + _TAG_BYTES
_OVERHEAD_BYTES = _WRAPPED_END + _NONCE_BYTES + _TAG_BYTES


class SecretUnreadable(ClarionError):
    """A sealed secret does not open: another key, another row, or damaged bytes."""

    def __init__(self) -> None:
        super().__init__(
            "a sealed secret cannot be opened",
            "the key-encryption key is not the one it was sealed with, or the value was moved or damaged",
        )


class Sealer:
    """Seals and opens secrets with one key-encryption key."""

    def __init__(self, key: bytes, random: Random) -> None:
        """`key` has 32 bytes (`load_key`); `random` supplies data keys and nonces."""
        if len(key) != KEY_BYTES:
            raise ValueError(f"a key-encryption key has {KEY_BYTES} bytes, not {len(key)}")
        self._wrapper = AESGCM(key)
        self._random = random

    def __repr__(self) -> str:
        return "Sealer(key=hidden)"

    def seal(self, plaintext: bytes, binding: str) -> bytes:
        """`plaintext` sealed for `binding`; 89 bytes longer, and different at each call."""
        data_key = self._random.token(KEY_BYTES)
        wrap_nonce = self._random.token(_NONCE_BYTES)
        nonce = self._random.token(_NONCE_BYTES)
        wrapped = self._wrapper.encrypt(wrap_nonce, data_key, _associated(b"key", binding))
        ciphertext = AESGCM(data_key).encrypt(nonce, plaintext, _associated(b"data", binding))
        return b"".join((_VERSION, wrap_nonce, wrapped, nonce, ciphertext))

    def unseal(self, sealed: bytes, binding: str) -> bytes:
        """The plaintext sealed for `binding`. Raises SecretUnreadable."""
        if len(sealed) < _OVERHEAD_BYTES or sealed[:1] != _VERSION:
            raise SecretUnreadable
        wrap_nonce = sealed[1 : 1 + _NONCE_BYTES]
        wrapped = sealed[1 + _NONCE_BYTES : _WRAPPED_END]
        nonce = sealed[_WRAPPED_END : _WRAPPED_END + _NONCE_BYTES]
        try:
            data_key = self._wrapper.decrypt(wrap_nonce, wrapped, _associated(b"key", binding))
            return AESGCM(data_key).decrypt(nonce, sealed[_WRAPPED_END + _NONCE_BYTES :], _associated(b"data", binding))
        except InvalidTag:
            raise SecretUnreadable from None


def _associated(layer: bytes, binding: str) -> bytes:
    return b"clarion " + layer + b" " + _VERSION + binding.encode()


def fingerprint(key: bytes) -> str:
    """32 hexadecimal digits that tell keys apart and reveal nothing of them."""
    return hashlib.sha256(b"clarion key-encryption key\x00" + key).hexdigest()[:32]


def load_key(path: Path) -> bytes:
    """The key-encryption key in `path`: 32 bytes, written in base64.

    Raises EnvironmentRefused when the file is missing, unreadable or holds anything else.
    """
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        raise EnvironmentRefused(
            f"no key-encryption key at {path}",
            "restore the file from your backup; only for a new deployment make one with"
            f" `clarion keys new-encryption-key {path}`",
        ) from None
    except OSError as error:
        raise EnvironmentRefused(
            f"the key-encryption key at {path} cannot be read: {error.strerror}",
            "let the user that runs clarion read it, or point CLARION_SECRET_KEY_FILE elsewhere",
        ) from error
    try:
        key = base64.b64decode(text.strip(), validate=True)
    except binascii.Error:
        key = b""
    if len(key) != KEY_BYTES:
        raise EnvironmentRefused(
            f"{path} holds no key-encryption key: expected {KEY_BYTES} bytes in base64",
            "restore the file from your backup, or point CLARION_SECRET_KEY_FILE at the right one",
        )
    return key


def create_key(path: Path, random: Random) -> bytes:
    """A new key-encryption key, written to `path` (readable by its owner alone) and returned.

    The file appears whole or not at all. Raises EnvironmentRefused when `path` exists or cannot be written.
    """
    key = random.token(KEY_BYTES)
    draft = path.with_name(f".{path.name}.{random.token(8).hex()}")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(base64.b64encode(key) + b"\n")
                file.flush()
                os.fsync(file.fileno())
            # A link, unlike a rename, refuses to replace what is there.
            os.link(draft, path)
        finally:
            draft.unlink()
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except FileExistsError:
        raise EnvironmentRefused(
            f"{path} exists already", "a key is never overwritten: what was sealed with it would be lost"
        ) from None
    except OSError as error:
        raise EnvironmentRefused(
            f"the key-encryption key cannot be written to {path}: {error.strerror}",
            "choose a directory that exists and that the user who runs clarion may write to",
        ) from error
    return key
