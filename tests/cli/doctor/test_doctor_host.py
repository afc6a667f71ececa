"""`mailer doctor` about this host: its ports, files, certificates, clock and sendmail."""

import datetime as dt
import json
import pwd
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import trustme
from outbound.examined import PAST, SECRET, doctor, problems
from outbound.hostile import Server
from outbound.signing import DOMAIN
from spools.file_trees import snapshot
from spools.states import Queue
from testbed.ci import only_root
from testbed.relay import Relay
from testbed.waiting import until

from mailer.cli.doctor.examination import clock_findings
from mailer.cli.doctor.files import sendmail_findings
from mailer.config.load import load
from mailer.mail.finding import Grade


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
    shutil.copy(Path(__file__).parents[3] / "spool" / "README.md", relay.spool)
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
