"""A full Postfix: a next hop that speaks every extension, queues, and delivers into a Maildir."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from testbed.arrival import Arrival, as_sent, path_of, take_field
from testbed.clients import Server
from testbed.ports import LOOPBACK, free_port
from testbed.process import ServerProcess
from testbed.tools import postfix_environment, postfix_root, program
from testbed.waiting import until

# Postfix insists on accounts that are not root's and share no group. These three are in every Debian, while
# `postfix` and `postdrop` exist only once the package is installed.
_MAIL_OWNER, _SETGID_GROUP, _MAILBOX_OWNER = "daemon", "mail", "mail"

_QUEUES = (
    *("active", "bounce", "corrupt", "defer", "deferred", "flush", "hold", "incoming"),
    *("maildrop", "pid", "private", "public", "saved", "trace"),
)

_MAIN_CF = """\
compatibility_level = 3.6
config_directory = {base}/etc
queue_directory = {base}/queue
data_directory = {base}/data
maillog_file = {base}/maillog
maillog_file_prefixes = {base}
daemon_directory = {root}/usr/lib/postfix/sbin
command_directory = {root}/usr/sbin
shlib_directory = {root}/usr/lib/postfix
meta_directory = {root}/etc/postfix
import_environment = MAIL_CONFIG POSTLOG_SERVICE POSTLOG_HOSTNAME LD_LIBRARY_PATH LC_ALL=C
mail_owner = {mail_owner}
setgid_group = {setgid_group}
default_privs = nobody
myhostname = postfix.test
mydestination =
alias_maps =
local_recipient_maps =
notify_classes =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8

# Tests ask no name server.
smtpd_peername_lookup = no
disable_dns_lookups = yes
smtp_host_lookup = native

# Keep the message as it came.
local_header_rewrite_clients =
undisclosed_recipients_header =
always_add_missing_headers = no

# A login is looked up in a file of Cyrus SASL's.
smtpd_sasl_auth_enable = {authenticate}
cyrus_sasl_config_path = {base}/etc/sasl
smtpd_sasl_local_domain = $myhostname

