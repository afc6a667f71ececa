"""Machines that differ in their id alone: mount namespaces, each with its own /etc/machine-id."""

import shutil
from hashlib import sha256
from pathlib import Path

from testbed.capability import with_own_mounts

_ID = Path("/etc/machine-id")


def machine(directory: Path, name: str) -> tuple[str, ...]:
    """Return the command under which a program runs on the machine of this name.

    Args:
        directory: where the file with its id goes.
        name: machines of the same name have the same id.

    Raises:
        pytest.fail.Exception, pytest.skip.Exception: we may not mount; see `capability.forbidden`.
    """
    own = sha256(name.encode()).hexdigest()[:32] + "\n"
    if _ID.exists():
        file, place = directory / f"{name}.machine-id", str(_ID)
        file.write_text(own)
    else:  # A container without systemd: there is nothing to mount over.
        file, place = directory / f"{name}.etc", str(_ID.parent)
        shutil.copytree(_ID.parent, file, symlinks=True)
        (file / _ID.name).write_text(own)
    script = 'mount --bind "$1" "$2" && shift 2 && exec "$@"'
    return (*with_own_mounts(), "sh", "-c", script, "machine", str(file), place)
