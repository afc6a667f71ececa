"""Sign outgoing mail with DKIM (RFC 6376, RFC 8463): choose the keys, and write the signatures.

Mail that should be signed is never sent unsigned because of an error here: every problem with a key is a
`SigningError`, and the mail waits.

dkimpy is used to verify signatures (`verify`), but not to make them. Its signer needs the message in one
piece, canonicalizes the header again for each signature, breaks a d= of more than 70 characters in two, and
refuses mail with malformed header lines. Loading it would cost each run, maybe one a minute by cron, 85 ms.
"""

import base64
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mailer.config.model import Dkim, DkimKey, MissingKey
from mailer.mail.clock import Clock
from mailer.send.dkim.author import ascii_domain, author_domain
from mailer.send.dkim.canonical import BodyCanonicalizer, header_field
from mailer.send.dkim.key_files import KeyFile, KeyTrouble
from mailer.send.dkim.signed_fields import BLOCK, Field, HeaderTooLarge, SignedNames, Source, read_header

if TYPE_CHECKING:
    from mailer.send.dkim.keys import PrivateKey

_MARGIN = 76
"""Columns to fold at. RFC 5322 2.1.1 recommends at most 78; only a long domain name exceeds them."""


class SigningError(Exception):
    """A message cannot be signed now and must not be sent unsigned; it may be signed when it is retried."""

    def __init__(self, reason: str) -> None:
        """Args: reason: what is wrong and what to do, for the journal and the operator."""
        super().__init__(reason)
        self.reason = reason


class NoKey(SigningError):
    """The From domain has no key, and `onMissingKey` is `hold`."""


@dataclass(frozen=True, slots=True)
class _Signatory:
    """A key, its domain and its selector."""

    domain: str
    selector: str
    file: KeyFile


