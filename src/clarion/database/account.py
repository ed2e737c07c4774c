"""The account that the embedded server runs under.

PostgreSQL refuses to run as root. Started by root, the server runs under the system account `clarion`, which must be
able to reach the data directory and the server's programs. Directories above them stay as private as they are: the
account gets an access-control entry that lets it pass through (`user:clarion:--x`), nobody else gets anything.

Format of the entries: Linux, include/uapi/linux/posix_acl_xattr.h, version 2.
"""

from __future__ import annotations

import os
import pwd
import shutil
import stat
import struct
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clarion.core.errors import EnvironmentRefused

ACCOUNT_NAME = "clarion"

READ, EXECUTE = 4, 1

_ATTRIBUTE = "system.posix_acl_access"
_VERSION = 2
_USER_OBJECT, _USER, _GROUP_OBJECT, _GROUP, _MASK, _OTHER = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
_NO_ID = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Account:
    """Whom the server runs as. `switch` is False when that is the caller."""

    uid: int
    gid: int
    switch: bool

    def subprocess_options(self) -> dict[str, Any]:
        """Keyword arguments of `subprocess.run` that start a process as this account, from a directory it can enter."""
        options: dict[str, Any] = {"cwd": "/", "umask": 0o077}
        if self.switch:
            options |= {"user": self.uid, "group": self.gid, "extra_groups": []}
        return options

    def own(self, path: Path) -> None:
        """Gives one file or directory to this account."""
        if self.switch:
            os.chown(path, self.uid, self.gid)

    def own_tree(self, tree: Path) -> None:
        """Gives a whole directory to this account."""
        if self.switch:
            for folder, _, names in os.walk(tree):
                for path in (Path(folder), *(Path(folder, name) for name in names)):
                    os.chown(path, self.uid, self.gid, follow_symlinks=False)


def server_account(cluster: Path) -> Account:
    """The caller; for root, the owner of an existing `cluster`, otherwise the system account `clarion`, made if absent.

    Raises EnvironmentRefused when there is no such account and none can be made.
    """
    if os.geteuid() != 0:
        return Account(os.geteuid(), os.getegid(), switch=False)
    if cluster.exists():
        found = cluster.stat()
        if found.st_uid != 0:
            return Account(found.st_uid, found.st_gid, switch=True)
    entry = _find_entry() or _make_entry()
    if entry.pw_uid == 0:
        raise EnvironmentRefused(f"the account {ACCOUNT_NAME!r} is root itself", "run clarion as an ordinary user")
    return Account(entry.pw_uid, entry.pw_gid, switch=True)


def _find_entry() -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(ACCOUNT_NAME)
    except KeyError:
        return None


def _make_entry() -> pwd.struct_passwd:
    useradd = shutil.which("useradd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    reason = "there is no useradd"
    if useradd is not None:
        command = [useradd, "--system", "--user-group", "--no-create-home", "--home-dir", "/nonexistent"]
        made = subprocess.run(
            [*command, "--shell", "/usr/sbin/nologin", ACCOUNT_NAME], check=False, capture_output=True, text=True
        )
        reason = (
            made.stderr.strip().splitlines()[-1] if made.stderr.strip() else f"useradd ended with {made.returncode}"
        )
    # Another clarion may have made it in the meantime.
    entry = _find_entry()
    if entry is None:
        raise EnvironmentRefused(
            f"PostgreSQL does not run as root, and the system account {ACCOUNT_NAME!r} cannot be made: {reason}",
            "run clarion as an ordinary user, or set CLARION_DATABASE_URL",
        )
    return entry


def let_pass(account: Account, directory: Path, way_out: str) -> None:
    """Lets `account` pass through `directory` and all above it.

    Raises EnvironmentRefused naming the directory and `way_out` when that needs an entry that cannot be made.
    """
    if account.switch:
        for path in [*reversed(directory.parents), directory]:
            _allow(account, path, EXECUTE, way_out)


def let_read(account: Account, tree: Path, way_out: str) -> None:
    """Lets `account` read all files below `tree` and run those that their owner may run. Raises as `let_pass`."""
    if not account.switch:
        return
    for folder, _, names in os.walk(tree):
        _allow(account, Path(folder), READ | EXECUTE, way_out)
        for name in names:
            path = Path(folder, name)
            mode = path.stat().st_mode
            _allow(account, path, READ | (EXECUTE if mode & stat.S_IXUSR else 0), way_out)


def _allow(account: Account, path: Path, wanted: int, way_out: str) -> None:
    found = path.stat()
    entries = _read_entries(path, found.st_mode)
    if _granted(account, found, entries) & wanted == wanted:
        return
    if found.st_uid == account.uid:
        path.chmod(stat.S_IMODE(found.st_mode) | wanted << 6)
        return
    key = (_USER, account.uid)
    granted = entries.get(key, 0) | wanted
    if _MASK not in {tag for tag, _ in entries}:
        entries[_MASK, _NO_ID] = entries[_GROUP_OBJECT, _NO_ID]
    entries[key] = granted
    entries[_MASK, _NO_ID] |= granted
    packed = struct.pack("<I", _VERSION) + b"".join(
        struct.pack("<HHI", tag, permissions, owner) for (tag, owner), permissions in sorted(entries.items())
    )
    try:
        if sys.platform != "linux":
            raise OSError(f"no access-control entries on {sys.platform}")
        os.setxattr(path, _ATTRIBUTE, packed)
    except OSError as error:
        raise EnvironmentRefused(
            f"the server's account (uid {account.uid}) may not use {path}, "
            f"and no access-control entry can be set there: {error.strerror or error}",
            way_out,
        ) from error


def _read_entries(path: Path, mode: int) -> dict[tuple[int, int], int]:
    """Permissions by (tag, id); without stored entries, those that the mode bits stand for."""
    try:
        packed = os.getxattr(path, _ATTRIBUTE) if sys.platform == "linux" else b""
    except OSError:
        packed = b""
    if not packed:
        return {
            (_USER_OBJECT, _NO_ID): mode >> 6 & 7,
            (_GROUP_OBJECT, _NO_ID): mode >> 3 & 7,
            (_OTHER, _NO_ID): mode & 7,
        }
    return {(tag, owner): permissions for tag, permissions, owner in struct.iter_unpack("<HHI", packed[4:])}


def _granted(account: Account, found: os.stat_result, entries: dict[tuple[int, int], int]) -> int:
    """What the kernel lets `account` do, by the algorithm of acl(5)."""
    mask = entries.get((_MASK, _NO_ID), 7)
    if found.st_uid == account.uid:
        return entries[_USER_OBJECT, _NO_ID]
    named = entries.get((_USER, account.uid))
    if named is not None:
        return named & mask
    groups = [entries[_GROUP_OBJECT, _NO_ID]] if found.st_gid == account.gid else []
    groups += [entries[_GROUP, account.gid]] if (_GROUP, account.gid) in entries else []
    if groups:
        # Any one matching entry may grant; taking what all grant errs on the side of adding an entry.
        return groups[0] & groups[-1] & mask
    return entries[_OTHER, _NO_ID]
