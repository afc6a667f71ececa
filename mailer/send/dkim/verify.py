"""Signatures verified by dkimpy, which shares no code with our signer: for the operator, and for our checks.

The one module of the room that imports dkimpy.
"""

import base64
import logging
from collections.abc import Callable
from enum import StrEnum
from typing import NamedTuple, Protocol

import dkim
from dkim.util import InvalidTagValueList, parse_tag_value

from mailer.mail.reply import printable
from mailer.send.dkim.keys import verify_ed25519
from mailer.send.resolver import LookupFailed, NoSuchName


class Result(StrEnum):
    """RFC 8601 2.7.1."""

    PASS = "pass"  # noqa: S105 - a result, no password
    FAIL = "fail"
    TEMPORARY = "temperror"
    PERMANENT = "permerror"


class Verdict(NamedTuple):
    """What became of one signature."""

    domain: str
    selector: str
    algorithm: str
    result: Result
    reason: str
    """Empty for a pass."""


class TextLookup(Protocol):
    """Asks DNS for TXT records; raises NoSuchName and LookupFailed."""

    async def texts(self, name: str) -> list[str]: ...


async def verify(message: bytes, lookup: TextLookup) -> list[Verdict]:
    """Verify every signature of a message, from the top.

    Args:
        message: whole; line ends of CRLF, or of LF, as mail readers save it.
        lookup: where the keys are.

    Returns:
        Nothing for a message without a signature; one `permerror` without a domain for what is no message.
    """
    try:
        verifier = _Verifier(message, logger=_silent())
        values = [value for name, value in verifier.headers if name.lower() == b"dkim-signature"]
    except dkim.DKIMException as error:
        return [Verdict("", "", "", Result.PERMANENT, printable(str(error), 200))]
    return [await _one(message, index, value, lookup) for index, value in enumerate(values)]


async def _one(message: bytes, index: int, value: bytes, lookup: TextLookup) -> Verdict:
    try:
        tags = {key: tag.decode("utf-8", "replace") for key, tag in parse_tag_value(value).items()}
    except InvalidTagValueList as error:
        return Verdict("", "", "", Result.PERMANENT, f"no list of tags: {printable(str(error), 200)}")
    domain, selector = tags.get(b"d", ""), tags.get(b"s", "")
    result, reason = await _judge(message, index, f"{selector}._domainkey.{domain}", lookup)
    return Verdict(printable(domain), printable(selector), printable(tags.get(b"a", "")), result, reason)


async def _judge(message: bytes, index: int, name: str, lookup: TextLookup) -> tuple[Result, str]:
    try:
        records = await lookup.texts(name)
    except NoSuchName:
        records = []
    except LookupFailed as error:
        return Result.TEMPORARY, f"{printable(name)}: {error}"
    if not records:
        return Result.PERMANENT, f"there is no key at {printable(name)}"
    complaints = _Complaints()
    logger = _silent()
    logger.addHandler(complaints)
    verifier = _Verifier(message, logger=logger)
    try:
        # dkimpy asks for the name that we have asked for.
        valid = verifier.verify(index, dnsfunc=lambda _, timeout: records[0].encode())  # noqa: ARG005 - by name
    except Exception as error:  # noqa: BLE001 - a stranger's field and record; what they provoke in dkimpy varies
        return Result.FAIL, printable(str(error), 200) or type(error).__name__
    if valid:
        return Result.PASS, ""
    return Result.FAIL, complaints.last or "the signature does not fit the header fields that it covers"


class _Verifier(dkim.DKIM):  # type: ignore[misc]  # dkimpy has no types
    """dkimpy, with Ed25519 by `cryptography` in place of a second library for it."""

    def verify_sig(
        self,
        sig: dict[bytes, bytes],
        include_headers: list[bytes],
        sig_header: tuple[bytes, bytes],
        dnsfunc: Callable[..., bytes],
    ) -> bool:
        """Verify one signature; called by dkimpy."""
        if sig[b"a"] != b"ed25519-sha256":
            return bool(super().verify_sig(sig, include_headers, sig_header, dnsfunc))
        key = parse_tag_value(dnsfunc(b"", timeout=self.timeout))
        if key.get(b"k") != b"ed25519":
            raise dkim.KeyFormatError("the record is not for an Ed25519 key")
        self.pk = _Ed25519(base64.b64decode(key.get(b"p", b"")))
        self.keysize, self.ktag, self.seqtlsrpt = 256, b"ed25519", False
        self.verify_sig_process(sig, include_headers, sig_header, dnsfunc)
        return self.pk.valid


class _Ed25519:
    """A public key as dkimpy uses one; it takes silence for consent, so the answer is kept here."""

    def __init__(self, public: bytes) -> None:
        self._public = public
        self.valid = False

    def verify(self, digest: bytes, signature: bytes) -> None:
        self.valid = verify_ed25519(self._public, signature, digest)


class _Complaints(logging.Handler):
    """Keeps the last of what dkimpy logs instead of raising."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.last = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.last = printable(record.getMessage(), 200)


def _silent() -> logging.Logger:
    """A logger of nobody: dkimpy's own would be shared, and print to standard error."""
    logger = logging.Logger("dkimpy")  # noqa: LOG001 - on purpose outside of the hierarchy
    logger.addHandler(logging.NullHandler())
    return logger
