"""The first day and what follows it, by the script that goes through README.md, in Chinese and in English.

With MAILER_DEBIAN_ROOT=DIRECTORY in a clean system, with pip and PyPI: the long form. The short form is in
Chinese alone, because all other tests are in English.
"""

import os
import re
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
import trustme
from outbound.hostile import Server

REPOSITORY = Path(__file__).resolve().parents[2]
GUIDES = REPOSITORY / "mailer" / "guide"
LONG = os.environ.get("MAILER_DEBIAN_ROOT")
DOCUMENTS = {
    "C.UTF-8": (REPOSITORY / "README.md", GUIDES / "deployment.md"),
    "zh_CN.UTF-8": (GUIDES / "zh-CN" / "README.md", GUIDES / "zh-CN" / "deployment.md"),
}
_BLOCK = re.compile(r"(?:^ {4}\S.*\n)+|^```sh\n(?:.*\n)*?```$", re.MULTILINE)
_TYPED_ELSEWHERE = re.compile(
    r"scripts/(quickstart|test|package)\b|apt-get|docker" + ("" if LONG else "|scripts/venv")
)
"""By other tests, by scripts/try_package, and in the long form."""


def commands(document: Path) -> list[str]:
    """What a document has its reader type to install, upgrade, save, restore and remove, without comments."""
    blocks = [block for block in _BLOCK.findall(document.read_text()) if "scripts/" in block]
    lines = [line.strip() for block in blocks for line in block.splitlines() if not line.startswith("```")]
    return [re.split(r"\s{2,}#", line)[0] for line in lines if not _TYPED_ELSEWHERE.search(line)]


def is_typed(command: str, shown: list[str]) -> bool:
    """Tell whether the script has shown this command, with another address, and without a booted system."""
    words = [word for word in command.split() if "@" not in word and word != "--now"]
    return any(all(word in line for word in words) for line in shown)


@pytest.mark.parametrize("lang", DOCUMENTS if LONG else ["zh_CN.UTF-8"])
def test_readmes_way_from_nothing_to_a_first_mail_and_through_an_installations_life(
    lang: str, tmp_path: Path
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    with Server(tls=context, auth="PLAIN LOGIN") as provider:
        argv = [
            str(REPOSITORY / "scripts" / "try_install"),
            f"--provider={provider.port}",
            f"--authority={tmp_path / 'ca.pem'}",
            f"--lang={lang}",
        ]
        argv.append(f"--root={LONG}" if LONG else f"--venv={Path(sys.executable).parents[1]}")
        # As words of their own: the script is a shell's.
        words = [word for option in argv for word in option.split("=", 1)]
        done = subprocess.run(
            words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=1800, check=False
        )
    assert done.returncode == 0, done.stdout
    assert "All of it works." in done.stdout
    assert [to for to, _ in provider.delivered()] == [
        "user@example.net",
        "root@example.net",
        "root@example.net",
        "reboot@example.net",
        "later@example.net",
    ]
    assert all(session.tls for session in provider.sessions)
    shown = [line for line in done.stdout.splitlines() if re.match(r"(root|newcomer)\$ ", line)]
    for document in DOCUMENTS[lang]:
        assert len(commands(document)) >= 8
        assert [command for command in commands(document) if not is_typed(command, shown)] == []
