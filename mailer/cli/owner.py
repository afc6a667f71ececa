"""Run as the user who owns the spool: root becomes that user, until it ends or for the length of a block."""

import os
import pwd
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.machinery import PathFinder
from pathlib import Path

import msgspec

import mailer


def become_owner(path: Path) -> None:
    """Drop root privileges permanently to the user that owns the spool; do nothing if that is root.

    Otherwise root's `mailer spool retry` could leave files that the spool's programs cannot use. Sockets that
    need root must be bound before.

    Args:
        path: the spool.

    Raises:
        OSError: the system refuses the change; the process may still be root.
    """
    owner = _Owner.of(path)
    if owner is None:
        return
    _import_ahead(owner)
    os.environ.update(owner.home)
    os.setgroups(owner.groups)
    os.setgid(owner.gid)
    os.setuid(owner.uid)


@contextmanager
def acting_as_owner(path: Path) -> Iterator[None]:
    """As root, act as the spool's owner within the block only, so that root can still bind ports later."""
    owner = _Owner.of(path)
    if owner is None:
        yield
        return
    _import_ahead(owner)
    with _acting_as(owner):
        yield


@contextmanager
def _acting_as(owner: "_Owner") -> Iterator[None]:
    mine = os.getgroups(), os.getegid()
    os.setgroups(owner.groups)
    os.setegid(owner.gid)
    os.seteuid(owner.uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(mine[1])
        os.setgroups(mine[0])


def _import_ahead(owner: "_Owner") -> None:
    """Import all that may be needed now, as root, if the owner could not import it later."""
    with _acting_as(owner):
        if all(os.access(file, os.R_OK, effective_ids=True) for file in _python()):
            return
    import pkgutil  # noqa: PLC0415 - only here

    ours = (module.name for module in pkgutil.walk_packages(mailer.__path__, "mailer."))
    for name in (*ours, *_IMPORTED_LATE):
        if not name.endswith("__main__"):
            import_module(name)


def _python() -> Iterator[str]:
    """Yield the files of the modules that are loaded, and one of each package that may be loaded later."""
    for module in tuple(sys.modules.values()):
        if file := getattr(module, "__file__", None):
            yield file
    for name in _PACKAGES:
        if (spec := PathFinder.find_spec(name)) and spec.origin:
            yield spec.origin


_PACKAGES = ("aiohttp", "cryptography", "dkim", "dns", "filelock", "idna")
"""The packages of others that the modules below import."""


_IMPORTED_LATE = (
    "_strptime",
    "aiohttp",
    "concurrent.futures.thread",
    "ctypes",
    "encodings.ascii",
    "encodings.big5",
    "encodings.cp1251",
    "encodings.cp1252",
    "encodings.euc_jp",
    "encodings.euc_kr",
    "encodings.gb18030",
    "encodings.idna",
    "encodings.iso2022_jp",
    "encodings.iso8859_5",
    "encodings.koi8_r",
    "encodings.latin_1",
    "encodings.shift_jis",
    "grp",
    "hashlib",
    "hmac",
    "idna",
    "ipaddress",
    "shlex",
    "signal",
    "ssl",
    "subprocess",
    "traceback",
)
"""Modules of others that are otherwise imported on first use. If the spool's owner cannot read root's Python
(pyenv and pipx install in /root), these and all of ours are imported before root becomes the owner, which
takes 0.8 s: a list of those of ours that a command may need was never complete."""


class _Owner(msgspec.Struct, frozen=True):
    """The user who owns a spool, if that is not root."""

    uid: int
    gid: int
    groups: list[int]
    home: dict[str, str]
    """Environment variables of the user, since a secret's command looks for files in $HOME."""

    @classmethod
    def of(cls, path: Path) -> "_Owner | None":
        """Return the user that root should become for this spool; None if not root, or if root owns it."""
        if os.geteuid() != 0:
            return None
        try:
            state = path.stat()
        except FileNotFoundError:
            return None
        if state.st_uid == 0:
            return None
        try:
            account = pwd.getpwuid(state.st_uid)
        except KeyError:
            return cls(state.st_uid, state.st_gid, [state.st_gid], {})
        return cls(
            account.pw_uid,
            account.pw_gid,
            os.getgrouplist(account.pw_name, account.pw_gid),
            {"HOME": account.pw_dir, "USER": account.pw_name, "LOGNAME": account.pw_name},
        )
