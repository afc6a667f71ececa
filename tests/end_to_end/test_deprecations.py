"""One mail through all programs, with warnings as errors: what one Python deprecates, a later one lacks.

`scripts/try_python` runs this under other Pythons; it needs no program of the test bed.
"""

import json

import dkim
import pytest
from outbound.hostile import Server
from outbound.sending import MESSAGE, SENDER, TO, forward_to
from outbound.signing import DOMAIN, record_of, write_key
from testbed.http_client import ask
from testbed.relay import Relay
from testbed.waiting import until

from mailer.send.dkim.keys import KeyType


@pytest.mark.usefixtures("unmeasured")
def test_a_mail_is_accepted_signed_delivered_and_explained_without_a_warning(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONWARNINGS", "error")
    key = write_key(relay.directory / "keys", "mail", KeyType.RSA2048)
    signing = {"enabled": True, "keys": [{"domain": DOMAIN, "selector": "mail"}]}
    with Server() as provider, relay.monitor():
        relay.configure(forward_to(provider, dkim=signing))
        with relay.serve(), relay.connect() as client:
            client.sendmail(SENDER, TO, MESSAGE)
            until(lambda: ask(relay.http_port, "/health").json["status"] == "ok", "all to be well")
        waiting = json.loads(relay.mailer("spool", "ls", "--json").stdout)
        sent = relay.mailer_send("--once")
        assert (sent.returncode, "Warning" in sent.stderr) == (0, False), sent.stderr
    [message] = provider.messages
    assert dkim.verify(message.body, dnsfunc=lambda name, timeout: record_of(key).encode())
    told = relay.mailer("spool", "why", waiting["id"])
    assert (told.returncode, told.stderr) == (0, "")
    assert message.reply in told.stdout