class Signer:
    """Signs messages. A run has one, which reads each key once, and again when its file changes."""

    def __init__(self, dkim: Dkim, clock: Clock) -> None:
        """Prepare; no key is read before there is mail to sign.

        Args:
            dkim: the configuration as `load` returns it, after `refuse_to_send` has accepted it.
            clock: for t= and x=.

        Raises:
            ValueError: a domain or selector is invalid, or a key has no path.
        """
        self._clock = clock
        self._expiry = int(dkim.signature_expiry)
        self._canonicalization = dkim.canonicalization.value
        header, _, body = self._canonicalization.partition("/")
        self._relaxed_header = header == "relaxed"
        self._relaxed_body = body == "relaxed"
        self._names = SignedNames(dkim.headers_to_sign)
        self._hold = dkim.on_missing_key is MissingKey.HOLD
        self._match_parents = dkim.match_parent_domain
        signatories = [_signatory(key) for key in dkim.signing_keys]
        self._by_domain: dict[str, list[_Signatory]] = {}
        for signatory in signatories:
            self._by_domain.setdefault(signatory.domain, []).append(signatory)
        self._for_all = [] if dkim.keys else signatories

    def sign(self, source: Source) -> bytes:
        """Return the DKIM signatures of a message.

        The message is read once, in blocks. That takes about 0.2 s for 50 MB, so callers that must not block
        should use a thread for large messages; this method is thread-safe.

        Returns:
            The DKIM-Signature fields, each with its line end, to be put before the message's first byte.
            Empty if the From domain has no key and `onMissingKey` is `send`, or if there is no From field: a
            signature must cover it (RFC 6376 5.4), and would break when a server on the way adds one.

        Raises:
            SigningError: the message cannot be signed, so the mail must wait.
            OSError: the source cannot be read.
        """
        try:
            fields, body_at = read_header(source)
        except HeaderTooLarge as error:
            raise SigningError(str(error)) from error
        signatories = self._signatories(fields)
        keys = [_usable(each.file) for each in signatories]
        if not keys:
            return b""
        body_digest = self._body_digest(source, body_at)
        names, signed = self._names.select(fields, relaxed=self._relaxed_header)
        now = int(self._clock())
        signatures: list[bytes] = []
        for signatory, key in zip(signatories, keys, strict=True):
            unsigned = self._unsigned(signatory, key.algorithm, now, names, body_digest)
            name, _, value = unsigned.partition(b":")
            # RFC 6376 3.7: the signature field itself comes last, with an empty b= and without its line end.
            own = header_field(name, value, relaxed=self._relaxed_header).removesuffix(b"\r\n")
            signature = key.sign(hashlib.sha256(signed + own).digest())
            signatures.append(unsigned + _folded_base64(signature) + b"\r\n")
        return b"".join(signatures)

    def signing_domains(self, author: str) -> tuple[str, ...]:
        """Return d= of each signature that mail from this author domain would get; empty if it has no key."""
        return tuple(signatory.domain for signatory in self._signatories_for(author))

    def _signatories(self, fields: Sequence[Field]) -> Sequence[_Signatory]:
        author = next((field.value for field in fields if field.key == b"from"), None)
        domain = author_domain(author or b"")
        found = self._signatories_for(domain)
        if author is None and self._for_all:
            return ()
        if not found and self._hold:
            whose = domain or "mail without a domain in its From field"
            raise NoKey(
                f"there is no DKIM key for {whose}: add one to dkim.keys, or let such mail leave unsigned "
                'with dkim.onMissingKey "send"'
            )
        return found

    def _signatories_for(self, author: str | None) -> Sequence[_Signatory]:
        if self._for_all:
            return self._for_all
        keys = (self._by_domain.get(candidate) for candidate in self._candidates(author))
        return next(filter(None, keys), ())

    def _candidates(self, domain: str | None) -> Iterator[str]:
        while domain:
            yield domain
            domain = domain.partition(".")[2] if self._match_parents else None

    def _body_digest(self, source: Source, offset: int) -> bytes:
        digest = hashlib.sha256()
        body = BodyCanonicalizer(digest, relaxed=self._relaxed_body)
        while block := source.read(offset, BLOCK):
            body.update(block)
            offset += len(block)
        body.finish()
        return digest.digest()

    def _unsigned(
        self, signatory: _Signatory, algorithm: str, now: int, names: Sequence[str], body_digest: bytes
    ) -> bytes:
        """Return the signature field up to and including `b=`."""
        tags = [
            "DKIM-Signature: v=1;",
            f" a={algorithm};",
            f" c={self._canonicalization};",
            f" d={signatory.domain};",
            f" s={signatory.selector};",
            f" t={now};",
        ]
        if self._expiry:
            tags.append(f" x={now + self._expiry};")
        tags += [f" h={names[0]}:", *(f"{name}:" for name in names[1:-1]), f"{names[-1]};"]
        tags.append(f" bh={base64.b64encode(body_digest).decode()};")
        return _folded(tags)


def _signatory(key: DkimKey) -> _Signatory:
    if key.private_key_path is None:
        raise ValueError("a DKIM key without a path")
    return _Signatory(ascii_domain(key.domain), ascii_domain(key.selector), KeyFile(key.private_key_path))


def _usable(file: KeyFile) -> "PrivateKey":
    try:
        return file.key()
    except KeyTrouble as trouble:
        raise SigningError(str(trouble)) from trouble


def _folded(parts: Sequence[str]) -> bytes:
    """Join the parts of a field and `b=`; fold before parts that would cross the margin, and before `b=`."""
    lines: list[str] = []
    line = ""
    for part in parts:
        if line and len(line) + len(part) > _MARGIN:
            lines.append(line)
            line = "\t" + part.lstrip(" ")
        else:
            line += part
    return "\r\n".join((*lines, line, "\tb=")).encode()


def _folded_base64(signature: bytes) -> bytes:
    text = base64.b64encode(signature)
    first, step = _MARGIN - len("\tb="), _MARGIN - len("\t")
    return b"\r\n\t".join((text[:first], *(text[at : at + step] for at in range(first, len(text), step))))
