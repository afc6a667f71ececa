"""Find what keeps `mailer serve` from starting with a valid configuration, for its start and `config check`.

Each problem names the key, the file or address, and what to type. Files are checked as the effective user,
which for `config check` is the spool's owner.
"""

import os
import shlex
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mailer.cli.file_access import unreadable, user
from mailer.config import checks
from mailer.config.load import Loaded
from mailer.config.model import Config
from mailer.config.problem import ConfigError, Problem
from mailer.config.trust import Untrusted, open_trusted, owners_of, trusted_directory
from mailer.config.users import read_users
from mailer.mail.reply import printable
from mailer.spool.directory import foreign

if TYPE_CHECKING:
    from mailer.receive.listen.inherited import Inherited


def obstacles(loaded: Loaded, inherited: "Sequence[Inherited]" = ()) -> tuple[Problem, ...]:
    """Return the reasons why the receiver cannot start; if there are none, it can, if its ports are free.

    This may run the command that `defaultPassword` names.

    Args:
        loaded: the configuration.
        inherited: sockets from the service manager, which need not be bound.
    """
    config = loaded.config
    refusals = checks.refuse_to_serve(loaded)
    known = {problem.path for problem in refusals}
    # Inherited sockets that no listener matches are refused later, when the sockets are set up.
    made = (*_hosts(config), *_sockets(config)) if not inherited else ()
    found = (*_users(loaded), *_spool(config), *_certificate(loaded), *made)
    return (*refusals, *(problem for problem in found if problem.path not in known))


def _users(loaded: Loaded) -> Iterator[Problem]:
    """Report why the receiver could not read the users file."""
    path = loaded.config.users_file
    try:
        read_users(path, owners_of(loaded.config.spool_dir))
    except ConfigError as error:
        yield from error.problems
    except OSError as error:
        yield _unreadable("$.usersFile", path, error, loaded)


def _spool(config: Config) -> Iterator[Problem]:
    """Report that the spool's directory holds something else, or could not be created."""
    path = config.spool_dir
    if why := foreign(path):
        yield Problem("$.spoolDir", why)
    elif not path.parent.is_dir():
        parent = printable(str(path.parent))
        yield Problem(
            "$.spoolDir",
            f"its directory {parent} does not exist, and no program creates it; type: "
            f"mkdir -p {shlex.quote(parent)}",
        )
    elif not path.exists() and not _may(path.parent, os.W_OK | os.X_OK):
        yield Problem(
            "$.spoolDir",
            f"{printable(str(path))} does not exist, and user {user()} cannot create it; a service's spool "
            'is "/var/spool/mailer", which systemd-tmpfiles creates (scripts/install)',
        )


def _certificate(loaded: Loaded) -> Iterator[Problem]:
    config = loaded.config
    certificate, key = config.tls.certificate_path, config.tls.private_key_path
    if certificate is None or key is None:
        return
    owners = owners_of(config.spool_dir)
    broken = False
    for name, path, secret in (("certificatePath", certificate, False), ("privateKeyPath", key, True)):
        try:
            os.close(open_trusted(path, owners=owners, secret=secret))
        except Untrusted:
            broken = True  # `refuse_to_serve` reports it.
        except OSError as error:
            broken = True
            yield _unreadable(f"$.tls.{name}", path, error, loaded)
    if not broken:
        yield from _pair(certificate, key, config)


def _pair(certificate: Path, key: Path, config: Config) -> Iterator[Problem]:
    import ssl  # noqa: PLC0415 - not needed without a certificate

    from mailer.receive.listen.certificate import load_context  # noqa: PLC0415 - as above

    try:
        load_context(certificate, key, owners_of(config.spool_dir))
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            words = f"{printable(str(key))} is not the key of {printable(str(certificate))}; name a pair"
            yield Problem("$.tls.privateKeyPath", words)
            return
        why = error.reason or error.strerror or str(error)
        yield Problem(
            "$.tls",
            f"{printable(str(certificate))} and {printable(str(key))} cannot be used: {printable(why)}; both "
            "are PEM files, the key without a passphrase",
        )


def _hosts(config: Config) -> Iterator[Problem]:
    """Report addresses that are not this host's; only the start itself can tell whether ports are free."""
    hosts = [("$.smtpHost", config.bind_address)]
    for at, listener in enumerate(config.listeners):
        if listener.unix_socket is None:
            hosts.append((f"$.listeners[{at}].host", listener.host))
    if config.submit_http.enabled:
        hosts.append(("$.submitHttp.host", config.submit_http.host))
    for key, host in hosts:
        if host and (why := _no_address(host)):
            yield Problem(
                key, f"{printable(host, 100)} is not an address to listen on here: {why} (ip address)"
            )


def _no_address(host: str) -> str:
    """Return why none of the addresses of a name belongs to this host; empty if one does."""
    why = ""
    try:
        found = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        return getattr(error, "strerror", None) or str(error)
    for family, kind, _, _, address in found:
        with socket.socket(family, kind) as probe:
            try:
                probe.bind(address)
            except OSError as error:
                why = error.strerror or str(error)
            else:
                return ""
    return why


def _sockets(config: Config) -> Iterator[Problem]:
    named = [(f"$.listeners[{at}].unixSocket", one.unix_socket) for at, one in enumerate(config.listeners)]
    for key, path in (*named, ("$.submitSocket", config.submit_socket)):
        if path is None:
            continue
        directory = path.parent
        shown = shlex.quote(printable(str(directory)))
        try:
            with trusted_directory(directory, owners=owners_of(config.spool_dir)):
                writable = _may(directory, os.W_OK | os.X_OK)
        except FileNotFoundError:
            todo = f"type, as root: install -d -o {user()} {shown}"
            yield Problem(key, f"its directory {shown} does not exist; {todo}")
        except OSError as error:
            yield Problem(key, f"its directory {shown} cannot be used: {error.strerror}")
        else:
            if not writable:
                yield Problem(
                    key, f"user {user()} may not write to {shown}; type, as root: chown {user()} {shown}"
                )


def _unreadable(key: str, path: Path, error: OSError, loaded: Loaded) -> Problem:
    why = unreadable(path, loaded.path.parent) if isinstance(error, PermissionError) else ""
    return Problem(key, f"{printable(str(path))}: {why or f'cannot be read: {error.strerror}'}")


def _may(path: Path, what: int) -> bool:
    return os.access(path, what, effective_ids=True)
