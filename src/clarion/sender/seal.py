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
from collections.abc import Callable, Iterable
from contextlib import suppress
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
    """Seals with one key-encryption key; opens with that and, while keys change, with the others that it finds.

    Processes that run while the key is rotated hold the former one in memory: what does not open makes them look for
    the keys again (`find_keys`).
    """

    def __init__(self, key: bytes, random: Random, find_keys: Callable[[], Iterable[bytes]] = tuple) -> None:
        """`key` has 32 bytes (`load_key`); `random` supplies data keys and nonces; `find_keys` reads all keys there are."""
        self._current = fingerprint(key)
        self._wrappers = {self._current: _wrapper(key)}
        self._random = random
        self._find_keys = find_keys

    def __repr__(self) -> str:
        return "Sealer(keys hidden)"

    @property
    def fingerprint(self) -> str:
        """Which key seals now."""
        return self._current

    def use(self, wanted: str) -> bool:
        """Seal with the key of this fingerprint from now on; False, and no change, if it is nowhere to be found."""
        if wanted not in self._wrappers:
            self._learn()
        if wanted not in self._wrappers:
            return False
        self._current = wanted
        return True

    def seal(self, plaintext: bytes, binding: str) -> bytes:
        """`plaintext` sealed for `binding`; 89 bytes longer, and different at each call."""
        data_key = self._random.token(KEY_BYTES)
        nonce = self._random.token(_NONCE_BYTES)
        ciphertext = AESGCM(data_key).encrypt(nonce, plaintext, _associated(b"data", binding))
        return b"".join((self._wrapped(data_key, binding), nonce, ciphertext))

    def unseal(self, sealed: bytes, binding: str) -> bytes:
        """The plaintext sealed for `binding`. Raises SecretUnreadable."""
        data_key = self._data_key(sealed, binding)
        nonce = sealed[_WRAPPED_END : _WRAPPED_END + _NONCE_BYTES]
        try:
            return AESGCM(data_key).decrypt(nonce, sealed[_WRAPPED_END + _NONCE_BYTES :], _associated(b"data", binding))
        except InvalidTag:
            raise SecretUnreadable from None

    def rewrap(self, sealed: bytes, binding: str) -> bytes:
        """The same secret for the same binding, with its data key wrapped by the current key. Raises SecretUnreadable.

        The secret itself is never in clear, beyond the check that it opens.
        """
        self.unseal(sealed, binding)
        return self._wrapped(self._data_key(sealed, binding), binding) + sealed[_WRAPPED_END:]

    def _wrapped(self, data_key: bytes, binding: str) -> bytes:
        nonce = self._random.token(_NONCE_BYTES)
        wrapped = self._wrappers[self._current].encrypt(nonce, data_key, _associated(b"key", binding))
        return b"".join((_VERSION, nonce, wrapped))

    def _data_key(self, sealed: bytes, binding: str) -> bytes:
        """The data key, by whichever key wrapped it. Raises SecretUnreadable."""
        if len(sealed) < _OVERHEAD_BYTES or sealed[:1] != _VERSION:
            raise SecretUnreadable
        tried: set[str] = set()
        for look_again in (False, True):
            if look_again:
                self._learn()
            for name in sorted(self._wrappers.keys() - tried, key=lambda name: name != self._current):
                tried.add(name)
                nonce, wrapped = sealed[1 : 1 + _NONCE_BYTES], sealed[1 + _NONCE_BYTES : _WRAPPED_END]
                try:
                    return self._wrappers[name].decrypt(nonce, wrapped, _associated(b"key", binding))
                except InvalidTag:
                    continue
        raise SecretUnreadable

    def _learn(self) -> None:
        for key in self._find_keys():
            self._wrappers.setdefault(fingerprint(key), _wrapper(key))


def _wrapper(key: bytes) -> AESGCM:
    if len(key) != KEY_BYTES:
        raise ValueError(f"a key-encryption key has {KEY_BYTES} bytes, not {len(key)}")
    return AESGCM(key)


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


def next_path(path: Path) -> Path:
    """Where a rotation puts the new key before the database is sealed with it."""
    return path.with_name(f"{path.name}.next")


def previous_path(path: Path) -> Path:
    """Where a rotation keeps the key that was in use before it."""
    return path.with_name(f"{path.name}.previous")


def find_keys(path: Path) -> list[bytes]:
    """The keys at `path` and beside it, those that can be read.

    The next one first: a rotation moves it to `path`, so whoever misses it there finds it at the second look.
    """
    keys: list[bytes] = []
    for candidate in (next_path(path), path, previous_path(path)):
        with suppress(EnvironmentRefused):
            keys.append(load_key(candidate))
    return keys


def promote_next(path: Path) -> None:
    """The key at `<path>.next` becomes the one at `path`, which is kept as `<path>.previous`. Harmless if done already.

    One process at a time (`registry/encryption_key.py` has the lock). A crash between the steps leaves all keys in place.
    Raises EnvironmentRefused when the directory cannot be written.
    """
    following, previous = next_path(path), previous_path(path)
    try:
        if not following.exists():
            return
        if path.exists():
            draft = previous.with_name(f".{previous.name}.new")
            draft.unlink(missing_ok=True)
            os.link(path, draft)
            draft.replace(previous)
        following.replace(path)
        _sync_directory(path.parent)
    except OSError as error:
        raise EnvironmentRefused(
            f"the new key-encryption key cannot be moved to {path}: {error.strerror}",
            f"move {following} to {path} yourself; until then both are needed",
        ) from error


def write_key(path: Path, key: bytes, random: Random) -> None:
    """Write `key` to `path`, readable by its owner alone, in place of what is there. Raises EnvironmentRefused."""
    path.unlink(missing_ok=True)
    _write(path, key, random)


def _sync_directory(path: Path) -> None:
    directory = os.open(path, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def create_key(path: Path, random: Random) -> bytes:
    """A new key-encryption key, written to `path` (readable by its owner alone) and returned.

    The file appears whole or not at all. Raises EnvironmentRefused when `path` exists or cannot be written.
    """
    key = random.token(KEY_BYTES)
    _write(path, key, random)
    return key


def _write(path: Path, key: bytes, random: Random) -> None:
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
        _sync_directory(path.parent)
    except FileExistsError:
        raise EnvironmentRefused(
            f"{path} exists already", "a key is never overwritten: what was sealed with it would be lost"
        ) from None
    except OSError as error:
        raise EnvironmentRefused(
            f"the key-encryption key cannot be written to {path}: {error.strerror}",
            "choose a directory that exists and that the user who runs clarion may write to",
        ) from error
