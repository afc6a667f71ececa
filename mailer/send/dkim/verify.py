"""Verify DKIM signatures with dkimpy, which shares no code with our signer; for operators and for our checks.

No other module here imports dkimpy.
"""

import asyncio
import base64
import logging
from collections.abc import Callable
from enum import StrEnum
from typing import NamedTuple, Protocol

import dkim
from dkim.util import InvalidTagValueList, parse_tag_value

from mailer.mail.reply import printable
from mailer.send.dkim.keys import verify_ed25519
from mailer.send.dkim.opened import Opened, Unreadable, fault_of_signature
from mailer.send.resolver import LookupFailed, NoSuchName


class Result(StrEnum):
    """The result of a verification (RFC 8601 2.7.1)."""

    PASS = "pass"  # noqa: S105 - a result, no password
    FAIL = "fail"
    TEMPORARY = "temperror"
    PERMANENT = "permerror"


class Verdict(NamedTuple):
    """The result for one signature."""

    domain: str
    selector: str
    algorithm: str
    result: Result
    reason: str
    """Empty for a pass."""


class TextLookup(Protocol):
    """Asks DNS for TXT records; raises NoSuchName and LookupFailed."""

    async def texts(self, name: str) -> list[str]: ...


MAX_SIGNATURES = 10
"""The most signatures to verify, from the top (RFC 6376 6.1 lets a verifier limit them). opendkim: 3."""
_RELAXED = "/relaxed"
"""The end of `c=` (RFC 6376 3.5) for a body in relaxed form."""
_MAX_RECORD = 4096
"""Characters of a key record; an RSA key of 8,192 bits has 1,400. A larger key may take minutes."""
_MAX_MODULUS = 8192
"""Bits of an RSA key. RFC 8301 3.2: verifiers must accept 1,024 to 4,096, and may accept more."""
_MAX_EXPONENT = 64
"""Bits. Nearly all keys have 65537. *One of 12,000 bits, with a modulus as long, took 8.4 s.* OpenSSL: 64,
for a modulus of more than 3,072 bits."""


async def verify(message: bytes, lookup: TextLookup) -> list[Verdict]:
    """Verify the signatures of a message, from the top.

    Args:
        message: the whole message; its lines end in CRLF, or in LF, as mail readers save it.
        lookup: looks up the keys.

    Returns:
        One verdict for each signature; empty if there is none. A file that is not a message yields one
        `permerror` without a domain. Signatures beyond `MAX_SIGNATURES` share one such verdict at the end.
    """
    try:
        opened = Opened.of(message)
    except Unreadable as error:
        return [_unread(printable(str(error), 200))]
    values = [value for name, value in opened.fields if name.lower() == b"dkim-signature"]
    looked_at = values[:MAX_SIGNATURES]
    # Concurrently, since the message's author chooses the names, and may choose servers that do not answer.
    verdicts = list(await asyncio.gather(*(_one(opened, *each, lookup) for each in enumerate(looked_at))))
    if more := len(values) - len(looked_at):
        verdicts.append(_unread(f"{more} more signatures, which are not verified"))
    return verdicts


def _unread(reason: str) -> Verdict:
    return Verdict("", "", "", Result.PERMANENT, reason)


async def _one(opened: Opened, index: int, value: bytes, lookup: TextLookup) -> Verdict:
    if fault := fault_of_signature(value):
        return _unread(fault)
    try:
        tags = {key: tag.decode("utf-8", "replace") for key, tag in parse_tag_value(value).items()}
    except InvalidTagValueList as error:
        return _unread(f"no list of tags: {printable(str(error), 200)}")
    domain, selector = tags.get(b"d", ""), tags.get(b"s", "")
    body = opened.relaxed if tags.get(b"c", "").endswith(_RELAXED) else opened.simple
    result, reason = await _judge(opened.fields, body, index, f"{selector}._domainkey.{domain}", lookup)
    return Verdict(printable(domain), printable(selector), printable(tags.get(b"a", "")), result, reason)


