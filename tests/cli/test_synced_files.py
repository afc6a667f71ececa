"""What an operator's command made is there after a power cut: the directory is synced after its last name."""

import re
from pathlib import Path

import pytest
from spools.strace import Call, calls_in
from testbed.capability import tracer
from testbed.relay import Relay

_NAMES = "openat,rename,renameat,renameat2,linkat,mkdirat,unlinkat,unlink,fsync"
_PLACE = re.compile(r"(?:AT_FDCWD|\d+)<([^>]*)>")


def directories(call: Call, below: Path) -> set[str]:
    """The directories in which a call adds or removes a name for good, as descriptors show them."""
    if call.result < 0 or call.name == "fsync" or (call.name == "openat" and "O_CREAT" not in call.arguments):
        return set()
    # A lock file means nothing once its program has ended.
    if call.name == "openat" and ".lock" in call.arguments:
        return set()
    return {place for place in _PLACE.findall(call.arguments) if place.startswith(str(below))}


@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize(
    ("command", "made"),
    [
        ("user add web", "users.json"),
        ("dkim keygen --domain one.test", "keys/one.test/mail.private"),
        ("init --sender app@one.test --local --config other.json", "other.json"),
    ],
)
def test_a_new_name_is_synced_before_the_command_ends(
    command: str, made: str, relay: Relay, tmp_path: Path
) -> None:
    trace = tmp_path / "trace"
    under = (tracer(), "-f", "-y", "-o", str(trace), "-e", f"trace={_NAMES}")
    done = relay.mailer(*command.split(), under=under, given="a good password\n")
    assert done.returncode == 0, done.stderr
    assert (relay.directory / made).exists()
    unsynced: dict[str, Call] = {}
    changed = set()
    for call in calls_in(trace):
        if call.name == "fsync" and call.result == 0:
            unsynced.pop(call.path, None)
        for directory in directories(call, relay.directory):
            unsynced[directory] = call
            changed.add(directory)
    assert str((relay.directory / made).parent) in changed
    assert not unsynced
