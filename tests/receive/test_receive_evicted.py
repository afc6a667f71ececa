"""A receiver whose filesystem refuses every call, as CephFS does once a client has been evicted."""

import smtplib
import sys
import time
from pathlib import Path

import pytest
from testbed.capability import with_own_mounts
from testbed.relay import Relay

_MOUNTS = str(Path(__file__).parents[1] / "testbed" / "fuse_passthrough.py")
MAIL = "From: app@example.com\r\n\r\nhello\r\n"


def test_after_an_eviction_mail_is_refused_for_now_and_what_was_accepted_is_there(
    relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither free space nor the ledger can be had, and closing files fails; that must not end the session.

    The receiver looks at the free space ten times a second.
    """
    source, one, other = (relay.directory / name for name in ("source", "one", "other"))
    for each in (source, one, other):
        each.mkdir()
    evicted = relay.directory / "evicted"
    monkeypatch.setenv("FUSE_EVICTED", str(evicted))
    relay.configure({"spoolDir": "one/spool"})
    # Of the kinds that are taken for local; CephFS is refused.
    mounts = (sys.executable, _MOUNTS, "fuse.fuse-overlayfs", str(source), str(one), str(other))
    with relay.serve(under=(*with_own_mounts(), *mounts)) as receiver:
        with relay.connect() as client:
            client.sendmail("app@example.com", "bob@example.net", MAIL)
        evicted.touch()
        until = time.monotonic() + 0.5
        while time.monotonic() < until:
            with (
                relay.connect() as client,
                pytest.raises((smtplib.SMTPResponseException, smtplib.SMTPRecipientsRefused)) as refused,
            ):
                client.sendmail("app@example.com", "bob@example.net", MAIL)
            assert getattr(refused.value, "smtp_code", 0) in {451, 452}, refused.value
        assert receiver.stop() == 0, receiver.output()
        assert "a session failed" not in receiver.output()
    assert len(list((source / "spool" / "new").iterdir())) == 1
