"""Sign requests to Amazon Web Services (Signature Version 4), without I/O.

    canonical request -> string to sign -> a key for day, region and service -> Authorization

Source: AWS, "Signature Version 4 signing process". `tests/send/test_send_http_ses.py` has its tests.
"""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from urllib.parse import parse_qsl, quote, urlsplit

_ALGORITHM = "AWS4-HMAC-SHA256"


@dataclass(frozen=True, slots=True)
class Keys:
    """AWS access keys."""

    key_id: str
    secret: str = field(repr=False)
    session: str = field(default="", repr=False)
    """The session token of temporary keys; empty: the keys are permanent."""


@dataclass(frozen=True, slots=True)
class Signer:
    """The keys to sign with, and the region and service that signatures are valid for."""

    keys: Keys
    region: str
    service: str


def signed(
    method: str, url: str, headers: Mapping[str, str], payload: str, signer: Signer, now: float
) -> dict[str, str]:
    """Return the headers of a request, with the signature and what else it needs.

    Args:
        method: in upper case.
        url: the URL of the request.
        headers: the headers to sign; Host and the date are added.
        payload: the body's SHA-256, in hexadecimal.
        signer: the keys, and their region and service.
        now: seconds since the epoch; the service refuses a time that differs from its clock by minutes.
    """
    parts, keys = urlsplit(url), signer.keys
    moment = datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%SZ")
    every = {**headers, "Host": parts.netloc, "X-Amz-Date": moment}
    if keys.session:
        every["X-Amz-Security-Token"] = keys.session
    lines = {name.lower(): " ".join(value.split()) for name, value in every.items()}
    names = ";".join(sorted(lines))
    canonical = "\n".join(
        [
            method,
            quote(parts.path or "/", safe="/-_.~"),
            _query(parts.query),
            *(f"{name}:{lines[name]}" for name in sorted(lines)),
            "",
            names,
            payload,
        ]
    )
    scope = f"{moment[:8]}/{signer.region}/{signer.service}/aws4_request"
    text = f"{_ALGORITHM}\n{moment}\n{scope}\n{sha256(canonical.encode()).hexdigest()}"
    signature = _hmac(_key(keys.secret, scope), text).hex()
    every["Authorization"] = (
        f"{_ALGORITHM} Credential={keys.key_id}/{scope}, SignedHeaders={names}, Signature={signature}"
    )
    return every


def _query(query: str) -> str:
    pairs = sorted(
        (quote(name, safe="-_.~"), quote(value, safe="-_.~"))
        for name, value in parse_qsl(query, keep_blank_values=True)
    )
    return "&".join(f"{name}={value}" for name, value in pairs)


def _key(secret: str, scope: str) -> bytes:
    key = f"AWS4{secret}".encode()
    for part in scope.split("/"):
        key = _hmac(key, part)
    return key


def _hmac(key: bytes, text: str) -> bytes:
    return hmac.digest(key, text.encode(), "sha256")
