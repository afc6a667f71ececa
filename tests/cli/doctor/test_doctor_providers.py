"""`mailer doctor` tries each provider up to the login, and names what is wrong there."""

import datetime as dt
import json
import ssl
from pathlib import Path

import pytest
import trustme
from outbound.destinations import secure_postfix, trust_provider
from outbound.examined import NO_DNS, PAST, SECRET, doctor, through
from outbound.hostile import Server
from outbound.sending import forward_to, queue
from outbound.signing import DOMAIN
from testbed.name_server import NameServer
from testbed.relay import Relay

from mailer.cli.doctor.network import unsigned
from mailer.config.load import load
from mailer.spool.directory import Spool
from mailer.spool.state import provider_state
from mailer.spool.state.provider_state import ProviderState


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def _trusted(authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))


def serving(authority: trustme.CA, name: str = "localhost", **options) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name, **options).configure_cert(context)
    return context


def provider_found(relay: Relay, *arguments: str, code: int | None = None) -> dict[str, dict[str, str]]:
    found = doctor(relay, *arguments, code=code)
    return {what: line for (group, what), line in found.items() if group == "provider p"}


@pytest.mark.usefixtures("_trusted")
@pytest.mark.parametrize("implicit", [True, False])
def test_a_provider_is_tried_up_to_the_login_and_no_mail_begins(relay: Relay, authority, implicit) -> None:
    with Server(tls=serving(authority), implicit_tls=implicit, auth="PLAIN") as server:
        through(relay, server.port, ssl=implicit)
        found = provider_found(relay)
        server.wait()
    assert {what: line["grade"] for what, line in found.items()} == {
        "dns": "ok",
        "connect": "ok",
        "tls": "ok",
        "login": "ok",
        "breaker": "ok",
    }
    assert "TLSv1.3" in found["tls"]["found"]
    assert "days" in found["tls"]["found"]
    commands = [command.split()[0] for session in server.sessions for command in session.commands]
    assert set(commands) <= {b"EHLO", b"STARTTLS", b"AUTH", b"QUIT"}
    assert commands[-1] == b"QUIT"


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1")
def test_a_provider_without_a_tls_of_this_decade_is_not_said_to_lack_authorities(
    relay: Relay, authority: trustme.CA
) -> None:
    old = serving(authority)
    old.set_ciphers("ALL:@SECLEVEL=0")
    old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1
    with Server(tls=old, auth="PLAIN") as server:
        through(relay, server.port, insecureSkipVerify=True)
        found = provider_found(relay)["tls"]
    assert "protocol version" in found["found"]
    assert "have the server updated" in found["todo"]
    assert "ca-certificates" not in found["todo"]


@pytest.mark.usefixtures("_trusted")
@pytest.mark.parametrize(
    ("script", "certificate", "step", "words"),
    [
        ({"auth": "535 5.7.8 no such login"}, {}, "login", "535 5.7.8 no such login"),
        ({"auth": f"535 5.7.8 what is {SECRET}?"}, {}, "login", "***"),
        (
            {},
            {"not_before": PAST, "not_after": PAST + dt.timedelta(days=1)},
            "tls",
            "certificate has expired",
        ),
        ({"starttls": "454 4.7.0 not today"}, {}, "tls", "not today"),
        ({"banner": "554 5.3.2 go away"}, {}, "connect", "go away"),
    ],
)
def test_a_providers_trouble_is_reported_at_the_step_where_it_occurs(
    relay: Relay, authority, script, certificate, step, words
) -> None:
    with Server(script, tls=serving(authority, **certificate), auth="PLAIN") as server:
        through(relay, server.port)
        found = provider_found(relay, code=1)
    assert found[step]["grade"] == "problem"
    assert words in found[step]["found"]
    assert [line["grade"] for what, line in found.items() if what != step] == ["ok"] * (len(found) - 1)


@pytest.mark.usefixtures("_trusted")
def test_a_certificate_that_ends_soon_is_a_warning(relay: Relay, authority) -> None:
    soon = dt.datetime.now(dt.UTC) + dt.timedelta(days=3.5)
    with Server(tls=serving(authority, not_after=soon), auth="PLAIN") as server:
        through(relay, server.port)
        found = provider_found(relay)
    assert (found["tls"]["grade"], "expires in 3 days" in found["tls"]["found"]) == ("warning", True)


def test_a_provider_without_tls_or_without_verification_is_a_warning(
    relay: Relay, authority, elsewhere: str
) -> None:
    with Server(auth="PLAIN") as server:
        through(relay, server.port)
        assert provider_found(relay)["tls"]["found"] == "none: mail travels in clear"
    with Server(tls=serving(authority), auth="PLAIN", host=elsewhere) as server:
        through(relay, server.port, elsewhere, insecureSkipVerify=True)
        found = provider_found(relay)
    assert (found["tls"]["grade"], "not verified" in found["tls"]["found"]) == ("warning", True)


@pytest.mark.parametrize("implicit", [True, False])
def test_the_advice_about_a_bridges_own_certificate_works(relay: Relay, authority, implicit) -> None:
    with Server(tls=serving(authority, "127.0.0.1"), implicit_tls=implicit, auth="PLAIN") as server:
        through(relay, server.port, "127.0.0.1", ssl=implicit)
        found = provider_found(relay, code=1)["tls"]
        assert "certificate verify failed" in found["found"]
        assert "insecureSkipVerify" in found["todo"]
        through(relay, server.port, "127.0.0.1", ssl=implicit, insecureSkipVerify=True)
        found = provider_found(relay)
        queue(relay.spool)
        assert relay.mailer_send("--once").returncode == 0
        assert len(server.messages) == 1
    assert (found["tls"]["grade"], found["login"]["grade"]) == ("ok", "ok")
    assert "insecureSkipVerify" not in relay.mailer("config", "check").stderr


