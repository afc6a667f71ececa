"""From the configuration to open things: the spool, its ledger, its log, and the user that we should be."""

import math
import os
import pwd
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path

import msgspec

from mailer.cli.exits import Exit, Failure
from mailer.cli.options import config_path, log_format
from mailer.cli.reader import tell
from mailer.config.load import Loaded, load
from mailer.config.model import Config
from mailer.mail.reply import printable
from mailer.maillog.events import Level, MailLog
from mailer.maillog.ledger import Ledger
from mailer.maillog.stderr import Format, stderr_sink
from mailer.spool.layout import LOG, Spool, SpoolError
from mailer.spool.state.pause import describe, read_pause


class Workplace(msgspec.Struct, frozen=True):
    """What a command at the spool works with."""

    config: Config
    spool: Spool
    log: MailLog
    operator: str
    """Who is at the command line, for the journal and the ledger."""


def configuration() -> Loaded:
    """Load the configuration that --config, the environment or the usual places name; raises ConfigError."""
    return load(config_path(), os.environ)


@contextmanager
def workplace(loaded: Loaded | None = None, *, http: bool = False) -> Iterator[Workplace]:
    """Open the spool for a command that inspects or operates it, as the user that the spool belongs to.

    Args:
        loaded: the configuration; None: it is loaded here.
        http: as `become_owner`.

    Raises:
        ConfigError, SpoolError: it cannot be opened.
    """
    config = (loaded or configuration()).config
    operator = operator_name(os.environ)
    become_owner(config.spool_dir, http=http)
    with Spool.open(config.spool_dir) as spool:
        log = open_log(spool, Level.WARNING, keep=float(config.log_retention))
        yield Workplace(config, spool, log, operator)


def program_log(config: Config, spool: Spool, level: Level) -> MailLog:
    """Open the mail log for a program that others watch: in the format that was asked for."""
    form = Format(log_format() or config.log_format.value)
    return open_log(spool, level, form, keep=float(config.log_retention))


def open_log(spool: Spool, level: Level, form: Format = Format.LOGFMT, *, keep: float = math.inf) -> MailLog:
    """Open the mail log: the ledger in the spool, and standard error for what is as grave as `level`.

    Args:
        spool: where the ledger is.
        level: the least grave that is shown.
        form: how it is shown.
        keep: seconds that the ledger keeps a day after its end.
    """
    sink = stderr_sink(level, time.time, form=form, journald=_stderr_is_the_journal(os.environ))

    def on_trouble(error: OSError) -> None:
        sink(Level.WARNING, "the ledger cannot be written; mail goes on", {"error": error.strerror})

    return MailLog(time.time, sink, Ledger(partial(spool.directory, LOG), on_trouble), keep=keep, shown=level)


def _stderr_is_the_journal(environ: Mapping[str, str]) -> bool:
    """Whether systemd reads our standard error (systemd.exec(5), JOURNAL_STREAM)."""
    state = os.fstat(sys.stderr.fileno())
    return environ.get("JOURNAL_STREAM") == f"{state.st_dev}:{state.st_ino}"


def operator_name(environ: Mapping[str, str]) -> str:
    """Name the login that a command acts for: who called sudo, else whose process this is."""
    uid = os.getuid()
    if uid == 0 and environ.get("SUDO_USER"):
        # Anybody can set the variable; only to root has sudo set it.
        return printable(environ["SUDO_USER"], 64)
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def make_spool(path: Path) -> Spool:
    """Open the spool for a program that may be the first to use it.

    Raises:
        Failure: there is none and it could not be made.
        SpoolError: there is one that cannot be used.
    """
    try:
        return Spool.open(path, create=True)
    except SpoolError as error:
        if path.exists():
            raise
        raise Failure(Exit.CANNOT_CREATE, f"{path}: the spool cannot be made: {error.strerror}") from error


