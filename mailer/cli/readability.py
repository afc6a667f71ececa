"""Can the user that the programs run as read a file, and what to type if not.

A check that root starts becomes that user first (`setup.become_owner`): what root can read says nothing.
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
    """Say that we cannot read it, and what root must type so that we can; empty: we can, or none is there.

    Every directory on the way counts. Only those of the service are opened for it: any other may have been
    closed by somebody who relies on that.

    Args:
        path: the file; what symbolic links lead to is judged.
        home: the directory of the configuration, which is the service's with all that is in it.
    """
    real = Path(os.path.realpath(path))
    commands = []
    for each in (*reversed(real.parents), real):
        if not _is_closed(each, last=each == real):
            continue
        if group := _other_group(each, last=each == real):
            # Both ways are said, for some groups may read more than a mail relay needs.
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
    """Return the name of the user that we look as."""
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def _is_services(directory: Path, home: Path) -> bool:
    """Tell whether a directory is the service's, to be opened: its user's, or of the configuration.

    No other user's home is, nor what lies directly in the root, as /etc, even with a configuration in it.
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
    """Return the group, not ours and not root's, that may already read a file or enter a directory."""
    state = _state(path)
    needed = stat.S_IRGRP if last else stat.S_IXGRP
    if state is None or not state.st_mode & needed or state.st_gid in {0, os.getegid(), *os.getgroups()}:
        return ""
    if state.st_uid == os.geteuid() or user() == str(os.geteuid()):
        return ""  # joining it would not help, or cannot be typed
    try:
        return grp.getgrgid(state.st_gid).gr_name
    except KeyError:
        return ""


def _is_closed(path: Path, *, last: bool) -> bool:
    """Tell whether we are kept out here; what lies behind a closed directory is judged by what root shows."""
    try:
        path.stat()
    except PermissionError:
        # Behind a directory that is closed: root's own file is as closed, more often than not.
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
    """What lets us in: a directory is passed through, a file is read, a secret stays one."""
    state, shown = _state(path), _shown(path)
    if state is not None and state.st_uid == os.geteuid():
        return f"chmod {'u+r' if last else 'u+x'} {shown}"
    mode = "g+rX" if state is None else "0640" if last else "g+x"
    return f"chgrp {quote(_group())} {shown} && chmod {mode} {shown}"


def _copy(path: Path, home: Path) -> str:
    place = _place(home)
    return f"install -b -g {quote(_group())} -m 0640 {_shown(path.absolute())} {_shown(place / path.name)}"


def _place(home: Path) -> Path:
    """Where the service's files are."""
    return home if _is_services(home, home) else _SYSTEM


def _shown(path: Path) -> str:
    return quote(printable(str(path)))


def _group() -> str:
    try:
        return grp.getgrgid(os.getegid()).gr_name
    except KeyError:
        return str(os.getegid())
