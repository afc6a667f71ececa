"""Exim and OpenSMTPD as next hops that pass everything on to one more hop.

Debian's packages of mail servers exclude one another, and these two look for their users, helpers and
directories at fixed places. So each is only unpacked, and runs in a mount namespace of its own in which those
places hold what it wants; nothing outside changes.
"""

import os
import re
import shutil
import subprocess
import tempfile
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import Self

from testbed.ports import LOOPBACK, free_port
from testbed.process import ServerProcess
from testbed.tools import TESTBED, MissingToolError, program

_USERS = {"Debian-exim": 8, "opensmtpd": 901, "opensmtpq": 902}
"""Exim's is Debian's `mail`."""

_EXIM = """\
primary_hostname = exim.test
exim_user = mail
exim_group = mail
never_users =
keep_environment =
spool_directory = {base}/spool
log_file_path = {base}/spool/%slog
pid_file_path = {base}/spool/pid
host_lookup =
rfc1413_query_timeout = 0s
smtp_accept_max = 0
smtp_accept_max_per_connection = 0
smtp_accept_queue_per_connection = 0
recipients_max = 0
{tls}
acl_smtp_rcpt = taken
begin acl
taken:
  {taken}
begin routers
all:
  driver = manualroute
  route_list = * {host}::{onward}
  transport = onward
  self = send
  host_find_failed = defer
begin transports
onward:
  driver = smtp
  allow_localhost
  hosts_avoid_tls = *
"""

_EXIM_TLS = """\
tls_advertise_hosts = *
tls_certificate = {chain}
tls_privatekey = {chain}
"""

_EXIM_BEARERS = r"""
begin authenticators
xoauth2:
  driver = plaintext
  public_name = XOAUTH2
  server_prompts = :
  server_condition = ${{if match{{$auth1}}{{\N^user=[^\x01]+\x01auth=Bearer {token}\x01\x01$\N}}}}
  server_set_id = ${{sg{{$auth1}}{{\N(?s)^user=([^\x01]+)\x01.*$\N}}{{\$1}}}}
oauthbearer:
  driver = plaintext
  public_name = OAUTHBEARER
  server_prompts = :
  server_condition = ${{if match{{$auth1}}{{\N^n,a=[^,]+,\x01host=.*\x01auth=Bearer {token}\x01\x01$\N}}}}
  server_set_id = ${{sg{{$auth1}}{{\N(?s)^n,a=([^,]+),\x01.*$\N}}{{\$1}}}}
"""
_JWT = r"eyJ[\w-]+\.eyJ[\w-]+\.[\w-]+"

_OPENSMTPD = """\
smtp limit max-mails 100000
listen on {host} port {port}
action "onward" relay host smtp://{host}:{onward}
match from any for any action "onward"
"""


class _Namespaced(ABC):
    """A mail server in a mount namespace."""

    package = ""

    def __init__(self, onward: int, *, keep: bool = False) -> None:
        """
        Args:
            onward: the port on loopback that everything is passed on to; 0: one where nothing listens.
            keep: take mail and queue it, but pass nothing on.

        Raises:
            PermissionError: we are not root.
            MissingToolError: it is not unpacked.
        """
        if os.geteuid() != 0:
            raise PermissionError("a mount namespace is root's: run these tests as root")
        self.port = free_port()
        self.unpacked = TESTBED / self.package
        if not self.unpacked.exists():
            raise MissingToolError(self.package)
        self.onward = onward or free_port()
        self._keep = keep
        self._base: Path | None = None
        self._process: ServerProcess | None = None

    @property
    def pid(self) -> int:
        """The server's process id; its helpers are its children."""
        assert self._process is not None, "the server is not running"
        return self._process.pid

    @abstractmethod
    def configure(self, base: Path) -> str:
        """Write the configuration, and return the shell command that starts the server."""

    def __enter__(self) -> Self:
        self._base = base = Path(tempfile.mkdtemp(prefix="mailer-mta-"))
        base.chmod(0o755)
        for name in ("passwd", "group"):
            text = Path("/etc", name).read_text()
            for user, number in _USERS.items():
                if f"\n{user}:" not in text:
                    text += (
                        f"{user}:x:{number}:" + (f"{number}::/:/bin/false" if name == "passwd" else "") + "\n"
                    )
            (base / name).write_text(text)
        # No name server: OpenSMTPD would ask one who each client is.
        (base / "resolv.conf").write_text("lookup file\n")
        start = self.configure(base)
        script = (
            f"set -e; mount --bind {base}/passwd /etc/passwd; mount --bind {base}/group /etc/group\n"
            f"mount --bind {base}/resolv.conf /etc/resolv.conf\n"
            # Exim and OpenSMTPD start themselves anew from here.
            f"mount --bind {self.unpacked}/usr/sbin /usr/sbin\n{start}\n"
        )
        argv = [program("unshare"), "--mount", "/bin/bash", "-c", script]
        self._process = process = ServerProcess(argv, base / "output")
        process.await_port(self.port)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None
        assert self._base is not None
        try:
            self._process.__exit__(kind, error, trace)
        finally:
            shutil.rmtree(self._base)


