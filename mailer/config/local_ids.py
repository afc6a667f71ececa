"""The ids of this host's logins and groups, which the configuration names."""

import grp
import pwd


def uid(login: str) -> int | None:
    """Return a login's user id; digits are an id themselves. None: this host has no such login."""
    if _is_number(login):
        return int(login)
    try:
        return pwd.getpwnam(login).pw_uid
    except (KeyError, ValueError):
        return None


def gid(group: str) -> int | None:
    """Return a group's id; digits are an id themselves. None: this host has no such group."""
    if _is_number(group):
        return int(group)
    try:
        return grp.getgrnam(group).gr_gid
    except (KeyError, ValueError):
        return None


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 10
