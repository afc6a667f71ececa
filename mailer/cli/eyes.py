"""Can the user that the programs run as read a file, and what to type if not.

A check that root starts becomes that user first (`wire.become_owner`): what root can read says nothing.
"""

import grp
import os
import pwd
import shlex
from pathlib import Path


def unreadable(path: Path) -> str:
    """Say that we cannot read it, and what root must type so that we can; empty: we can, or none is there.

    Every directory on the way counts, and the commands mend all of it at once.
    """
    for each in path.absolute().parents:
        if _is_home(each) and not os.access(each, os.X_OK, effective_ids=True):
            return (
                f"user {_user()}, as whom the programs run, cannot enter {each}: move it to /etc/mailer, and "
                "name it there in the configuration"
            )
    commands = [
        f"chgrp {_group()} {shlex.quote(str(each))} && chmod {_mode(each)} {shlex.quote(str(each))}"
        for each in (*reversed(path.absolute().parents), path.absolute())
        if _is_closed(each, last=each == path.absolute())
    ]
    if not commands:
        return ""
    return f"user {_user()}, as whom the programs run, cannot read it; as root type: {' && '.join(commands)}"


def _is_home(path: Path) -> bool:
    """Tell whether a directory is somebody's own, which is not to be opened for a service."""
    return path == Path("/root") or path.parent == Path("/home")


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


def _mode(path: Path) -> str:
    """What lets a group in: a directory is passed through, a file is read, a secret stays one."""
    try:
        return "g+x" if path.is_dir() else "0640"
    except OSError:
        return "g+rX"


def _user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def _group() -> str:
    try:
        return grp.getgrgid(os.getegid()).gr_name
    except KeyError:
        return str(os.getegid())
