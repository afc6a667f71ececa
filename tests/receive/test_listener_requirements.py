"""Each listener has terms of its own: TLS and a login are required there, offered, or not offered."""

import json
import smtplib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from inbound.receiving import CLOSED, OPEN, PASSWORD, USER, certificate, issue_certificate, login, running
from testbed.ports import free_port as draw_port
from testbed.relay import PASSWORD as RELAY_PASSWORD
from testbed.relay import USERNAME, Relay

from mailer.config.receiving import Offer
from mailer.receive.settings import Offers
from mailer.receive.users.accounts import single_login

REQUIRED, OFFERED, NONE = Offer.REQUIRED, Offer.OFFERED, Offer.NONE


@pytest.mark.parametrize(
    ("starttls", "auth", "clear", "after_tls", "after_login"),
    [
        # EHLO's STARTTLS and AUTH and the reply to MAIL: in clear, after STARTTLS, and after a login there.
        (OFFERED, REQUIRED, (True, True, 530), (False, True, 530), 250),
        (OFFERED, OFFERED, (True, True, 250), (False, True, 250), 250),
        (OFFERED, NONE, (True, False, 250), (False, False, 250), None),
        (REQUIRED, REQUIRED, (True, False, 530), (False, True, 530), 250),
        (REQUIRED, NONE, (True, False, 530), (False, False, 250), None),
        (NONE, REQUIRED, (False, True, 530), None, 250),
        (NONE, NONE, (False, False, 250), None, None),
    ],
)
def test_what_a_client_is_offered_and_must_do(
    tmp_path: Path,
    starttls: Offer,
    auth: Offer,
    clear: tuple[bool, bool, int],
    after_tls: tuple[bool, bool, int] | None,
    after_login: int | None,
) -> None:
    # What the listener says holds whatever the receiver as a whole asks.
    for settings in (OPEN, CLOSED):
        terms = replace(settings, offers=Offers(starttls, auth))
        known = login(single_login(USER, PASSWORD))
        directory = tmp_path / str(settings.require_auth)
        directory.mkdir()
        with (
            running(directory, terms, known, certificate=certificate(directory)) as receiver,
            smtplib.SMTP("localhost", receiver.address[1]) as client,
        ):
            assert _offers(client) == clear
            if after_tls is not None:
                client.starttls(context=receiver.trust)
                assert _offers(client) == after_tls
            else:
                assert client.docmd("STARTTLS")[0] == 502
            if after_login is not None:
                client.login(USER, PASSWORD)
                assert _offers(client)[2] == after_login
            else:
                assert client.docmd("AUTH PLAIN AGEAYg==")[0] == 502


def _offers(client: smtplib.SMTP) -> tuple[bool, bool, int]:
    client.ehlo()
    code = client.mail("app@example.com")[0]
    client.rset()
    return client.has_extn("starttls"), client.has_extn("auth"), code


def test_a_certificate_for_another_port_leaves_port_25_as_applications_know_it(
    relay: Relay, tmp_path: Path
) -> None:
    chain, key = issue_certificate(tmp_path)
    submission = draw_port()
    tls = {"certificatePath": str(chain), "privateKeyPath": str(key)}
    relay.configure({"tls": tls, "listeners": [{"port": submission, "tls": "required"}]})
    with relay.serve():
        with smtplib.SMTP("127.0.0.1", relay.port) as application:
            application.ehlo()
            assert not application.has_extn("starttls")
            application.login(USERNAME, RELAY_PASSWORD)
        with smtplib.SMTP("127.0.0.1", submission) as distant:
            distant.ehlo()
            assert distant.has_extn("starttls")
            assert distant.docmd("MAIL FROM:<a@example.com>") == (
                530,
                b"5.7.0 Encryption is required here: say STARTTLS first",
            )
    relay.configure({"smtpTls": "offered"})
    with relay.serve(), smtplib.SMTP("127.0.0.1", relay.port) as application:
        application.ehlo()
        assert application.has_extn("starttls")


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        ({"smtpTls": "required"}, "$.smtpTls"),
        ({"listeners": [{"port": 1587, "tls": "starttls"}]}, "$.listeners[0].tls"),
        ({"listeners": [{"port": 1587}, {"port": 1588, "tls": "implicit"}]}, "$.listeners[1].tls"),
        (
            {
                "security": {"allowLocalOnly": False},
                "listeners": [{"host": "0.0.0.0", "port": 1587, "auth": "offered"}],
            },
            "$.listeners[0].auth",
        ),
        (
            {"security": {"allowLocalOnly": False}, "smtpHost": "0.0.0.0", "smtpAuth": "none"},
            "$.smtpAuth",
        ),
    ],
)
def test_terms_that_cannot_be_kept_are_refused_by_check_and_by_the_start(
    relay: Relay, settings: dict[str, Any], key: str
) -> None:
    relay.configure(settings)
    checked = relay.mailer("config", "check", "--json")
    assert checked.returncode == 78
    assert [problem["path"] for problem in json.loads(checked.stdout)["errors"]] == [key]
    started = relay.mailer("serve")
    assert started.returncode == 78
    assert key in started.stderr
