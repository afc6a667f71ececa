"""`mailer doctor` on a host in order, and each of its checks with the defect that it is for."""

import asyncio
import datetime as dt
import json
import os
import pwd
import shutil
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import trustme
from outbound.destinations import secure_postfix, trust_provider
from outbound.hostile import HANG, Server
from outbound.sending import forward_to, queue
from outbound.signing import DOMAIN
from spools.file_trees import snapshot
from spools.states import Queue
from testbed.ci import only_root
from testbed.name_server import NameServer, txt
from testbed.relay import PASSWORD, Relay
from testbed.terminal import Terminal
from testbed.waiting import until

from mailer.cli.doctor.examination import clock_findings
from mailer.cli.doctor.files import sendmail_findings
from mailer.cli.doctor.network import unsigned
from mailer.config.load import load
from mailer.mail.finding import Grade
from mailer.send.resolver import DnsResolver
from mailer.spool.directory import Spool
from mailer.spool.state import provider_state
from mailer.spool.state.provider_state import ProviderState

SECRET = "open sesame, and nobody else"
PAST = dt.datetime(2001, 1, 1, tzinfo=dt.UTC)
EGRESS = "192.0.2.25"
NO_DNS = {"nameservers": ["127.0.0.1:1"], "timeout": "20ms"}
"""Nobody answers there, which says nothing about providers: those are looked up as the system does."""
HOST = "mx.example.com"


def doctor(relay: Relay, *arguments: str, code: int | None = None) -> dict[tuple[str, str], dict[str, str]]:
    """What doctor found, by group and thing; of several with one name the worst."""
    done = relay.mailer("doctor", "--json", *arguments)
    assert done.stderr == ""
    if code is not None:
        assert done.returncode == code, done.stdout
    order = list(map(str, (Grade.SKIPPED, Grade.OK, Grade.UNKNOWN, Grade.WARNING, Grade.PROBLEM)))
    lines = sorted(map(json.loads, done.stdout.splitlines()), key=lambda line: order.index(line["grade"]))
    for line in lines:
        assert line.keys() == {"group", "what", "about", "grade", "found", "todo"}
        assert SECRET not in str(line)
        assert PASSWORD not in str(line)
        # The configuration's own messages say what to do themselves.
        assert line["todo"] or line["grade"] in {"ok", "skipped"} or line["what"] == "config", line
    return {(line["group"], line["what"]): line for line in lines}


def problems(found: dict[tuple[str, str], dict[str, str]]) -> set[tuple[str, str]]:
    return {where for where, line in found.items() if line["grade"] == "problem"}


# This host.


def test_before_the_first_start_there_is_no_problem_and_nothing_is_made(relay: Relay) -> None:
    before = snapshot(relay.directory)
    found = doctor(relay, "--offline", code=0)
    assert found["spool", "owner"]["found"] == "does not exist yet; the first start creates it"
    assert found["ports", "smtp"]["grade"] == "skipped"
    assert found["network", "network"]["grade"] == "skipped"
    assert snapshot(relay.directory) == before


def test_a_clone_whose_spool_holds_only_a_readme_was_never_started(relay: Relay) -> None:
    relay.spool.mkdir(mode=0o755)
    relay.spool.chmod(0o755)
    shutil.copy(Path(__file__).parents[2] / "spool" / "README.md", relay.spool)
    found = doctor(relay, "--offline", code=0)
    assert "no program has used it yet" in found["spool", "owner"]["found"]
    assert found["spool", "modes"]["grade"] == "ok"
    assert found["queue", "queue"]["found"] == "mailer was never started here"
    assert found["ports", "smtp"]["grade"] == "skipped"
    assert "never started here" in found["ports", "smtp"]["found"]


def test_while_everything_runs_all_is_well_and_no_mail_is_made(relay: Relay) -> None:
    with relay.up(), relay.connect() as client:
        client.sendmail("app@example.com", ["bob@example.net"], "Subject: hello\r\n\r\n")
        before = {path for path in relay.spool.rglob("*") if path.parent.name != "new"}
        found = doctor(relay, "--offline", code=0)
        after = {path for path in relay.spool.rglob("*") if path.parent.name != "new"}
        until(relay.delivered, "the mail to be delivered")
    assert found["ports", "smtp"]["grade"] == "ok"
    assert "ESMTP mailer" in found["ports", "smtp"]["found"]
    assert found["queue", "runner"]["grade"] == "ok"
    assert {path for path in after - before if path.relative_to(relay.spool).parts[0] == "tmp"} == set()
    assert len(relay.delivered()) == 1


