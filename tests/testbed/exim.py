"""Exim, to see what it makes of a message: an SMTP session on its standard input, and a Maildir."""

import os
import re
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Self

from testbed.arrival import as_sent
from testbed.tools import exim_program

# The account that Debian's Exim was built for, which exists only once the package is installed; nss_wrapper
# shows it one.
_ACCOUNT = "Debian-exim"
_NSS_WRAPPER = "libnss_wrapper.so"

_CONFIGURATION = """\
exim_path = {program}
exim_user = mail
exim_group = mail
deliver_drop_privilege = true
keep_environment = LD_PRELOAD : NSS_WRAPPER_PASSWD : NSS_WRAPPER_GROUP
primary_hostname = exim.test
spool_directory = {base}/spool
log_file_path = {base}/log/%slog
never_users =
acl_smtp_rcpt = accept
dkim_verify_signers =
message_size_limit = 0
local_interfaces = <; 127.0.0.1
host_lookup =
begin routers
all:
  driver = accept
  transport = box
begin transports
box:
  driver = appendfile
  maildir_format
  directory = {base}/mail
  create_directory
  user = mail
"""


class Exim:
    """An Exim of its own, beside whatever the machine runs."""

    def __enter__(self) -> Self:
        """Lay it out.

        Raises:
            PermissionError: we are not root, and Exim takes a configuration of ours from root only.
        """
        if os.geteuid() != 0:
            raise PermissionError("Exim takes another configuration from root only: run these tests as root")
        self._base = base = Path(tempfile.mkdtemp(prefix="mailer-exim-"))
        base.chmod(0o755)
        for name in ("spool", "mail", "log"):
            (base / name).mkdir()
            shutil.chown(base / name, "mail", "mail")
        # Without its set-user-ID bit, which would make the linker ignore nss_wrapper.
        self._program = Path(shutil.copy(exim_program(), base / "exim"))
        self._program.chmod(0o755)
        self._configuration = base / "exim.conf"
        self._configuration.write_text(_CONFIGURATION.format(base=base, program=self._program))
        self._environment = os.environ | {"LD_PRELOAD": _NSS_WRAPPER}
        for kind, line in (
            ("passwd", f"{_ACCOUNT}:x:9999:9999::/:/bin/false"),
            ("group", f"{_ACCOUNT}:x:9999:"),
        ):
            copy = base / kind
            copy.write_text(Path("/etc", kind).read_text() + line + "\n")
            copy.chmod(stat.S_IRUSR | stat.S_IRGRP | stat.S_IROTH)
            self._environment[f"NSS_WRAPPER_{kind.upper()}"] = str(copy)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self._base)

    def receive(self, message: bytes) -> bytes:
        """Give it a message with CRLF line ends; return it as delivered, with the fields that Exim added.

        Raises:
            AssertionError: it was not delivered; what Exim said is in the message.
        """
        dialogue = (
            b"EHLO client.test\r\nMAIL FROM:<app@example.com>\r\nRCPT TO:<bob@example.net>\r\nDATA\r\n"
            + re.sub(rb"(?m)^\.", b"..", message)
            + b".\r\nQUIT\r\n"
        )
        argv = [str(self._program), "-C", str(self._configuration), "-odf", "-bs"]
        ran = subprocess.run(argv, input=dialogue, capture_output=True, env=self._environment, check=False)
        files = list((self._base / "mail" / "new").glob("*"))
        assert len(files) == 1, (ran.stdout + ran.stderr).decode(errors="replace")
        stored = files[0].read_bytes()
        files[0].unlink()
        return as_sent(stored)
