"""Format the explanations of `mailer route` for people."""

import msgspec

from mailer.cli.route.explanation import Explanation, HopDescription
from mailer.config.receiving import RewriteFrom
from mailer.mail.reply import printable
from mailer.spool import words


def as_text(told: Explanation) -> str:
    """Format an explanation as lines of text."""
    lines = [f"{words.address(told.address)}: {_rule(told)}"]
    if told.reason:
        lines.append(f"    not sent: {told.reason}")
    for at, hop in enumerate(told.hops, start=1):
        lines += [f"    {at}. {_title(hop)}", *(f"       {line}" for line in _details(hop))]
    if told.budget:
        lines.append(f"    {told.budget}")
    lines.append(f"    {told.next_attempt}")
    return "".join(f"{printable(line, 2000)}\n" for line in lines)


def _rule(told: Explanation) -> str:
    if told.hops and told.hops[0].kind == "server":
        return "its last reply was lost, so it is tried again there and nowhere else"
    if not told.rule:
        return "no rule matches"
    wanted = msgspec.json.encode(told.conditions).decode() if told.conditions else "all mail"
    return f"{told.rule} matches ({wanted})"


def _title(hop: HopDescription) -> str:
    login = f" as {hop.username}" if hop.username else ""
    share = f", weight {hop.weight}" if hop.weight else ""
    health = f": {hop.health}" if hop.health else ""
    where = f" ({hop.relay}{login})" if hop.relay and hop.relay != hop.name else ""
    return f"{hop.name}{where}{share}{health}"


def _details(hop: HopDescription) -> list[str]:
    if hop.kind == "server":
        return []
    details = [f"to {', '.join(hop.exchangers)}"] if hop.exchangers else []
    details += [hop.tls] if hop.tls else []
    author = (
        "" if hop.rewrite_from == RewriteFrom.KEEP else f"; From becomes {hop.sender} ({hop.rewrite_from})"
    )
    details.append(f"sender {words.address(hop.sender)}{author}")
    signed = [f"d={domain} s={selector}" for domain, _, selector in (key.partition(" ") for key in hop.dkim)]
    details.append(f"signed by {', '.join(signed)}" if signed else "not signed")
    return [*details, *([f"trouble: {hop.trouble}"] if hop.trouble else [])]
