"""Find the keys for requests to Amazon Web Services: in configuration, environment, or the instance's role.

The first of these that has keys is used, as by Amazon's own programs. A role's keys come from the instance
metadata service (IMDSv2). They are fetched for each session, since they last for hours and a session for
seconds.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec

from mailer.config.secrets import SecretError
from mailer.mail.outcome import Scope
from mailer.mail.reply import printable
from mailer.send.http.answer import Answer
from mailer.send.http.exchange import Broken
from mailer.send.http.sigv4 import Keys
from mailer.send.phase import Phase, Timeouts
from mailer.send.smtp.hop import Hop
from mailer.send.trouble import HopTrouble

TIMEOUTS = Timeouts(connect=2, dot=5)
"""Short, since the metadata service is either on the instance's own host or does not exist."""
_SERVICE = "http://169.254.169.254"
_TTL = "21600"
"""Seconds of validity to request for the service's token; its maximum is six hours."""
_ROLES = "/latest/meta-data/iam/security-credentials/"

Ask = Callable[[str, str, Mapping[str, str]], Awaitable[Answer]]
"""Sends a request without a body (method, address, headers); raises Broken."""


async def keys_of(hop: Hop, environ: Mapping[str, str], ask: Ask) -> Keys:
    """Return the keys to sign a hop's requests with.

    Raises:
        HopTrouble: no keys were found.
    """
    if hop.username and hop.password:
        try:
            # In a thread, since a secret may be the output of a command, which may be slow.
            return Keys(hop.username, await asyncio.to_thread(hop.password.reveal))
        except SecretError as error:
            raise _none(hop, str(error)) from None
    key_id, secret = environ.get("AWS_ACCESS_KEY_ID", ""), environ.get("AWS_SECRET_ACCESS_KEY", "")
    if key_id and secret:
        return Keys(key_id, secret, environ.get("AWS_SESSION_TOKEN", ""))
    if environ.get("AWS_EC2_METADATA_DISABLED", "").lower() == "true":
        raise _none(hop, "neither username nor AWS_ACCESS_KEY_ID is set")
    service = environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT", _SERVICE).rstrip("/")
    try:
        return await _of_role(hop, service, ask)
    except Broken as broken:
        words = f"neither username nor AWS_ACCESS_KEY_ID is set, and no instance role: {broken.text}"
        raise _none(hop, words) from broken


async def _of_role(hop: Hop, service: str, ask: Ask) -> Keys:
    asked = await ask("PUT", f"{service}/latest/api/token", {"X-aws-ec2-metadata-token-ttl-seconds": _TTL})
    token = {"X-aws-ec2-metadata-token": _text(hop, asked)}
    role = _text(hop, await ask("GET", service + _ROLES, token)).split("\n")[0].strip()
    said = _object(await ask("GET", f"{service}{_ROLES}{role}", token))
    found = [said.get(name) for name in ("AccessKeyId", "SecretAccessKey", "Token")]
    if not all(isinstance(value, str) and value for value in found):
        raise _none(hop, f"the role {printable(role, 100)} of this instance has no keys")
    return Keys(*map(str, found))


def _text(hop: Hop, answer: Answer) -> str:
    text = answer.data.decode("ascii", "replace").strip()
    if answer.status != 200 or not text or not text.replace("\n", "").isprintable():
        raise _none(hop, f"the instance metadata service answered {answer.status}: is a role attached?")
    return text


def _object(answer: Answer) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(answer.data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return {}
    return found if answer.status == 200 and isinstance(found, dict) else {}


def _none(hop: Hop, why: str) -> HopTrouble:
    text = printable(f"no AWS keys: {why}")
    return HopTrouble(str(hop), Phase.AUTH, text, scope=Scope.PROVIDER, temporary=True)
