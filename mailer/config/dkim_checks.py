"""Check the `dkim` settings of a configuration that loads; called by `checks`."""

import os
from collections.abc import Iterator

from mailer.config.model import Config, DkimKey
from mailer.config.problem import Problem
from mailer.config.trust import Owners, owners_of, why_untrusted
from mailer.mail.lazy_pattern import compile_late
from mailer.mail.reply import printable

MAX_NAME = 253
"""Characters of a DNS name, dots included (RFC 1035 2.3.4: 255 octets on the wire)."""

# Host names have no underscores, but names of DNS records do.
_LABEL = compile_late(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
# ftext of RFC 5322 3.6.8, without the semicolon, which would end the list of names in h=.
_FIELD_NAME = compile_late(r"[!-9<-~]+")
_NEVER_SIGNED = {"bcc", "dkim-signature", "received", "resent-bcc", "return-path"}
"""RFC 6376 5.4: fields that are changed or removed in transit, so that a signature over them would break."""


def refusals(config: Config) -> Iterator[Problem]:
    """Yield reasons why mail cannot, or must not, be signed as configured."""
    if not config.dkim.enabled:
        return
    yield from _names(config)
    yield from _fields(config)
    owners = owners_of(config.spool_dir)
    for path, key in _keys(config):
        yield from _exposed(path, key, owners)


def missing_keys(config: Config) -> Iterator[Problem]:
    """Yield keys that do not exist (yet); mail waits for them."""
    if not config.dkim.enabled:
        return
    if not config.dkim.signing_keys:
        yield Problem("$.dkim.domain", "is empty and defaultUsername has no domain to take its place")
    for path, key in _keys(config):
        file = key.private_key_path
        if file is not None and not os.access(file, os.R_OK):
            yield Problem(
                f"{path}.privateKeyPath", f"there is no key at {printable(str(file))} that we can read"
            )


def _keys(config: Config) -> Iterator[tuple[str, DkimKey]]:
    """Yield every key with its path in the configuration."""
    dkim = config.dkim
    more = [(f"$.dkim.keys[{at}]", key) for at, key in enumerate(dkim.keys)]
    own = [("$.dkim", key) for key in dkim.signing_keys[: len(dkim.signing_keys) - len(dkim.keys)]]
    yield from (*own, *more)


def _names(config: Config) -> Iterator[Problem]:
    seen: set[tuple[str, str]] = set()
    for path, key in _keys(config):
        if not _is_name(key.domain):
            yield Problem(
                f"{path}.domain",
                "expected a domain name such as example.com; an international one as xn--...",
            )
        elif not _is_name(key.selector):
            yield Problem(f"{path}.selector", 'expected letters, digits and hyphens, such as "mail"')
        elif len(f"{key.selector}._domainkey.{key.domain}") > MAX_NAME:
            yield Problem(
                f"{path}.domain",
                f"is too long: with selector and ._domainkey it has more than the {MAX_NAME} characters of "
                "a DNS name",
            )
        name = (key.domain.lower(), key.selector.lower())
        if name in seen:
            yield Problem(f"{path}.selector", "another key has the same domain and selector")
        seen.add(name)


def _is_name(text: str) -> bool:
    return all(_LABEL.fullmatch(label) for label in text.split("."))


def _fields(config: Config) -> Iterator[Problem]:
    for at, name in enumerate(config.dkim.headers_to_sign):
        where = f"$.dkim.headersToSign[{at}]"
        if not _FIELD_NAME.fullmatch(name):
            yield Problem(where, "expected the name of a header field, without a colon")
        elif name.lower() in _NEVER_SIGNED:
            yield Problem(where, f"{name} must not be signed: it changes or vanishes on the way")


def _exposed(path: str, key: DkimKey, owners: Owners) -> Iterator[Problem]:
    if key.private_key_path is None:
        return
    if why := why_untrusted(key.private_key_path, owners=owners, secret=True):
        yield Problem(f"{path}.privateKeyPath", f"the key is not used: {why}")
