"""Copy what scripts/venv has installed: the packages of lock files, each file checked against its RECORD.

python vendor.py DIRECTORY LOCK...
"""

import base64
import hashlib
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement


def pinned(lock: Path) -> Iterator[Requirement]:
    """Yield the releases of a lock that this Python needs."""
    for line in lock.read_text().splitlines():
        if line and not line.startswith(("#", " ")):
            requirement = Requirement(line.removesuffix("\\"))
            if requirement.marker is None or requirement.marker.evaluate():
                yield requirement


def copy(requirement: Requirement, target: Path) -> None:
    """Copy a package's modules, and no programs."""
    found = metadata.distribution(requirement.name)
    if not requirement.specifier.contains(found.version):
        sys.exit(f"{found.name} {found.version} is installed, and {requirement} is locked: scripts/venv")
    recorded = []
    for each in sorted(found.files or (), key=str):
        if ".." in each.parts or each.suffix == ".pyc":
            continue
        if each.name == "RECORD" and each.parent.suffix == ".dist-info":
            record = target / each
            continue
        data = Path(str(each.locate())).read_bytes()
        # pip gives every file one but those that it writes after RECORD.
        if each.hash is not None and each.hash.value != (digest := digest_of(data, each.hash.mode)):
            sys.exit(f"{each.locate()} was changed after its installation: rm -r .venv, then scripts/venv")
        recorded.append(f"{each},{each.hash.mode}={digest},{len(data)}" if each.hash else f"{each},,")
        (target / each).parent.mkdir(parents=True, exist_ok=True)
        (target / each).write_bytes(data)
    record.write_text("".join(f"{line}\n" for line in recorded))


def digest_of(data: bytes, mode: str) -> str:
    """Return a digest as RECORD has it."""
    return base64.urlsafe_b64encode(hashlib.new(mode, data).digest()).rstrip(b"=").decode()


if __name__ == "__main__":
    into, *locks = map(Path, sys.argv[1:])
    for lock in locks:
        for requirement in pinned(lock):
            copy(requirement, into)
