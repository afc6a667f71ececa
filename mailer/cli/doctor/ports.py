"""Check that the listeners and the monitor answer, no other program does, and whom the listeners trust."""

import asyncio
import os
import shlex
import ssl
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from mailer.cli.receiving.peer_user import PRIVILEGED, stranger
from mailer.cli.receiving.receiver import settings
from mailer.config.model import Config
from mailer.config.problem import ConfigError
from mailer.config.receiving import TrustedNetwork
from mailer.config.trust import owners_of
from mailer.config.trusted_clients import is_private, network
from mailer.config.users import User, read_users
from mailer.mail.finding import Finding, Grade
from mailer.mail.reply import printable
from mailer.receive.settings import Endpoint

_TIMEOUT = 5.0
"""Seconds for each connection; everything checked here is on this host."""
_OURS = "ESMTP mailer"
_ANOTHER = "another program answers"
_MAX_ANSWER = 64 * 1024
"""The most bytes to read of the monitor's answer."""
_FIELDS = 5
"""Header fields to read of an HTTP answer, among which ours has `Server`; with fewer, reading times out."""
_CONNECT_TO = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - to connect, not to listen
_SHOWN = 3
"""The most senders of a user to name."""


class _Check(msgspec.Struct):
    status: str
    message: str = ""


class _Health(msgspec.Struct):
    """The fields that are used of the monitor's answer at /health."""

    status: str
    checks: dict[str, _Check] = {}


async def port_findings(config: Config, *, started: bool) -> list[Finding]:
    """Connect to each listener and to the monitor, and check which program answers.

    Args:
        config: has the addresses.
        started: whether mailer has ever been started here; if not, a closed port is not a problem.
    """
    wanted = settings(config, None)
    listeners = (Endpoint(wanted.host, wanted.port), *wanted.endpoints)
    asked: list[Coroutine[Any, Any, Finding | None]]
    asked = [
        (_http if endpoint.http else _listener)(endpoint, config.spool_dir, started=started)
        for endpoint in listeners
    ]
    asked += [
        _other_family(each, config.spool_dir)
        for each in listeners
        if each.host == "127.0.0.1" and not each.tls
    ]
    if config.enable_health_check:
        asked.append(_monitor(config.health_check_port, started=started))
    return [finding for finding in await asyncio.gather(*asked) if finding]


async def _listener(endpoint: Endpoint, spool: Path, *, started: bool) -> Finding:
    about = endpoint.path or f"{endpoint.host or '*'}:{endpoint.port}"
    user = None
    try:
        async with _connected(endpoint) as (reader, writer):
            banner = printable((await reader.readline()).decode("utf-8", "replace").rstrip("\r\n"), 200)
            if not endpoint.path:
                user = stranger(writer.get_extra_info("socket"), spool)
    except (OSError, ValueError) as error:
        return _unreachable(about, "smtp", error, endpoint.port, started=started)
    if user is not None:
        # The banner proves nothing, since any program can send the receiver's.
        words = f"{_ANOTHER}, of user id {user}: {banner or 'it sends nothing'}"
        return Finding(about, "smtp", Grade.PROBLEM, words, "stop that program, or choose another smtpPort")
    if _OURS in banner:
        return Finding(about, "smtp", Grade.OK, f"the receiver answers: {banner}")
    if banner.startswith("421"):
        return Finding(
            about, "smtp", Grade.WARNING, f"answers, but accepts no clients: {banner}", "see its log"
        )
    words = f"{_ANOTHER}: {banner or 'it sends nothing'}"
    return Finding(about, "smtp", Grade.PROBLEM, words, "stop that program, or choose another smtpPort")


async def _http(endpoint: Endpoint, spool: Path, *, started: bool) -> Finding:
    """Request the OpenAPI description, which `submitHttp` serves without a login."""
    about = f"{endpoint.host or '*'}:{endpoint.port}"
    try:
        async with _connected(endpoint) as (reader, writer):
            writer.write(b"GET /v1/openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n")
            first = await reader.readline()
            head = [await reader.readline() for _ in range(_FIELDS)] if first.startswith(b"HTTP/") else []
            user = stranger(writer.get_extra_info("socket"), spool)
    except (OSError, ValueError) as error:
        return _unreachable(about, "http", error, endpoint.port, started=started)
    status = first[9:12]
    said = printable(first.decode("utf-8", "replace").rstrip("\r\n"), 100) or "it sends nothing"
    # 403 is the answer of a front that listens beyond this host, and so does not accept the name localhost.
    if user is None and b"Server: mailer\r\n" in head and status in {b"200", b"403"}:
        return Finding(about, "http", Grade.OK, "the receiver answers: submitHttp")
    if user is None and status == b"503":
        return Finding(
            about, "http", Grade.WARNING, f"answers, but accepts no clients: {said}", "see its log"
        )
    whose = f", of user id {user}" if user is not None else ""
    todo = "stop that program, or choose another submitHttp.port"
    return Finding(about, "http", Grade.PROBLEM, f"{_ANOTHER}{whose}: {said}", todo)


async def _other_family(endpoint: Endpoint, spool: Path) -> Finding | None:
    """Report another program that answers at ::1, which applications set to `localhost` may try first."""
    look = _http if endpoint.http else _listener
    port = endpoint.port
    found = await look(replace(endpoint, host="::1"), spool, started=False)
    if not found.found.startswith(_ANOTHER):
        return None
    words = f"{found.found}; applications that are set to localhost may hand it their mail and passwords"
    return Finding(
        f"[::1]:{port}", found.what, found.grade, words, "stop that program, or set them to 127.0.0.1"
    )