# Every mail, whatever its size, rate or domain, goes to one Maildir.
smtpd_relay_restrictions = {permitted}, reject
smtpd_client_connection_count_limit = 0
message_size_limit = 0
virtual_mailbox_limit = 0
virtual_mailbox_domains = static:all
virtual_mailbox_base = {base}/mail
virtual_mailbox_maps = static:box/
virtual_minimum_uid = 1
virtual_uid_maps = static:{uid}
virtual_gid_maps = static:{gid}
"""

# No service is confined to the queue directory (chroot n): an unpacked Postfix has its libraries elsewhere.
_MASTER_CF = """\
127.0.0.1:{port} inet n - n - - smtpd
cleanup    unix       n - n - 0 cleanup
qmgr       unix       n - n 300 1 qmgr
tlsmgr     unix       - - n 1000? 1 tlsmgr
rewrite    unix       - - n - - trivial-rewrite
bounce     unix       - - n - 0 bounce
defer      unix       - - n - 0 bounce
trace      unix       - - n - 0 bounce
proxymap   unix       - - n - - proxymap
proxywrite unix       - - n - 1 proxymap
error      unix       - - n - - error
retry      unix       - - n - - error
virtual    unix       - n n - - virtual
anvil      unix       - - n - 1 anvil
postlog    unix-dgram n - n - 1 postlogd
"""


class Postfix:
    """A running Postfix of its own, beside whatever the machine runs.

    Its files lie in a directory of their own directly below the temporary one, because its daemons run as
    other users, who may not enter pytest's private directories.
    """

    def __init__(
        self,
        settings: Mapping[str, str] | None = None,
        *,
        username: str = "",
        password: str = "",
        services: str = "",
        under: Sequence[str] = (),
    ) -> None:
        """
        Args:
            settings: main.cf parameters to add or replace, for instance `smtpd_tls_security_level`.
            username: with one, mail is taken only after AUTH PLAIN or LOGIN with it.
            password: of that login.
            services: lines to add to master.cf.
            under: a command that runs it, for instance strace.

        Raises:
            PermissionError: we are not root, and only root may start Postfix.
        """
        if os.geteuid() != 0:
            raise PermissionError(
                "Postfix starts only as root: run these tests as root, for instance in a container"
            )
        self.host = LOOPBACK
        self.port = free_port()
        self._root = postfix_root()
        self._settings = dict(settings or {})
        self._username, self._password = username, password
        self._services, self._under = services, under
        self._base: Path | None = None
        self._process: ServerProcess | None = None

    def __enter__(self) -> Self:
        self._base = base = Path(tempfile.mkdtemp(prefix="mailer-postfix-"))
        base.chmod(0o755)
        try:
            self._lay_out(base)
            environment = postfix_environment() | {"MAIL_CONFIG": str(base / "etc")}
            master = self._root / "usr" / "lib" / "postfix" / "sbin" / "master"
            argv = [*self._under, str(master), "-d"]
            self._process = process = ServerProcess(argv, base / "output", env=environment)
            process.await_port(self.port)
        except BaseException:
            shutil.rmtree(base)
            raise
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

    @property
    def server(self) -> Server:
        """Where a client submits, with the login."""
        return Server(self.host, self.port, self._username, self._password)

    @property
    def pid(self) -> int:
        """The master's process id; its services are its children."""
        assert self._process is not None, "Postfix is not running"
        return self._process.pid

    @property
    def configuration(self) -> Path:
        """The directory of main.cf, for the -c of its commands."""
        return self._directory / "etc"

    @property
    def queue(self) -> Path:
        return self._directory / "queue"

    def log(self) -> str:
        """Its mail log so far."""
        return (self._directory / "maillog").read_text(errors="replace")

    def arrivals(self) -> list[Arrival]:
        """Every message in the mailbox, one for each recipient, in no particular order.

        Postfix is not wholly transparent: it puts an empty line before a first line that has no field name.
        """
        return [_parse(file.read_bytes()) for file in self._mailbox.glob("*")]

    def await_arrivals(self, count: int) -> list[Arrival]:
        """As `arrivals`, once there are `count` of them: Postfix queues before it delivers."""
        until(lambda: len(list(self._mailbox.glob("*"))) >= count, f"{count} messages in Postfix's mailbox")
        return self.arrivals()

    @property
    def _directory(self) -> Path:
        assert self._base is not None, "Postfix is not running"
        return self._base

    @property
    def _mailbox(self) -> Path:
        return self._directory / "mail" / "box" / "new"

    def _lay_out(self, base: Path) -> None:
        """Make what Postfix's installation would have made, with the owners it insists on."""
        mail_owner, mailbox_owner = pwd.getpwnam(_MAIL_OWNER), pwd.getpwnam(_MAILBOX_OWNER)
        for name in ("etc", "queue", "data", "mail"):
            (base / name).mkdir()
        for name in _QUEUES:
            (base / "queue" / name).mkdir()
            if name != "pid":
                os.chown(base / "queue" / name, mail_owner.pw_uid, -1)
        os.chown(base / "data", mail_owner.pw_uid, -1)
        os.chown(base / "mail", mailbox_owner.pw_uid, mailbox_owner.pw_gid)

        if self._username:
            self._add_login(base)
        (base / "etc" / "master.cf").write_text(_MASTER_CF.format(port=self.port) + self._services)
        main_cf = base / "etc" / "main.cf"
        defaults = _MAIN_CF.format(
            base=base,
            root=str(self._root).rstrip("/"),
            mail_owner=_MAIL_OWNER,
            setgid_group=_SETGID_GROUP,
            authenticate="yes" if self._username else "no",
            permitted="permit_sasl_authenticated" if self._username else "permit_mynetworks",
            uid=mailbox_owner.pw_uid,
            gid=mailbox_owner.pw_gid,
        )
        # No parameter twice: each program warns of that as it starts, postlogd too, which writes the warnings
        # and waits for ever if its own finds its socket full of the others'.
        kept = [
            line for line in defaults.splitlines() if line.partition("=")[0].strip() not in self._settings
        ]
        main_cf.write_text(
            "\n".join([*kept, *(f"{name} = {value}" for name, value in self._settings.items()), ""])
        )
        # Postfix waits out a file changed within the last second; ours is complete (measured: saves 1.5 s).
        os.utime(main_cf, (0, 0))

    def _add_login(self, base: Path) -> None:
        """Make the one login, as saslpasswd2(8) does, readable for the smtpd that checks it."""
        logins = base / "etc" / "sasldb2"
        (base / "etc" / "sasl").mkdir()
        (base / "etc" / "sasl" / "smtpd.conf").write_text(
            f"pwcheck_method: auxprop\nauxprop_plugin: sasldb\nsasldb_path: {logins}\n"
            "mech_list: PLAIN LOGIN\n"
        )
        user, _, realm = self._username.partition("@")
        argv = [program("saslpasswd2"), "-p", "-c", "-f", str(logins), "-u", realm or "postfix.test", user]
        subprocess.run(argv, input=self._password, text=True, check=True, capture_output=True)
        os.chown(logins, pwd.getpwnam(_MAIL_OWNER).pw_uid, -1)


def _parse(stored: bytes) -> Arrival:
    """Read a file of the mailbox: the fields that virtual(8) and smtpd(8) put on top, then the message."""
    sender, rest = take_field(stored, b"Return-Path")
    recipient, rest = take_field(rest, b"X-Original-To")
    _, rest = take_field(rest, b"Delivered-To")
    _, rest = take_field(rest, b"Received")
    return Arrival(path_of(sender), (recipient.decode(),), as_sent(rest))
