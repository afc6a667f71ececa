"""What the ledger is told of a session: every refusal, once, and whose it was."""

import json
import smtplib

import pytest
from testbed.ports import LOOPBACK
from testbed.relay import PASSWORD, USERNAME, Relay


def told(relay: Relay) -> list[dict[str, object]]:
    """The ledger's lines without their times."""
    lines = relay.mailer("log", "--json").stdout.splitlines()
    return [{key: value for key, value in json.loads(line).items() if key != "at"} for line in lines]


def test_each_refusal_is_logged_once_with_the_client_and_the_reason(relay: Relay) -> None:
    peer = {"peer": LOOPBACK}
    user = {"user": USERNAME, **peer}
    sender = {"from": "app@example.com"}
    relay.configure({"maxMessageSize": 1000})
    with relay.serve(), smtplib.SMTP(LOOPBACK, relay.port) as session:
        session.ehlo()
        session.mail("app@example.com")
        with pytest.raises(smtplib.SMTPAuthenticationError):
            session.login(USERNAME, "wrong")
        session.login(USERNAME, PASSWORD)
        session.docmd("MAIL", "FROM:<no address>")
        session.mail("app@example.com")
        session.docmd("RCPT", "TO:<nobody at all>")
        session.docmd("RCPT", "TO:(c)bare@example.net")
        session.docmd("DATA")
        session.mail("app@example.com")
        session.rcpt("bob@example.net")
        assert session.data(b"x" * 2000)[0] == 552
        session.mail("")
        session.rcpt("bob@example.net")
        assert session.data(b"Subject: x\r\n\r\nhello\r\n")[0] == 250
    lines = told(relay)
    assert [str(line.get("reply", ""))[:9] for line in lines] == [
        "530 5.7.0", "", "", "501 5.1.7", "501 5.1.3", "501 5.1.3", "503 5.5.1", "552 5.3.4", "",
    ]  # fmt: skip
    for line in lines:
        line.pop("reply", None)
    accepted = lines.pop()
    assert lines == [
        {"event": "rejected", **peer},
        {"event": "login-failed", **user},
        {"event": "login-failed", **user},  # smtplib tries the next mechanism
        {"event": "rejected", **user},
        {"event": "rejected", **sender, "to": ["nobody at all"], **user},
        {"event": "rejected", **sender, "to": ["TO:(c)bare@example.net"], **user},
        {"event": "rejected", **sender, **user},
        {"event": "rejected", **sender, "to": ["bob@example.net"], "size": 2005, **user},
    ]
    assert (accepted["event"], accepted["from"], accepted["to"]) == ("accepted", "", ["bob@example.net"])