@asynccontextmanager
async def _connected(endpoint: Endpoint) -> AsyncIterator[tuple[StreamReader, StreamWriter]]:
    async with asyncio.timeout(_TIMEOUT):
        if endpoint.path:
            reader, writer = await asyncio.open_unix_connection(endpoint.path)
        else:
            host = _CONNECT_TO.get(endpoint.host, endpoint.host)
            reader, writer = await asyncio.open_connection(host, endpoint.port, ssl=_tls(endpoint))
        try:
            yield reader, writer
        finally:
            writer.close()


def _tls(endpoint: Endpoint) -> ssl.SSLContext | None:
    """Return a TLS context that verifies nothing: the peer is this host; `files` checks the certificate."""
    if not endpoint.tls:
        return None
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def _unreachable(about: str, what: str, error: OSError | ValueError, port: int, *, started: bool) -> Finding:
    why = getattr(error, "strerror", None) or str(error) or "no answer in time"
    if isinstance(error, ConnectionRefusedError | FileNotFoundError):
        why = "no program listens there"
        if not started:
            note = ""
            if 0 < port < PRIVILEGED and os.geteuid() != 0:
                note = (
                    "; ports below 1024 are root's to open: see AmbientCapabilities in systemd/mailer.service"
                )
            return Finding(about, what, Grade.SKIPPED, f"free; mailer was never started here{note}")
    return Finding(
        about, what, Grade.PROBLEM, printable(why), "start it: mailer serve, or systemctl start mailer"
    )


async def _monitor(port: int, *, started: bool) -> Finding:
    about = f"127.0.0.1:{port}"
    try:
        async with _connected(Endpoint("127.0.0.1", port)) as (reader, writer):
            writer.write(b"GET /health HTTP/1.0\r\nHost: localhost\r\n\r\n")
            answer = await reader.read(_MAX_ANSWER)
            while (
                answer.startswith(b"HTTP/")
                and len(answer) < _MAX_ANSWER
                and (more := await reader.read(_MAX_ANSWER))
            ):
                answer += more
    except (OSError, ValueError) as error:
        found = _unreachable(about, "health", error, port, started=started)
        if found.grade is Grade.SKIPPED:
            return found
        todo = "start mailer monitor, or set enableHealthCheck to false"
        return Finding(about, "health", Grade.WARNING, found.found, todo)
    head, _, body = answer.partition(b"\r\n\r\n")
    try:
        health = msgspec.json.decode(body, type=_Health)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        first = head.partition(b"\r\n")[0].decode("utf-8", "replace")
        words = f"another program answers: {printable(first, 100) or 'it sends nothing'}"
        todo = "stop that program, or choose another healthCheckPort"
        return Finding(about, "health", Grade.PROBLEM, words, todo)
    complaints = [f"{name}: {each.message}" for name, each in health.checks.items() if each.status != "ok"]
    if health.status == "ok":
        return Finding(about, "health", Grade.OK, "the monitor says that all is well")
    words = f"the monitor says {printable('; '.join((health.status, *complaints)), 500)}"
    return Finding(about, "health", Grade.WARNING, words, f"curl -s http://{about}/health says more")


def trusted_findings(config: Config) -> Iterator[Finding]:
    """Describe each of `trustedNetworks`; warn where its user may send as anyone, or without a limit."""
    try:
        users = read_users(config.users_file, owners_of(config.spool_dir))
    except (ConfigError, OSError):
        return  # Reported with the files.
    for listener in config.listeners:
        about = f"{listener.host or '*'}:{listener.port}"
        for each in listener.trusted_networks:
            yield _trusted(about, each, users.get(each.user), config)


def _trusted(about: str, trusted: TrustedNetwork, user: User | None, config: Config) -> Finding:
    name = printable(trusted.user, 60)
    if user is None and trusted.user != config.default_username:
        words = f"{trusted.cidr} is for the user {name}, who does not exist: clients there must log in"
        todo = f"mailer user add {shlex.quote(name)} --allow ADDRESS"
        return Finding(about, "trusted", Grade.PROBLEM, words, todo)
    try:
        found = network(trusted.cidr)
    except ValueError as error:
        return Finding(about, "trusted", Grade.PROBLEM, f"{trusted.cidr} {error}")
    senders = user.allowed_senders if user else ("*",)
    bounds = ((user.max_per_hour, "an hour"), (user.max_per_day, "a day")) if user else ()
    limits = [f"{most} messages {unit}" for most, unit in bounds if most]
    anyone = "*" in senders
    shown = ["any sender"] if anyone else [printable(each, 60) for each in senders[:_SHOWN]]
    if not anyone and len(senders) > _SHOWN:
        shown.append(f"{len(senders) - _SHOWN} more")
    count = f"{found.num_addresses} address{'es' if found.num_addresses > 1 else ''}"
    words = (
        f"{count} ({found}) may send as {name} without a password: from {', '.join(shown)}, "
        f"{' and '.join(limits) or 'without a limit of its own'}. The same holds for what connects through "
        "one of them: programs of this host, a container's published port, a NAT"
    )
    if not is_private(found):
        return Finding(
            about, "trusted", Grade.WARNING, words, "name only addresses that are permanently yours"
        )
    if anyone or not (limits or config.rate_limits.enabled):
        todo = (
            f"give it a separate user: mailer user add {shlex.quote(name)} --allow ADDRESS --max-per-hour N"
        )
        return Finding(about, "trusted", Grade.WARNING, words, todo)
    return Finding(about, "trusted", Grade.OK, words, always_shown=True)
