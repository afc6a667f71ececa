"""What programs say on standard error: logfmt or JSON, and with priorities where the journal reads it."""

import json
import os
import subprocess
from pathlib import Path

import pytest
from outbound.sending import queue
from testbed.relay import Relay, mailer_send_command
from testbed.waiting import until


def test_the_configuration_chooses_the_format_and_the_command_line_overrules_it(relay: Relay) -> None:
    relay.configure({"logFormat": "json"})
    message = queue(relay.spool)
    (line,) = relay.mailer_send("--once", "--verbose").stderr.splitlines()
    told = json.loads(line)
    assert (told["level"], told["event"], told["id"], told["to"]) == (
        "info",
        "sent",
        message,
        ["bob@example.net"],
    )
    queue(relay.spool)
    (line,) = relay.mailer_send("--verbose", "--log-format", "logfmt").stderr.splitlines()
    assert " event=sent from=app@example.com to=bob@example.net " in line
    assert relay.mailer_send("--log-format", "xml").returncode == 2


@pytest.mark.parametrize("option", ["logfmt", "json"])
def test_all_programs_of_up_speak_alike(relay: Relay, option: str) -> None:
    with relay.up("--log-format", option) as process:
        until(lambda: "watching the spool" in process.output(), "the runner to be there")
        process.stop()
    lines = process.output().splitlines()
    assert len(lines) >= 4
    assert {line.startswith("{") for line in lines} == {option == "json"}
    if option == "json":
        assert {"ended", "watching the spool"} <= {json.loads(line)["text"] for line in lines}


@pytest.mark.parametrize("option", ["logfmt", "json"])
def test_the_journal_gets_priorities(relay: Relay, tmp_path: Path, option: str) -> None:
    """systemd.exec(5): JOURNAL_STREAM names what standard error is; here it is a file."""
    queue(relay.spool)
    with (tmp_path / "journal").open("wb") as journal:
        state = os.fstat(journal.fileno())
        stream = {"JOURNAL_STREAM": f"{state.st_dev}:{state.st_ino}"}
        command = [*mailer_send_command(), "-v", "--log-format", option, "--config", str(relay.config)]
        subprocess.run(command, stderr=journal, env=os.environ | stream, check=True)
    (line,) = (tmp_path / "journal").read_text().splitlines()
    assert line.startswith("<6>{" if option == "json" else "<6>id=")
