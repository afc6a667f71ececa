"""Send one batch of events to the receiver, and interpret its answer.

A webhook gets a JSON array by POST, signed with `Mailer-Signature: t=SECONDS,v1=HEX`, where HEX is the
HMAC-SHA256, keyed with the secret, of `SECONDS`, a dot and the body. A receiver that checks the time is safe
from replays of a recorded request. A command gets the same objects on standard input, one per line.
"""

import asyncio
import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from http import HTTPStatus

import msgspec

from mailer import __version__
from mailer.calls import command
from mailer.calls.post import JSON, CallError, Response, post
from mailer.config.calls import OnEvent
from mailer.config.http_checks import bad_url
from mailer.config.secrets import SecretError
from mailer.events.event import Event
from mailer.mail.clock import Clock

SIGNATURE = "Mailer-Signature"
WEBHOOK_TIMEOUT = 10.0
"""Seconds for one request; a receiver should store the events, answer, and process them afterwards."""
COMMAND_TIMEOUT = 30.0
"""Seconds for a command; less than a run of `mailer-send --once` allows (`cli/event_delivery`)."""


class Verdict(Enum):
    """The result of sending a batch."""

    TAKEN = auto()
    LATER = auto()
    """A temporary failure: 5xx, 408, 425, 429, no answer, or a command's exit code."""
    REFUSED = auto()
    """Retries are unlikely to help until the setup changes: other 4xx, a redirect, or our own secret."""
    GONE = auto()
    """410: the receiver wants no more events."""
    TOO_LARGE = auto()
    """413: a smaller batch may be accepted."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A verdict with its reason, for operators; the reason contains neither the URL nor the secret."""

    verdict: Verdict
    why: str = ""
    wait: float = 0.0
    """Seconds that the receiver asks to wait (Retry-After); 0: none."""


_LATER = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS}


def judge(response: Response) -> Answer:
    """Return the verdict for a webhook's response."""
    if response.taken:
        return Answer(Verdict.TAKEN)
    why = f"the webhook answered {response.status}"
    if to := response.redirects_to:
        return Answer(Verdict.REFUSED, f"{why}: it redirects to {to}, which is not followed")
    if response.status == HTTPStatus.GONE:
        return Answer(Verdict.GONE, f"{why}: it takes no more events; correct onEvent.webhook, or remove it")
    if response.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        return Answer(Verdict.TOO_LARGE, why)
    if response.status >= HTTPStatus.INTERNAL_SERVER_ERROR or response.status in _LATER:
        return Answer(Verdict.LATER, why, _seconds(response.headers.get("Retry-After", "")))
    return Answer(Verdict.REFUSED, why)


def _seconds(text: str) -> float:
    return float(text) if text.isascii() and text.isdigit() and len(text) < 8 else 0.0


def signature(secret: str, now: float, body: bytes) -> str:
    """Return the value of the header field that proves who sent a body, and when."""
    at = str(int(now))
    digest = hmac.new(secret.encode(), at.encode() + b"." + body, hashlib.sha256)
    return f"t={at},v1={digest.hexdigest()}"


class Receiver:
    """The webhook or command that the configuration names."""

    def __init__(self, on_event: OnEvent, clock: Clock) -> None:
        """Store the parameters; nothing is contacted yet."""
        self._on_event = on_event
        self._clock = clock

    async def give(self, events: Sequence[Event]) -> Answer:
        """Send events to the receiver; its failures are returned as an `Answer`, not raised."""
        try:
            if self._on_event.command:
                return await self._run(events)
            return await self._post(events)
        except TimeoutError:
            return Answer(Verdict.LATER, f"the webhook has not answered within {WEBHOOK_TIMEOUT:g} seconds")
        except CallError as trouble:
            return Answer(Verdict.LATER, str(trouble))
        except SecretError as error:
            return Answer(Verdict.REFUSED, str(error))

    async def _run(self, events: Sequence[Event]) -> Answer:
        lines = b"".join(msgspec.json.encode(event) + b"\n" for event in events)
        await command.run(self._on_event.command, lines, timeout=COMMAND_TIMEOUT, environment={})
        return Answer(Verdict.TAKEN)

    async def _post(self, events: Sequence[Event]) -> Answer:
        # In a thread, because a secret may come from a slow command.
        url = await asyncio.to_thread(self._on_event.webhook.reveal)
        if wrong := bad_url(url):
            return Answer(Verdict.REFUSED, f"{self._on_event.webhook.key}: {wrong}")
        secret = await asyncio.to_thread(self._on_event.secret.reveal)
        if not secret:
            return Answer(Verdict.REFUSED, f"{self._on_event.secret.key}: is empty")
        body = msgspec.json.encode(events)
        headers = {
            "Content-Type": JSON,
            "User-Agent": f"mailer/{__version__}",
            SIGNATURE: signature(secret, self._clock(), body),
        }
        return judge(await post(url, body, timeout=WEBHOOK_TIMEOUT, headers=headers))