class Exim(_Namespaced):
    """A running Exim."""

    package = "exim"

    def __init__(self, onward: int, chain: bytes = b"", *, bearers: bool = False, keep: bool = False) -> None:
        """
        Args:
            onward: as `_Namespaced` has it.
            chain: key and certificates, PEM, with which it takes mail over TLS only, by STARTTLS.
            bearers: it takes mail after a login by XOAUTH2 or OAUTHBEARER only, with any JWT as the token.
            keep: as `_Namespaced` has it.
        """
        super().__init__(onward, keep=keep)
        self._chain = chain
        self._bearers = bearers

    def logins(self) -> list[str]:
        """Mechanism and user of each message that was taken."""
        assert self._base is not None
        log = (self._base / "spool" / "mainlog").read_text()
        return re.findall(r" <= .* A=(\S+)", log)

    def configure(self, base: Path) -> str:
        (base / "spool").mkdir()
        shutil.chown(base / "spool", "mail", "mail")
        chain = base / "chain.pem"
        chain.write_bytes(self._chain)
        chain.chmod(0o600)
        shutil.chown(chain, "mail")
        text = _EXIM.format(
            base=base,
            host=LOOPBACK,
            onward=self.onward,
            tls=_EXIM_TLS.format(chain=chain) if self._chain else "tls_advertise_hosts =",
            taken=" ".join(
                [
                    "accept",
                    *(["encrypted = *"] if self._chain else []),
                    *(["\n  authenticated = *"] if self._bearers else []),
                ]
            ),
        )
        if self._bearers:
            text += _EXIM_BEARERS.format(token=_JWT)
        (base / "exim.conf").write_text(text)
        when = "-odq" if self._keep else "-odi"
        return f"exec /usr/sbin/exim4 -C {base}/exim.conf -bdf {when} -oX {LOOPBACK}.{self.port}"


class OpenSmtpd(_Namespaced):
    """A running OpenSMTPD, in clear: Debian's 6.8 cannot use its keys with OpenSSL 3 ("EVP lib")."""

    package = "opensmtpd"

    def resume(self) -> None:
        """Pass on what was kept, and what comes."""
        # As the unpacked program would, were it setgid.
        inside = [program("nsenter"), f"--mount=/proc/{self.pid}/ns/mnt", f"--setgid={_USERS['opensmtpq']}"]
        subprocess.run([*inside, "/usr/sbin/smtpctl", "resume", "mta"], check=True, capture_output=True)

    def configure(self, base: Path) -> str:
        (base / "smtpd.conf").write_text(_OPENSMTPD.format(host=LOOPBACK, port=self.port, onward=self.onward))
        (base / "smtpd.conf").chmod(0o600)
        return f"""\
cp -r {self.unpacked}/usr/libexec {base}/libexec
mount --bind {base}/libexec /usr/libexec
mkdir -p {base}/spool/smtpd; chmod 755 {base}/spool; chmod 711 {base}/spool/smtpd
mount --bind {base}/spool /var/spool
mount -t tmpfs -o mode=755 tmpfs $(readlink -f /var/run)  # its control socket: one for each of us
mount -t tmpfs -o mode=755 tmpfs /var/lib; mkdir -p /var/lib/opensmtpd/empty
exec /usr/sbin/smtpd -d {"-P mta " if self._keep else ""}-f {base}/smtpd.conf"""
