"""What `mailer doctor` finds of the spool."""

import json

from testbed.relay import Relay


def examined(relay: Relay, under: tuple[str, ...]) -> dict[str, tuple[str, str]]:
    """Grade and words of each of the spool's findings, with doctor run under a command."""
    done = relay.mailer("doctor", "--offline", "--json", under=under)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines, done.stderr
    return {line["what"]: (line["grade"], line["found"]) for line in lines if line["group"] == "spool"}
