"""Check what happens to mail that no DKIM key matches."""

from mailer.config.model import Config, MissingKey
from mailer.config.receiving import RewriteFrom
from mailer.mail.finding import Finding, Grade

_ABOUT = "mail without a domain in From"


def unsigned(config: Config) -> Finding | None:
    """Check how mail is signed whose From field has no domain, such as cron's; None if DKIM is off."""
    dkim = config.dkim
    if not dkim.enabled:
        return None
    if not dkim.signing_keys:
        found = "dkim.enabled is on and there is no key: all mail waits for one until it expires"
        todo = "set dkim.domain, and type: mailer dkim keygen --domain DOMAIN; or turn dkim.enabled off"
        return _finding(Grade.PROBLEM, found, todo)
    if not dkim.keys:
        found = f"signed with the one key, of {dkim.domain}; without any From field it leaves unsigned"
        return _finding(Grade.OK, found)
    if config.rewrite_from is not RewriteFrom.KEEP:
        return _finding(Grade.OK, "rewriteFrom gives it an address, and so a key")
    if dkim.on_missing_key is MissingKey.SEND:
        return _finding(Grade.OK, "leaves unsigned (dkim.onMissingKey)")
    found = "has no key: it waits until it expires, and is then reported as undelivered"
    todo = 'set rewriteFrom to "replace" and rewriteFromAddress, or dkim.onMissingKey to "send"'
    return _finding(Grade.WARNING, found, todo)


def _finding(grade: Grade, found: str, todo: str = "") -> Finding:
    return Finding(_ABOUT, "dkim", grade, found, todo)
