"""What the programs have synced when they say that it is done, seen by strace: each fsync is some promise's.

Power cuts (`test_power_cut`) show that these are enough; here each that is left out is seen at once.
"""

import re
from pathlib import Path

import pytest
from outbound.hostile import Server
from outbound.sending import TO, forward_to, queue
from spools.moves import MOVE
from spools.strace import Call, calls_in
from testbed.capability import tracer
from testbed.relay import Relay

WATCHED = "fsync,fdatasync,write,unlinkat,linkat,rename,renameat,renameat2"

pytestmark = pytest.mark.usefixtures("unmeasured")


class Trace:
    """The calls of a program that has ended, each found after another one."""

    def __init__(self, calls: list[Call]) -> None:
        self._calls = calls
        self.at = -1

    def then(self, name: str, pattern: str) -> "Trace":
        """Go on to the next such call that succeeded, which must be there."""
        for number in range(self.at + 1, len(self._calls)):
            call = self._calls[number]
            succeeded = call.result >= 0 and re.fullmatch(name, call.name)
            if succeeded and re.search(pattern, call.arguments):
                self.at = number
                return self
        rest = "\n".join(f"{c.name}({c.arguments})" for c in self._calls[self.at + 1 :])
        raise AssertionError(f"no {name} of {pattern} any more; there is\n{rest}")

    def begin(self) -> "Trace":
        self.at = -1
        return self


def traced(relay: Relay, directory: Path, *command: str) -> Trace:
    log = directory / "trace"
    under = (tracer(), "-f", "-y", "-s", "4096", "-o", str(log), "-e", f"trace={WATCHED}")
    program = relay.mailer_send if command[0] == "--once" else relay.mailer
    program(*command, under=under)
    return Trace(calls_in(log))


def test_a_runner_syncs_the_removal_of_what_it_has_delivered(relay: Relay, tmp_path: Path) -> None:
    """In both directories that may still have the message, or it comes back after a power cut."""
    with Server() as server:
        relay.configure(forward_to(server))
        message = queue(relay.spool)
        trace = traced(relay, tmp_path, "--once")
        assert [to for to, _ in server.delivered()] == [TO]
    removed = trace.then("unlinkat", f'"cur/{message}"').at
    for directory in ("cur", "new"):
        trace.at = removed
        trace.then("fsync", f"/{directory}>")


def test_a_local_delivery_is_recorded_when_the_copy_and_its_name_are_durable(
    relay: Relay, tmp_path: Path
) -> None:
    message = queue(relay.spool)
    trace = traced(relay, tmp_path, "--once")
    copy = rf"local/tmp/\d+\.{message}\.mailer"
    trace.then("write", copy).then("fsync", copy).then("renameat2", f'{copy}", .*local/new')
    trace.then("fsync", "/local/new>").then("write", f"/{message}>.*event.*sent")


def test_a_held_message_is_durable_in_hold_before_the_command_says_so(relay: Relay, tmp_path: Path) -> None:
    message = queue(relay.spool)
    trace = traced(relay, tmp_path, "spool", "hold", message)
    trace.then("write", f"{message}>.*event.*held").then("fdatasync", message).then(MOVE, f'"hold/{message}"')
    trace.then("fsync", "/hold>").then("fsync", "/new>").then("write", f"^1<.*{message} held")


def test_a_removed_message_is_durably_gone_before_the_command_says_so(relay: Relay, tmp_path: Path) -> None:
    message = queue(relay.spool)
    trace = traced(relay, tmp_path, "spool", "rm", message)
    trace.then("unlinkat", f'"new/{message}"').then("fsync", "/new>").then("write", f"^1<.*{message} removed")


def test_a_file_in_state_is_whole_before_it_takes_the_others_place(relay: Relay, tmp_path: Path) -> None:
    """And a pause is durable: after a power cut nothing must be sent."""
    queue(relay.spool)
    trace = traced(relay, tmp_path, "pause")
    trace.then("write", r"state/\.paused").then("fsync", r"state/\.paused").then(
        "rename|renameat", '"paused"'
    )
    trace.then("fsync", "/state>")
    trace = traced(relay, tmp_path, "resume")
    trace.then("unlinkat", "state/paused").then("fsync", "/state>")


def test_a_run_leaves_a_last_run_that_is_whole(relay: Relay, tmp_path: Path) -> None:
    queue(relay.spool)
    name = r"state/\.last-run\.json"
    trace = traced(relay, tmp_path, "--once")
    trace.then("write", name).then("fsync", name).then("rename|renameat", '"last-run.json"')
