"""Look up the ids of this host's logins and groups that the configuration names."""

import grp
import pwd


def uid(login: str) -> int | None:
    """Return the user id of a login; a number is returned as is. None: this host has no such login."""
    if _is_number(login):
        return int(login)
    try:
        return pwd.getpwnam(login).pw_uid
    except (KeyError, ValueError):
        return None


def gid(group: str) -> int | None:
    """Return the id of a group; a number is returned as is. None: this host has no such group."""
    if _is_number(group):
        return int(group)
    try:
        return grp.getgrnam(group).gr_gid
    except (KeyError, ValueError):
        return None


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 10
