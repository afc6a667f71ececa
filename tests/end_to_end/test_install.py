"""The first day and what follows it, by the script that goes through README.md.

MAILER_DEBIAN_ROOT=DIRECTORY has it do so in a clean system, with pip and PyPI: the long form.
"""

import os
import ssl
import subprocess
import sys
from pathlib import Path

import trustme
from hostile import Server

REPOSITORY = Path(__file__).resolve().parents[2]


def test_readmes_way_from_nothing_to_a_first_mail_and_through_an_installations_life(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    with Server(tls=context, auth="PLAIN LOGIN") as provider:
        argv = [
            str(REPOSITORY / "scripts" / "try_install"),
            f"--provider={provider.port}",
            f"--authority={tmp_path / 'ca.pem'}",
        ]
        root = os.environ.get("MAILER_DEBIAN_ROOT")
        argv.append(f"--root={root}" if root else f"--venv={Path(sys.executable).parents[1]}")
        # As words of their own: the script is a shell's.
        words = [word for option in argv for word in option.split("=", 1)]
        done = subprocess.run(
            words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=900, check=False
        )
    assert done.returncode == 0, done.stdout
    assert "All of it works." in done.stdout
    assert [to for to, _ in provider.delivered()] == [
        "user@example.net",
        "root@example.net",
        "root@example.net",
        "later@example.net",
    ]
    assert all(session.tls for session in provider.sessions)
