"""Check whether the user that the programs run as can read a file, and suggest commands if not.

When root starts a check, it becomes that user first (`setup.become_owner`), because root can read anything.
"""

import grp
import os
import pwd
import stat
from pathlib import Path
from shlex import quote

from mailer.mail.reply import printable

_SYSTEM = Path("/etc/mailer")


def unreadable(path: Path, home: Path) -> str:
    """Explain that the current user cannot read a file, and which commands root must type to change that.

    Every directory on the path is checked. Commands open only directories of the service: any other may be
    closed on purpose.

    Args:
        path: the file; symbolic links are followed.
        home: the directory of the configuration, which belongs to the service with everything in it.

    Returns:
        The explanation; empty if the file can be read, or does not exist.
    """
    real = Path(os.path.realpath(path))
    commands = []
    for each in (*reversed(real.parents), real):
        if not _is_closed(each, last=each == real):
            continue
        if group := _other_group(each, last=each == real):
            # Offer both ways, since the group may be able to read more than a mail relay should.
            return (
                f"user {user()}, as whom the programs run, is not in group {group}, which {_shown(each)} is "
                f"for; put a copy in {_place(home)}, or type, as root: usermod -aG {quote(group)} {user()}"
            )
        if each != real and not _is_services(each, home):
            return (
                f"user {user()}, as whom the programs run, cannot enter {_shown(each)}; name a copy in the "
                f"configuration, and type, as root: {_copy(path, home)}"
            )
        commands.append(_opening(each, last=each == real))
    if not commands:
        return ""
    return f"user {user()}, as whom the programs run, cannot read it; type, as root: {' && '.join(commands)}"


def user() -> str:
    """Return the name of the current (effective) user, or its id if it has no name."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def _is_services(directory: Path, home: Path) -> bool:
    """Return whether a directory belongs to the service: to its user, or to its configuration.

    The home of another user does not, nor a directory directly in the root, such as /etc, even if the
    configuration is in it.
    """
    state = _state(directory)
    if state is not None and state.st_uid == os.geteuid():
        return True
    if any(_is_private(each) for each in (directory, *directory.parents)):
        return False
    real = Path(os.path.realpath(home))
    return len(real.parts) > len(Path("/etc").parts) and directory.is_relative_to(real)


def _is_private(path: Path) -> bool:
    return path == Path("/root") or path.parent == Path("/home")


def _other_group(path: Path, *, last: bool) -> str:
    """Return the group that can already read a file or enter a directory, if not root's or the user's."""
    state = _state(path)
    needed = stat.S_IRGRP if last else stat.S_IXGRP
    if state is None or not state.st_mode & needed or state.st_gid in {0, os.getegid(), *os.getgroups()}:
        return ""
    if state.st_uid == os.geteuid() or user() == str(os.geteuid()):
        return ""  # Joining the group would not help, or the user has no name for usermod.
    try:
        return grp.getgrgid(state.st_gid).gr_name
    except KeyError:
        return ""


def _is_closed(path: Path, *, last: bool) -> bool:
    """Return whether the user cannot read this file, or enter this directory."""
    try:
        path.stat()
    except PermissionError:
        # It is behind a closed directory. Assume that it is closed too, as such files mostly are.
        return True
    except OSError:
        return False
    return not os.access(path, os.R_OK if last else os.X_OK, effective_ids=True)


def _state(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None


def _opening(path: Path, *, last: bool) -> str:
    """Return the command that lets the user enter a directory or read a file, without opening it to all."""
    state, shown = _state(path), _shown(path)
    if state is not None and state.st_uid == os.geteuid():
        return f"chmod {'u+r' if last else 'u+x'} {shown}"
    mode = "g+rX" if state is None else "0640" if last else "g+x"
    return f"chgrp {quote(_group())} {shown} && chmod {mode} {shown}"


def _copy(path: Path, home: Path) -> str:
    place = _place(home)
    return f"install -b -g {quote(_group())} -m 0640 {_shown(path.absolute())} {_shown(place / path.name)}"


def _place(home: Path) -> Path:
    """Return the directory for the service's files."""
    return home if _is_services(home, home) else _SYSTEM


def _shown(path: Path) -> str:
    return quote(printable(str(path)))


def _group() -> str:
    try:
        return grp.getgrgid(os.getegid()).gr_name
    except KeyError:
        return str(os.getegid())