async def _judge(
    fields: list[tuple[bytes, bytes]], body: bytes, index: int, name: str, lookup: TextLookup
) -> tuple[Result, str]:
    try:
        records = await lookup.texts(name)
    except NoSuchName:
        records = []
    except LookupFailed as error:
        return Result.TEMPORARY, f"{printable(name)}: {error}"
    if not records:
        return Result.PERMANENT, f"there is no key at {printable(name)}"
    if len(records[0]) > _MAX_RECORD:
        return Result.PERMANENT, f"the record at {printable(name)} has more than {_MAX_RECORD} characters"
    try:
        return _judge_by(records[0].encode(), fields, body, index)
    except _KeyTooLarge as error:
        return Result.PERMANENT, f"{error}, at {printable(name)}: its owner is to publish a usual key"


def _judge_by(
    record: bytes, fields: list[tuple[bytes, bytes]], body: bytes, index: int
) -> tuple[Result, str]:
    complaints = _Complaints()
    logger = _silent()
    logger.addHandler(complaints)
    verifier = _Verifier(logger=logger)
    verifier.headers, verifier.body = fields, body
    try:
        # dkimpy looks up the name whose record we already have.
        valid = verifier.verify(index, dnsfunc=lambda _, timeout: record)  # noqa: ARG005 - by name
    except _KeyTooLarge:
        raise
    except Exception as error:  # noqa: BLE001 - untrusted input provokes all sorts of exceptions in dkimpy
        return Result.FAIL, printable(str(error), 200) or type(error).__name__
    if valid:
        return Result.PASS, ""
    return Result.FAIL, complaints.last or "the signature does not fit the header fields that it covers"


class _KeyTooLarge(Exception):
    """A key is so large that verification would take too long."""


class _Verifier(dkim.DKIM):  # type: ignore[misc]  # dkimpy has no types
    """dkimpy's verifier, with Ed25519 from `cryptography`, so that no further library is needed."""

    def verify_sig(
        self,
        sig: dict[bytes, bytes],
        include_headers: list[bytes],
        sig_header: tuple[bytes, bytes],
        dnsfunc: Callable[..., bytes],
    ) -> bool:
        """Verify one signature; called by dkimpy."""
        form = sig.get(b"c", b"")
        if self.body and form.endswith(_RELAXED.encode()):
            # The body is in relaxed form already, which `simple` canonicalization does not change.
            sig = sig | {b"c": form.removesuffix(_RELAXED.encode()) + b"/simple"}
        if sig[b"a"] != b"ed25519-sha256":
            return bool(super().verify_sig(sig, include_headers, sig_header, dnsfunc))
        key = parse_tag_value(dnsfunc(b"", timeout=self.timeout))
        if key.get(b"k") != b"ed25519":
            raise dkim.KeyFormatError("the record is not for an Ed25519 key")
        self.pk = _Ed25519(base64.b64decode(key.get(b"p", b"")))
        self.keysize, self.ktag, self.seqtlsrpt = 256, b"ed25519", False
        self.verify_sig_process(sig, include_headers, sig_header, dnsfunc)
        return self.pk.valid

    def verify_sig_process(
        self,
        sig: dict[bytes, bytes],
        include_headers: list[bytes],
        sig_header: tuple[bytes, bytes],
        dnsfunc: Callable[..., bytes],
    ) -> bool:
        """Verify one signature by the key in `pk`; called by `verify_sig`."""
        if isinstance(self.pk, dict):
            for part, most in (("modulus", _MAX_MODULUS), ("publicExponent", _MAX_EXPONENT)):
                if (size := self.pk[part].bit_length()) > most:
                    raise _KeyTooLarge(f"the {part} of the RSA key has {size} bits, more than {most}")
        return bool(super().verify_sig_process(sig, include_headers, sig_header, dnsfunc))


class _Ed25519:
    """A public key with dkimpy's interface. dkimpy ignores what `verify` returns, so `valid` keeps it."""

    def __init__(self, public: bytes) -> None:
        self._public = public
        self.valid = False

    def verify(self, digest: bytes, signature: bytes) -> None:
        self.valid = verify_ed25519(self._public, signature, digest)


class _Complaints(logging.Handler):
    """Keeps the last error that dkimpy logs instead of raising it."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.last = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.last = printable(record.getMessage(), 200)


def _silent() -> logging.Logger:
    """Return a private logger, since dkimpy's own one is shared and prints to standard error."""
    logger = logging.Logger("dkimpy")  # noqa: LOG001 - deliberately outside of the hierarchy
    logger.addHandler(logging.NullHandler())
    return logger
