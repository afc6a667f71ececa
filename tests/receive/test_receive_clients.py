"""Mail libraries of other languages, with the settings that their documentation gives first."""

import json
import subprocess
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from inbound.receiving import CLOSED, PASSWORD, USER, certificate, running, write_authority
from testbed.clients import CLIENTS, Server, Submission
from testbed.tools import program

JAVA = "/usr/share/java"
TESTBED = Path(__file__).parents[1] / "testbed"
# Debian's own Python has Debian's Django.
LIBRARIES = {
    "phpmailer": lambda _: [program("php"), str(TESTBED / "submit_with_phpmailer.php")],
    "django": lambda _: ["/usr/bin/python3", str(TESTBED / "submit_with_django.py")],
    "go": lambda directory: [str(built_with_go(directory))],
}
MESSAGE = b"From: <app@example.com>\r\nTo: <bob@example.net>\r\nSubject: dots\r\n\r\n.\r\n..two\r\nlast\r\n"


def built_with_go(directory: Path) -> Path:
    built = directory / "submit"
    environment = {
        "HOME": str(directory),
        "GOCACHE": str(directory / "cache"),
        "GO111MODULE": "off",
        "PATH": "/usr/bin:/bin",
    }
    subprocess.run(
        [program("go"), "build", "-o", str(built), str(TESTBED / "submit_with_go.go")],
        check=True,
        env=environment,
        capture_output=True,
    )
    return built


@pytest.mark.parametrize("tls", [False, True], ids=["clear", "starttls"])
@pytest.mark.parametrize("library", LIBRARIES)
def test_the_library_submits(tmp_path, library, tls):
    authority = write_authority(tmp_path)
    command = LIBRARIES[library](tmp_path)
    with running(tmp_path, CLOSED, certificate=certificate(tmp_path) if tls else None) as receiver:
        order = {
            "host": "localhost",
            "port": receiver.address[1],
            "user": USER,
            "pass": PASSWORD,
            "from": "from@example.com",
            "to": "joe@example.net",
            "ca": str(authority) if tls else "",
        }
        done = subprocess.run(
            command,
            input=json.dumps(order).encode(),
            capture_output=True,
            timeout=120,
            check=False,
            env={"SSL_CERT_FILE": str(authority), "PATH": "/usr/bin:/bin"},
        )
        assert done.returncode == 0, done.stdout + done.stderr
        [entry] = (receiver.spool / "new").iterdir()
        stored = entry.read_bytes()
    assert b"Spool-Recipient: <joe@example.net>\r\n" in stored
    assert (b"SMTPSA id " in stored) == tls  # Go asks for SMTPUTF8, whose keyword is UTF8SMTPSA
    assert b"\r\nBcc:" not in stored
    assert stored.count(b"\r\nDate: ") == stored.lower().count(b"\r\nmessage-id: ") == 1


@pytest.mark.parametrize("tls", [False, True], ids=["clear", "starttls"])
def test_jakarta_mail_submits(tmp_path, tls):
    """As its FAQ's first example; from source, as `java` runs it."""
    store = tmp_path / "trusted"
    password = ["-storepass", "changeit"]
    trusted = ["-alias", "x", "-keystore", str(store), *password, "-file", str(write_authority(tmp_path))]
    if tls:
        subprocess.run(
            [program("keytool"), "-importcert", "-noprompt", *trusted], check=True, capture_output=True
        )
    with running(tmp_path, CLOSED, certificate=certificate(tmp_path) if tls else None) as receiver:
        done = subprocess.run(
            [
                *(program("java"), "-cp", f"{JAVA}/javax.mail.jar:{JAVA}/javax.activation.jar"),
                f"-Djavax.net.ssl.trustStore={store}",
                "-Djavax.net.ssl.trustStorePassword=changeit",
                str(TESTBED / "SubmitWithJakartaMail.java"),
                *("localhost", str(receiver.address[1]), USER, PASSWORD),
                *("from@example.com", "joe@example.net"),
                *(["starttls"] if tls else []),
            ],
            capture_output=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        [message] = receiver.messages()
        [entry] = (receiver.spool / "new").iterdir()
        assert (b"with ESMTPSA id" in entry.read_bytes()) == tls
    assert message.endswith(b"\r\n\r\nHello, world!\r\n")


TLS_COMMANDS = {
    "swaks": lambda port, ca, mail: [
        *("swaks", f"--server=localhost:{port}", "--auth-user", USER, "--auth-password", PASSWORD),
        *("--from", "app@example.com", "--to", "bob@example.net", "--data", f"@{mail}"),
        *("--tls", "--tls-verify", "--tls-ca-path", str(ca)),
    ],
    "curl": lambda port, ca, mail: [
        *("curl", "--silent", "--show-error", "--ssl-reqd", "--cacert", str(ca)),
        *("--url", f"smtp://localhost:{port}", "--user", f"{USER}:{PASSWORD}"),
        *("--mail-from", "app@example.com", "--mail-rcpt", "bob@example.net", "--upload-file", str(mail)),
    ],
    "msmtp": lambda port, ca, _: [
        *("msmtp", "--file=/dev/null", "--host=localhost", f"--port={port}", "--auth=on", f"--user={USER}"),
        *("--tls=on", "--tls-starttls=on", f"--tls-trust-file={ca}", f"--passwordeval=echo {PASSWORD}"),
        *("--from=app@example.com", "bob@example.net"),
    ],
}


@pytest.mark.parametrize("client", TLS_COMMANDS)
def test_the_client_verifies_us_and_logs_in_after_starttls(tmp_path, client):
    ca, mail = write_authority(tmp_path), tmp_path / "mail.eml"
    mail.write_bytes(MESSAGE)
    with running(tmp_path, CLOSED, certificate=certificate(tmp_path)) as receiver:
        name, *arguments = TLS_COMMANDS[client](receiver.address[1], ca, mail)
        done = subprocess.run(
            [program(name), *arguments],
            input=MESSAGE.replace(b"\r\n", b"\n"),
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        [entry] = (receiver.spool / "new").iterdir()
        assert b"SMTPSA id " in entry.read_bytes()


@pytest.mark.parametrize("client", CLIENTS)
def test_the_client_submits_byte_for_byte(tmp_path, client):
    with running(tmp_path, CLOSED) as receiver:
        host, port = receiver.address
        submission = Submission("app@example.com", ("bob@example.net",), MESSAGE)
        CLIENTS[client](Server(host, port, USER, PASSWORD), submission, tmp_path)
        assert receiver.messages() == [MESSAGE]


def test_a_hundred_clients_at_once_log_in_and_send(tmp_path):
    """Applications that open a connection for each message, all at the same time."""
    failures = []

    def send(number: int) -> None:
        submission = Submission("app@example.com", (f"{number}@example.net",), MESSAGE)
        try:
            CLIENTS["smtplib"](Server(*receiver.address, USER, PASSWORD), submission, tmp_path)
        except OSError as error:
            failures.append(error)

    with running(tmp_path, replace(CLOSED, max_connections=200)) as receiver:
        threads = [threading.Thread(target=send, args=(number,)) for number in range(100)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert len(receiver.messages()) == 100