def become_owner(path: Path, *, http: bool = False, events: bool = False) -> None:
    """As root on another user's spool, become that user for good; otherwise do nothing.

    Root's `mailer spool retry` must leave no file behind that the spool's programs cannot use. Sockets that
    need root are bound before.

    Args:
        path: the spool.
        http: whether a token server or an interface over HTTP may be asked afterwards.
        events: whether events may be told afterwards.

    Raises:
        OSError: the system does not let us; we are still root.
    """
    owner = _Owner.of(path)
    if owner is None:
        return
    for name in (*_IMPORTED_LATE, *(_FOR_HTTP if http else ()), *(_FOR_EVENTS if events else ())):
        import_module(name)
    os.environ.update(owner.home)
    os.setgroups(owner.groups)
    os.setgid(owner.gid)
    os.setuid(owner.uid)


@contextmanager
def acting_as_owner(path: Path) -> Iterator[None]:
    """As root on another user's spool, act as that user for the block, and be root again: to bind, say."""
    owner = _Owner.of(path)
    if owner is None:
        yield
        return
    mine = os.getgroups(), os.getegid()
    os.setgroups(owner.groups)
    os.setegid(owner.gid)
    os.seteuid(owner.uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(mine[1])
        os.setgroups(mine[0])


_IMPORTED_LATE = (
    "_strptime",
    "concurrent.futures.thread",
    "encodings.ascii",
    "encodings.big5",
    "encodings.cp1251",
    "encodings.cp1252",
    "encodings.euc_jp",
    "encodings.euc_kr",
    "encodings.gb18030",
    "encodings.idna",
    "encodings.iso2022_jp",
    "encodings.iso8859_5",
    "encodings.koi8_r",
    "encodings.latin_1",
    "encodings.shift_jis",
    "grp",
    "hashlib",
    "hmac",
    "idna",
    "ipaddress",
    "shlex",
    "ssl",
    "subprocess",
    "traceback",
    "mailer.cli.dry_run",
    "mailer.cli.route.direct",
    "mailer.config.local_checks",
    "mailer.send.heartbeat",
    "mailer.send.replies.ourselves",
    "mailer.send.replies.sentence",
    "mailer.send.replies.table",
    "mailer.send.routes.direct",
    "mailer.send.dkim.keys",
    "mailer.send.dsn.report",
    "mailer.send.run",
    "mailer.spool.committer",
    "mailer.spool.lock",
    "mailer.spool.state.suppression",
)
"""What is otherwise imported when it is first needed. Root's own Python may lie where the spool's owner
cannot read (pyenv and pipx in /root), so whoever is about to become the owner imports it before."""


_FOR_HTTP = (
    "aiohttp",
    "mailer.calls.post",
    "mailer.oauth.assertion",
    "mailer.oauth.post",
    "mailer.oauth.source",
    "mailer.send.http.session",
    "mailer.send.replies.http",
)
"""The same, where HTTP is spoken: with a token server, or with a provider's interface."""


_FOR_EVENTS = ("aiohttp", "mailer.calls.command", "mailer.calls.post", "mailer.cli.event_delivery")
"""The same, for those who tell events."""


def uses_http(config: Config) -> bool:
    """Tell whether a provider is logged in to with an access token, or takes mail over HTTP."""
    return any(provider.oauth or provider.api for provider in config.providers)


class _Owner(msgspec.Struct, frozen=True):
    """The user that a spool belongs to, if that is not root."""

    uid: int
    gid: int
    groups: list[int]
    home: dict[str, str]
    """Environment: a secret's command looks for its files at home."""

    @classmethod
    def of(cls, path: Path) -> "_Owner | None":
        """Return the user that root should become for this spool; None: no other, or we are not root."""
        if os.geteuid() != 0:
            return None
        try:
            state = path.stat()
        except FileNotFoundError:
            return None
        if state.st_uid == 0:
            return None
        try:
            account = pwd.getpwuid(state.st_uid)
        except KeyError:
            return cls(state.st_uid, state.st_gid, [state.st_gid], {})
        return cls(
            account.pw_uid,
            account.pw_gid,
            os.getgrouplist(account.pw_name, account.pw_gid),
            {"HOME": account.pw_dir, "USER": account.pw_name, "LOGNAME": account.pw_name},
        )


def say_if_paused(spool: Spool) -> None:
    """Tell on standard error, beside any listing, that the operator has paused the runners."""
    if paused := read_pause(spool):
        tell(sys.stderr, f"{describe(paused)}\n")