@pytest.mark.parametrize(("hostname", "grade"), [("relay.example.com", "ok"), ("vm.local", "warning")])
def test_the_ehlo_name_is_checked_for_providers(
    relay: Relay, free_port: int, hostname: str, grade: str
) -> None:
    through(relay, free_port)
    relay.configure({"hostname": hostname})
    assert doctor(relay)["our name", "hostname"]["grade"] == grade


@pytest.mark.parametrize(
    ("dkim", "more", "grade", "words"),
    [
        ({"domain": DOMAIN}, {}, "ok", "signed with the one key"),
        ({"keys": [{"domain": DOMAIN}]}, {}, "warning", "it waits until it expires"),
        ({"keys": [{"domain": DOMAIN}], "onMissingKey": "send"}, {}, "ok", "leaves unsigned"),
        ({"keys": [{"domain": DOMAIN}]}, {"rewriteFrom": "replace"}, "ok", "rewriteFrom"),
        ({}, {"defaultUsername": "app"}, "problem", "all mail waits"),
    ],
)
def test_mail_without_a_domain_has_its_own_finding(relay: Relay, dkim, more, grade, words) -> None:
    relay.configure({"dkim": {"enabled": True, **dkim}, **more})
    found = unsigned(load(relay.config, {}).config)
    assert found is not None
    assert (found.grade, words in found.found, bool(found.todo)) == (grade, True, grade != "ok")


def test_doctor_reports_mail_without_a_domain(relay: Relay, free_port: int) -> None:
    through(relay, free_port)
    relay.configure({"dkim": {"enabled": True, "keys": [{"domain": DOMAIN}]}})
    assert "dkim.onMissingKey" in doctor(relay)["signing", "dkim"]["todo"]


def test_a_paused_provider_is_reported(relay: Relay, free_port: int) -> None:
    with Server({"auth": "535 5.7.8 no such login"}, auth="PLAIN") as server:
        through(relay, server.port)
        queue(relay.spool)
        assert relay.mailer_send("--once").returncode == 0
        server.script.clear()
        found = provider_found(relay)
    assert (found["login"]["grade"], found["breaker"]["grade"]) == ("ok", "warning")
    assert "535 5.7.8 no such login" in found["breaker"]["found"]
    assert "our account at p: " in found["breaker"]["todo"]
    assert "`mailer providers reset p`" in found["breaker"]["todo"]


def test_providers_with_equal_names_are_reported_separately(relay: Relay, free_port: int) -> None:
    with Server() as server:
        relay.configure(forward_to(server, free_port, dns=NO_DNS))
        done = relay.mailer("doctor", "--json")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    found = [line["grade"] for line in lines if (line["what"], line["group"][:8]) == ("connect", "provider")]
    assert found == ["ok", "problem"]


def test_an_unreachable_provider_is_a_problem(relay: Relay, free_port: int) -> None:
    through(relay, free_port)
    assert provider_found(relay, code=1)["connect"]["found"] == "Connection refused"
    through(relay, free_port, host="nowhere.invalid")
    assert provider_found(relay, code=1)["dns"]["grade"] == "problem"


def test_offline_makes_no_request(relay: Relay) -> None:
    with Server(auth="PLAIN") as server:
        through(relay, server.port)
        doctor(relay, "--offline", code=0)
    assert server.sessions == []


def test_a_real_postfix_accepts_the_login_or_refuses_it(relay: Relay, tmp_path: Path, monkeypatch) -> None:
    for name, value in trust_provider(tmp_path).items():
        monkeypatch.setenv(name, value)
    with secure_postfix(relay, tmp_path):
        [provider] = json.loads(relay.config.read_text())["forwardProviders"]
        through(relay, provider["port"], username=provider["username"], password=provider["password"])
        found = provider_found(relay, "--domain", DOMAIN)
        assert (found["tls"]["grade"], found["login"]["grade"]) == ("ok", "ok"), found
        through(relay, provider["port"], username=provider["username"])
        found = provider_found(relay, "--domain", DOMAIN, code=1)
    assert found["login"]["grade"] == "problem"
    assert "535 5.7.8" in found["login"]["found"]


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        ("535 5.7.139 Authentication unsuccessful", "allow SMTP AUTH"),
        ("535 5.7.8 Your password has expired", "renew it there"),
    ],
)
def test_no_other_password_is_asked_for_where_none_would_help(
    reply: str, expected: str, relay: Relay, server: NameServer
) -> None:
    with Server({"auth": reply}, auth="PLAIN") as provider:
        through(relay, provider.port, username="relay", password="x")
        done = relay.mailer("doctor", "--resolver", str(server))
    assert expected in done.stdout
    assert "check username" not in done.stdout


def test_a_used_up_allowance_is_waited_for_and_not_reset(relay: Relay, server: NameServer) -> None:
    now = dt.datetime.now(dt.UTC)
    quota = ProviderState(
        opened=now, open_until=now + dt.timedelta(hours=1), kind="quota", trouble="450 4.2.1 quota exceeded"
    )
    with Server() as provider:
        relay.configure(forward_to(provider))
        with Spool.open(relay.spool, create=True) as spool:
            provider_state.write(spool, {f"127.0.0.1:{provider.port}": quota})
        done = relay.mailer("doctor", "--resolver", str(server))
    assert "to do: wait until 127.0.0.1 renews our allowance" in done.stdout
    assert "providers reset" not in done.stdout