def test_a_receiver_that_is_down_is_a_problem_once_there_is_a_spool(relay: Relay) -> None:
    Queue(relay.spool)
    found = doctor(relay, "--offline", code=1)
    assert problems(found) == {("ports", "smtp")}
    assert "mailer serve" in found["ports", "smtp"]["todo"]


def test_another_program_at_our_ports_is_a_problem(relay: Relay, free_port: int) -> None:
    with Server(port=free_port):
        relay.configure({"smtpPort": free_port, "enableHealthCheck": True, "healthCheckPort": free_port})
        found = doctor(relay, "--offline", code=1)
    assert problems(found) == {("ports", "smtp"), ("ports", "health")}
    assert found["ports", "smtp"]["found"] == "another program answers: 220 hostile.example ESMTP"


def test_the_monitors_health_is_reported(relay: Relay, free_port: int) -> None:
    Queue(relay.spool)
    relay.configure({"enableHealthCheck": True, "healthCheckPort": free_port})
    assert "mailer monitor" in doctor(relay, "--offline")["ports", "health"]["todo"]
    with relay.up() as running:
        running.await_port(free_port)
        found = doctor(relay, "--offline", code=0)
    assert found["ports", "health"]["found"] == "the monitor says that all is well"


def test_a_configuration_that_cannot_be_used_is_78_and_no_value_is_repeated(relay: Relay) -> None:
    relay.configure({"smtpPort": SECRET, "batchSizes": 3})
    done = relay.mailer("doctor", "--json")
    assert done.returncode == 78
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["about"] for line in found if line["grade"] == "problem"] == ["$.batchSizes", "$.smtpPort"]
    assert SECRET not in done.stdout


def test_what_keeps_the_receiver_from_starting_is_a_problem(relay: Relay) -> None:
    relay.configure({"defaultPassword": "your-strong-password"})
    found = doctor(relay, "--offline", code=78)
    assert found["configuration", "config"]["about"] == "$.defaultPassword"


def test_a_warning_exits_0_and_1_when_asked_to_be_strict(relay: Relay) -> None:
    relay.configure({"security": {"requireAuth": False}})
    assert relay.mailer("doctor", "--offline").returncode == 0
    assert relay.mailer("doctor", "--offline", "--strict").returncode == 1


def exposed_users(relay: Relay) -> tuple[str, str]:
    relay.mailer("user", "token", "shop", "--allow", "*")
    (relay.directory / "users.json").chmod(0o644)
    return "files", "users"


def broken_users(relay: Relay) -> tuple[str, str]:
    (relay.directory / "users.json").write_text('{"users": [{"name": 3}]}')
    return "files", "users"


def missing_key(relay: Relay) -> tuple[str, str]:
    relay.configure({"dkim": {"enabled": True, "domain": DOMAIN}})
    return "files", "key"


def swapped_key(relay: Relay) -> tuple[str, str]:
    relay.configure({"dkim": {"enabled": True, "domain": DOMAIN}})
    for domain in (DOMAIN, "example.org"):
        relay.mailer("dkim", "keygen", "--domain", domain)
    keys = relay.directory / "keys"
    shutil.copy(keys / "example.org" / "mail.private", keys / DOMAIN / "mail.private")
    return "files", "key"


def foreign_certificate(relay: Relay) -> tuple[str, str]:
    _certificate(relay, trustme.CA().issue_cert("localhost"), trustme.CA().issue_cert("localhost"))
    return "files", "tls"


def expired_certificate(relay: Relay) -> tuple[str, str]:
    old = trustme.CA().issue_cert("localhost", not_before=PAST, not_after=PAST + dt.timedelta(days=1))
    _certificate(relay, old, old)
    return "files", "tls"


def exposed_certificate(relay: Relay) -> tuple[str, str]:
    good = trustme.CA().issue_cert("localhost")
    _certificate(relay, good, good)
    (relay.directory / "key.pem").chmod(0o644)
    return "files", "tls"


