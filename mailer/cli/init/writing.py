"""Write the configuration of `mailer init`: the answers and a generated password, and nothing else."""

import grp
import json
import os
import secrets
import socket
from pathlib import Path

from mailer.cli.exits import Exit, Failure
from mailer.cli.init.answers import Answers
from mailer.config.trust import trusted_directory
from mailer.ground import durable

_GROUP = "mailer"
"""The services' group, which systemd/mailer.sysusers.conf creates."""
_SYSTEM_SPOOL = "/var/spool/mailer"
_IMPLICIT_TLS = 465
_MONITOR = 8025


def document(answers: Answers, target: Path) -> dict[str, object]:
    """Return the configuration; one in /etc names the spool that the systemd units expect."""
    made: dict[str, object] = {
        "smtpPort": answers.port,
        "defaultUsername": answers.sender,
        "defaultPassword": secrets.token_urlsafe(24),
    }
    if target.is_relative_to("/etc"):
        made["spoolDir"] = _SYSTEM_SPOOL
    if (port := _monitor_port()) != _MONITOR:
        made["healthCheckPort"] = port
    if answers.provider:
        provider: dict[str, object] = {"host": answers.provider}
        if answers.provider_port == _IMPLICIT_TLS:
            provider["ssl"] = True
        provider["port"] = answers.provider_port
        if answers.username:
            provider |= {"username": answers.username, "password": answers.password.reveal()}
        made |= {"forwardSMTP": True, "forwardProviders": [provider]}
    return made


def _monitor_port() -> int:
    """Return the monitor's default port, or another one that is free now if a program uses that."""
    for port in (_MONITOR, 0):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            found: int = probe.getsockname()[1]
            return found
    return _MONITOR


def write(target: Path, made: dict[str, object]) -> None:
    """Write a new file that only its owner can read, and in /etc, as root, also the services' group.

    Raises:
        Failure: the file cannot be created, or other users could replace it.
    """
    text = json.dumps(made, indent=2) + "\n"
    group = _services_group() if os.geteuid() == 0 and target.is_relative_to("/etc") else None
    try:
        _make_directory(target.parent, group)
        with trusted_directory(target.parent) as directory:
            durable.create(target.name, text.encode(), directory, 0o600, lambda fd: _share(fd, group, 0o640))
            durable.sync_directory(directory)
    except OSError as error:
        raise Failure(Exit.CANNOT_CREATE, f"{target} cannot be written: {error.strerror}") from error


def _make_directory(path: Path, group: int | None) -> None:
    """Make the directory as systemd/mailer.tmpfiles.conf would; leave an existing one unchanged."""
    if path.exists():
        return
    with trusted_directory(path.parent) as above:
        os.mkdir(path.name, 0o700, dir_fd=above)
        durable.sync_directory(above)
        made = os.open(path.name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above)
    try:
        _share(made, group, 0o750)
    finally:
        os.close(made)


def _share(fd: int, group: int | None, mode: int) -> None:
    if group is not None:
        os.fchown(fd, -1, group)
        os.fchmod(fd, mode)


def _services_group() -> int | None:
    try:
        return grp.getgrnam(_GROUP).gr_gid
    except KeyError:
        return None
