"""The guide for several hosts is followed as it is written, with real programs on both sides."""

import os
import re
import shlex
import sys
from pathlib import Path

import pytest
from outbound.hostile import HANG, Server
from spools.handing_over import owned
from spools.states import Queue
from spools.walk import walk
from testbed.relay import Relay
from testbed.waiting import until

from mailer.cli.guide import guides

[GUIDE] = [each for each in guides("en") if each.topic == "several-hosts"]


def commands(heading: str) -> list[list[str]]:
    """The words of each command of mailer in a section of the guide."""
    section = GUIDE.text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = "".join(re.findall(r"^```sh\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)).splitlines()
    words = [shlex.split(line, comments=True) for line in lines]
    assert words
    return [each for each in words if each[0] != "systemctl"]


def follow(relay: Relay, words: list[str]) -> str:
    program, *arguments = words
    done = relay.mailer_send(*arguments) if program == "mailer-send" else relay.mailer(*arguments)
    assert done.returncode == 0, (words, done.stderr)
    return done.stdout


@pytest.fixture
def other(tmp_path: Path) -> Relay:
    """The relay of another host."""
    directory = tmp_path / "other"
    directory.mkdir()
    return Relay(directory)


def test_a_host_is_taken_down(relay: Relay, other: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    script = relay.directory / "ssh"
    script.write_text(
        f'#!/bin/sh\n[ "$1" = relay2 ] || exit 9\nshift\nexport MAILER_CONFIG={other.config}\n'
        f'exec {sys.executable} -m "$@"\n'
    )
    script.chmod(0o700)
    monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")
    queue = Queue(relay.spool)
    queue.new()
    waits, held = queue.new(), queue.new()
    queue.defer(waits, "451 try later")
    queue.hold(held, "asked the customer first")
    listed = [follow(relay, words) for words in commands("Take a host down")][-2]
    assert "ID" not in listed.split()
    assert walk(relay.spool) == {}
    assert len(relay.delivered()) == 1
    assert owned(other.spool).keys() == {waits, held}


def test_the_mail_of_a_host_that_is_gone_is_taken_from_its_disk(relay: Relay, other: Relay) -> None:
    with Server({"dot": HANG}) as server:
        provider = {"host": server.host, "port": server.port, "ssl": False}
        other.configure({"forwardSMTP": True, "forwardProviders": [provider]})
        queue = Queue(other.spool)
        doubtful = queue.new()
        with other.watch() as runner:
            until(lambda: "committing" in walk(other.spool)[doubtful].kinds, "a message in doubt")
            runner.kill()
    waits = queue.new()
    (relay.directory / "gone.json").write_text(
        other.config.read_text().replace('"spool"', f'"{other.spool}"')
    )
    (relay.directory / "gone.json").chmod(0o600)
    dry, moved, listed = (
        follow(relay, [word.replace("/var/spool/mailer", str(relay.spool)) for word in words])
        for words in commands("A host is gone")
    )
    for each in (doubtful, waits):
        assert f"{each} would be moved" in dry
        assert moved.count(f"{each} moved") == 1
    assert {doubtful, waits} == owned(relay.spool).keys()
    assert all(each in listed for each in (doubtful, waits))
    assert walk(other.spool) == {}
    assert "it may or may not have been delivered" in relay.mailer("spool", "why", doubtful).stdout