def _certificate(relay: Relay, certificate: trustme.LeafCert, key: trustme.LeafCert) -> None:
    paths = relay.directory / "cert.pem", relay.directory / "key.pem"
    paths[0].write_bytes(b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
    paths[1].touch(mode=0o600)
    paths[1].write_bytes(key.private_key_pem.bytes())
    relay.configure({"tls": {"certificatePath": str(paths[0]), "privateKeyPath": str(paths[1])}})


@pytest.mark.parametrize(
    "defect",
    [
        exposed_users,
        broken_users,
        missing_key,
        swapped_key,
        foreign_certificate,
        expired_certificate,
        exposed_certificate,
    ],
    ids=lambda defect: defect.__name__,
)
def test_a_file_that_is_wrong_is_a_problem(relay: Relay, defect) -> None:
    where = defect(relay)
    obstacle = defect in {exposed_users, broken_users, foreign_certificate, exposed_certificate}
    assert where in problems(doctor(relay, "--offline", code=78 if obstacle else 1))


def test_a_certificate_that_is_fine_says_for_how_long(relay: Relay) -> None:
    good = trustme.CA().issue_cert("localhost", not_after=dt.datetime.now(dt.UTC) + dt.timedelta(days=90.5))
    _certificate(relay, good, good)
    assert "expires in 90 days" in doctor(relay, "--offline", code=0)["files", "tls"]["found"]


@only_root("only root can become another user")
@pytest.mark.usefixtures("unmeasured")
@pytest.mark.parametrize(
    ("name", "content", "grade", "words"),
    [
        ("mailer-sendmail", b"\x7fELF...", Grade.OK, "compiled"),
        ("mailer-sendmail", b"#!/opt/mailer/bin/python", Grade.OK, "scripts/front compiles a faster one"),
        ("postfix", b"\x7fELF...", Grade.SKIPPED, "another program"),
        ("", b"", Grade.SKIPPED, "No such file"),
    ],
)
def test_doctor_says_which_program_is_sendmail(
    relay: Relay, tmp_path: Path, name, content, grade, words
) -> None:
    relay.configure({"submitSocket": str(tmp_path / "submit.sock"), "localUsers": []})
    if name:
        (tmp_path / name).write_bytes(content)
    (tmp_path / "sendmail").symlink_to(tmp_path / (name or "gone"))
    (found,) = sendmail_findings(load(relay.config, {}).config, tmp_path / "sendmail")
    assert (found.grade, words in found.found) == (grade, True)


def test_root_checks_files_as_the_spools_owner() -> None:
    """What root can read says nothing about what the programs can."""
    with TemporaryDirectory(prefix="mailer-test-") as name:
        path = Path(name)
        path.chmod(0o711)
        relay = Relay(path)
        Queue(relay.spool)
        nobody = pwd.getpwnam("nobody")
        for each in (relay.spool, *relay.spool.rglob("*")):
            shutil.chown(each, nobody.pw_uid, nobody.pw_gid)
        found = doctor(relay, "--offline", code=1)
        assert problems(found) == {("files", "config"), ("ports", "smtp")}
        assert found["files", "config"]["found"] == f"user {nobody.pw_uid} cannot read it"
        assert found["spool", "modes"]["grade"] == "ok"
        assert {each.stat().st_uid for each in relay.spool.rglob("*")} == {nobody.pw_uid}


@pytest.mark.parametrize(("now", "grade"), [(0.0, Grade.PROBLEM), (5e9, Grade.PROBLEM), (1.8e9, Grade.OK)])
def test_a_clock_that_cannot_be_right_is_a_problem(now: float, grade: Grade) -> None:
    time, *_ = clock_findings(now)
    assert (time.what, time.grade) == ("time", grade)


# Providers.


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


def through(relay: Relay, port: int, host: str = "localhost", **settings) -> None:
    provider = {"name": "p", "host": host, "port": port, "username": "u", "password": SECRET, **settings}
    relay.configure(forward_to(forwardProviders=[provider], dns=NO_DNS))


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


# Direct delivery and domains.

ZONE = {
    (DOMAIN, "TXT"): [txt(f"v=spf1 ip4:{EGRESS} -all")],
    (f"_dmarc.{DOMAIN}", "TXT"): [txt("v=DMARC1; p=reject")],
    (DOMAIN, "MX"): [f"10 {HOST}."],
    (HOST, "A"): [EGRESS, "127.0.0.1"],
    ("25.2.0.192.in-addr.arpa", "PTR"): [f"{HOST}."],
}


@pytest.fixture
def server() -> Iterator[NameServer]:
    with NameServer(ZONE) as running:
        yield running


@pytest.fixture
def exchanger() -> Iterator[Server]:
    with Server() as running:
        yield running


@pytest.fixture
def direct(relay: Relay, server: NameServer, exchanger: Server) -> Relay:
    """A relay that delivers directly and signs, and everything in DNS as it should be."""
    relay.configure(
        {
            "hostname": HOST,
            "directDelivery": {
                "enabled": True,
                "port": exchanger.port,
                "allowPrivate": True,
                "ipVersion": "4",
            },
            "dkim": {"enabled": True, "domain": DOMAIN},
            "dns": {"timeout": "1s"},
        }
    )
    # An exchanger at our own egress address would be asked first, and nobody is there.
    server.zone[HOST, "A"] = [EGRESS]
    server.zone["in.example.com", "A"] = ["127.0.0.1"]
    server.zone[DOMAIN, "MX"] = ["10 in.example.com."]
    assert relay.mailer("dkim", "keygen", "--domain", DOMAIN).returncode == 0
    record = json.loads(relay.mailer("dkim", "record", "--json").stdout)
    server.zone[record["name"], "TXT"] = [txt(record["value"])]
    return relay


def examined(relay: Relay, server: NameServer, *arguments: str, code: int | None = None):
    return doctor(relay, "--resolver", str(server), "--egress", EGRESS, *arguments, code=code)


def test_direct_delivery_in_order_has_nothing_to_do(direct: Relay, server: NameServer, exchanger) -> None:
    found = examined(direct, server, code=0)
    network = {where: line for where, line in found.items() if where[0].startswith(("direct", "domain"))}
    assert {line["grade"] for line in network.values()} == {"ok"}
    assert {what for group, what in network if group == f"domain {DOMAIN}"} == {"dkim", "spf", "dmarc", "mx"}
    assert {what for group, what in network if group != f"domain {DOMAIN}"} == {
        "hostname",
        "egress",
        "ptr",
        "outbound",
    }
    exchanger.wait()
    assert exchanger.messages == []
    assert exchanger.sessions[0].commands[-1] == b"QUIT"


@pytest.mark.parametrize(
    ("record", "texts", "where", "grade", "words"),
    [
        (("25.2.0.192.in-addr.arpa", "PTR"), [], ("direct delivery", "ptr"), "problem", "no PTR record"),
        ((HOST, "A"), ["192.0.2.1"], ("direct delivery", "ptr"), "problem", "does not resolve to it"),
        ((DOMAIN, "TXT"), [txt("v=spf1 -all")], (f"domain {DOMAIN}", "spf"), "problem", "fail (-all"),
        ((f"_dmarc.{DOMAIN}", "TXT"), [], (f"domain {DOMAIN}", "dmarc"), "warning", "no DMARC record"),
        (
            (f"mail._domainkey.{DOMAIN}", "TXT"),
            [txt("v=DKIM1; k=rsa; p=AAAA")],
            (f"domain {DOMAIN}", "dkim"),
            "problem",
            "another key",
        ),
        ((DOMAIN, "MX"), ["0 ."], (f"domain {DOMAIN}", "mx"), "warning", "null MX"),
    ],
)
@pytest.mark.usefixtures("direct")
def test_mistakes_in_dns_are_reported(request, record, texts, where, grade, words) -> None:
    relay, server = request.getfixturevalue("direct"), request.getfixturevalue("server")
    server.zone[record] = texts
    line = examined(relay, server, code=1 if grade == "problem" else 0)[where]
    assert (line["grade"], words in line["found"]) == (grade, True), line


def test_a_name_that_is_only_ours_and_another_ptr_are_reported(direct: Relay, server: NameServer) -> None:
    direct.configure({"hostname": "relay"})
    found = examined(direct, server, code=1)
    assert found["direct delivery", "hostname"]["grade"] == "problem"
    assert found["direct delivery", "ptr"]["grade"] == "warning"
    assert f"set hostname (or directDelivery.ehloDomain) to {HOST}" in found["direct delivery", "ptr"]["todo"]


def test_a_relay_on_this_host_sends_from_where_this_host_sends(relay: Relay, server: NameServer) -> None:
    with Server() as local:
        relay.configure(forward_to(local))
        done = relay.mailer("doctor", "--all", "--resolver", str(server), "--egress", EGRESS)
    assert f"ok      spf        {DOMAIN}: {EGRESS}: pass (ip4:{EGRESS} of {DOMAIN})" in done.stdout


def test_a_blocked_port_is_a_problem(direct: Relay, server: NameServer, free_port: int) -> None:
    settings = json.loads(direct.config.read_text())["directDelivery"]
    direct.configure({"directDelivery": settings | {"port": free_port}})
    line = examined(direct, server, code=1)["direct delivery", "outbound"]
    assert (line["grade"], "Connection refused" in line["found"]) == ("problem", True)


def test_a_host_behind_nat_is_asked_to_name_its_address(direct: Relay, server: NameServer, elsewhere) -> None:
    del elsewhere  # this host has an address that is not loopback, and it is a private or reserved one
    line = doctor(direct, "--resolver", str(server))["direct delivery", "egress"]
    if line["grade"] != "ok":  # a host with a public address knows it
        assert "--egress" in line["todo"]


def test_name_servers_that_do_not_answer_are_unknown_and_75(direct: Relay, server: NameServer) -> None:
    server.silent = True
    found = examined(direct, server, code=75)
    network = {line["grade"] for where, line in found.items() if where[0].startswith("domain")}
    assert network == {"unknown"}


def test_other_domains_are_looked_at_when_named(direct: Relay, server: NameServer) -> None:
    found = examined(direct, server, "--domain", "example.org", "--domain", "EXAMPLE.net.")
    groups = {group for group, _ in found if group.startswith("domain ")}
    assert groups == {"domain example.org", "domain example.net"}


def test_users_and_keys_name_the_domains_that_send(direct: Relay, server: NameServer) -> None:
    for name, sender in (("shop", "shop.example.org"), ("robot", "robot@example.net"), ("all", "*")):
        assert direct.mailer("user", "add", name, "--allow", sender, given="pass word\n").returncode == 0
    groups = {group for group, _ in examined(direct, server) if group.startswith("domain ")}
    assert groups == {f"domain {DOMAIN}", "domain shop.example.org", "domain example.net"}


@pytest.mark.parametrize("option", [("--domain", "a b"), ("--egress", "here"), ("--resolver", "a.invalid")])
def test_an_invalid_option_value_is_a_usage_error(direct: Relay, option: tuple[str, str]) -> None:
    assert direct.mailer("doctor", *option).returncode == 2


def test_a_reverse_name_is_asked_for_as_dns_has_it(server: NameServer) -> None:
    names = asyncio.run(DnsResolver([str(server)], 5).names(EGRESS))
    assert names == [HOST]


# What it looks like.


def test_text_says_what_was_checked_what_was_found_and_what_to_do(direct: Relay, server: NameServer) -> None:
    del server.zone["25.2.0.192.in-addr.arpa", "PTR"]
    done = direct.mailer("doctor", "--all", "--resolver", str(server), "--egress", EGRESS)
    lines = done.stdout.splitlines()
    at = next(number for number, line in enumerate(lines) if " ptr " in line)
    assert lines[at] == f"  problem ptr        {EGRESS}: no PTR record: large receivers refuse mail from it"
    assert lines[at + 1].strip().startswith("to do: ask the owner of the address")
    assert lines[-1].startswith("1 problem, ")
    assert [line for line in lines if not line.startswith(" ")][:-1] == [
        "configuration",
        "files",
        "spool",
        "queue",
        "clock",
        "ports",
        "direct delivery",
        f"domain {DOMAIN}",
        "signing",
    ]


def test_on_a_terminal_it_says_what_it_waits_for(relay: Relay) -> None:
    with Server({"banner": HANG}) as server:
        through(relay, server.port)
        argv = [sys.executable, "-m", "mailer", "doctor", "--all", "--config", str(relay.config)]
        with Terminal(argv, env={}, cwd=relay.directory) as terminal:
            terminal.await_text("... provider p")
            assert "clock" in terminal.screen()


def test_a_reader_may_close_the_pipe_before_the_end(relay: Relay) -> None:
    """Its probe's files are removed, and sessions ended, although the reader has gone."""
    reader, writer = os.pipe()
    os.close(reader)
    argv = [sys.executable, "-m", "mailer", "doctor", "--offline", "--config", str(relay.config)]
    done = subprocess.run(argv, stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")
    assert list(relay.directory.iterdir()) == [relay.config]


def test_problems_come_first_and_all_that_is_ok_is_one_line(direct: Relay, server: NameServer) -> None:
    del server.zone["25.2.0.192.in-addr.arpa", "PTR"]
    done = direct.mailer("doctor", "--resolver", str(server), "--egress", EGRESS)
    lines = done.stdout.splitlines()
    assert lines[0] == f"  problem ptr        {EGRESS}: no PTR record: large receivers refuse mail from it"
    [fine] = [line for line in lines if line.startswith("  ok")]
    assert fine == lines[-2]
    assert " checks: configuration, " in fine


def test_a_dead_name_server_is_one_problem_that_names_it(direct: Relay, free_port: int) -> None:
    """Not six symptoms, and no order to try again."""
    dead = f"127.0.0.1:{free_port}"
    direct.configure({"dns": {"nameservers": [dead], "timeout": "1s"}})
    done = direct.mailer("doctor", "--egress", EGRESS)
    lines = done.stdout.splitlines()
    assert lines[0].startswith(f"  problem dns        {dead}: gave no usable answer, and so ")
    assert f"to do: repair {dead}, or set another one in dns.nameservers" in lines[1]
    assert done.stdout.count("did not answer in time") == 1
    assert "try again" not in done.stdout


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
