"""`mailer explain-trouble`: print the trouble table, or what it decides about one reply."""

import re
import sys
from typing import Any

import click

from mailer.cli.options import config_option, examples, json_of
from mailer.cli.our_refusals import Refusal, ours
from mailer.cli.output import end_with_the_pipe, json_line
from mailer.mail.duration import duration
from mailer.mail.outcome import Outcome, Scope
from mailer.mail.reply import Reply
from mailer.send.phase import Phase
from mailer.send.replies.reader import read, read_line
from mailer.send.replies.reading import About, Reading
from mailer.send.trouble import TABLE, Hardness, Rule, judge, judge_http, rule

_LINE = re.compile(r"([45]\d\d)(?:[ -](.*))?", re.ASCII)
_OPENING = [Phase.BANNER, Phase.EHLO, Phase.STARTTLS, Phase.AUTH]
_PHASES = [*_OPENING, Phase.MAIL, Phase.RCPT, Phase.DATA, Phase.DOT]


@click.command(
    "explain-trouble",
    epilog=examples(
        "mailer explain-trouble",
        'mailer explain-trouble "550 5.7.1 Your address is listed"',
        'mailer explain-trouble --phase mail "550 5.4.5 Daily user sending limit exceeded"',
        'mailer explain-trouble "HTTP 403 ErrorSendAsDenied: not allowed to send as this user"',
    ),
)
@click.argument("reply", nargs=-1, metavar="[REPLY]")
@click.option(
    "--phase",
    type=click.Choice([phase.value for phase in _PHASES]),
    default=Phase.RCPT.value,
    show_default=True,
    help="Which command REPLY answers; dot is the end of the message.",
)
@json_of(
    "of a REPLY reply, phase, about, evidence, enhanced, reason, source, scope, hardness, note; of each rule "
    "scopes, hardness, hopsLeft, action, breaker, reason, source"
)
@config_option
def explain_trouble(reply: tuple[str, ...], *, phase: str, as_json: bool) -> None:
    """Print what is done about each kind of trouble, why, and which RFC says so.

    The scope says what the trouble belongs to: the recipient, the message, the host, the provider (the
    account there), or local (mailer itself). With the REPLY of a server, print what it is about, which of its
    words or codes say so, and what would be done about it. With a refusal by `mailer serve`, print what it
    means and which commands help.
    """
    end_with_the_pipe()
    text = " ".join(reply)
    if found := ours(text):
        _tell_ours(found, as_json=as_json)
        return
    rows = _explain(text, Phase(phase)) if reply else list(map(_row, TABLE))
    for row in rows:
        if as_json:
            sys.stdout.write(json_line(row))
        else:
            sys.stdout.write(_text(row))


def _tell_ours(found: Refusal, *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json_line({"by": "mailer serve", "meaning": found.meaning, "todo": found.todo}))
    else:
        sys.stdout.write(f"a refusal of mailer serve, on this host\n    {found.meaning}\n    {found.todo}\n")


def _row(row: Rule) -> dict[str, object]:
    return {
        "scopes": sorted(scope.value for scope in row.scopes),
        "hardness": sorted(hardness.value for hardness in row.hardness),
        "hopsLeft": row.hops_left,
        "action": row.action.value,
        "breaker": row.breaker,
        "reason": row.reason,
        "source": row.source,
    }


def _explain(text: str, phase: Phase) -> list[dict[str, object]]:
    """Return what a reply is about, and the table's rows for it, with another hop left and without."""
    if text.startswith("HTTP "):
        # The answer of an HTTP interface; a request has no phases.
        phase, shown, reading = Phase.DOT, text, read_line(Phase.DOT, text)
        status, scope = judge_http(text)
        hardness = Hardness.of(Outcome("", status, "", text, scope))
    else:
        reply = _reply(text)
        shown, reading = str(reply), read(phase, reply)
        scope, hardness = _judged(phase, reply)
    said: dict[str, object] = {"reply": shown, "phase": phase.value}
    said |= {"about": reading.about.value, "evidence": reading.evidence, "enhanced": reading.enhanced}
    said |= {"reason": reading.reason, "source": reading.source}
    said |= {"scope": scope.value, "hardness": hardness.value}
    if note := _doubt(text) or _note(phase, reading):
        said["note"] = note
    return [said, *map(_row, dict.fromkeys(rule(scope, hardness, hops_left=left) for left in (True, False)))]


def _reply(text: str) -> Reply:
    """Parse a reply as a server sends it, of one line or several."""
    lines = [_LINE.fullmatch(line) for line in text.splitlines()] or [None]
    codes = {line[1] if line else "" for line in lines}
    if codes == {""} or len(codes) > 1:
        raise click.UsageError('REPLY is a code of 4xx or 5xx and its text, such as "550 5.1.1 no such user"')
    return Reply(int(codes.pop()), tuple(line[2] or "" for line in lines if line))


def _note(phase: Phase, reading: Reading) -> str:
    if phase is Phase.RCPT and reading.about is About.TRANSACTION:
        return "the other recipients follow immediately in another transaction"
    if reading.about is About.QUOTA:
        return f"the provider is paused for {duration(reading.pause)}"
    return ""


def _doubt(text: str) -> str:
    if text.startswith("HTTP 5"):
        return "once the request was sent completely, the mail is uncertain: it may have been delivered"
    return ""


def _judged(phase: Phase, reply: Reply) -> tuple[Scope, Hardness]:
    """Return the scope and the hardness of a reply."""
    if phase in _OPENING or (reply.code == 421 and phase is not Phase.DOT):
        # The server refuses or ends the session (RFC 5321 3.8), which says nothing about the mail.
        scope = Scope.PROVIDER if phase is Phase.AUTH else Scope.HOST
        return scope, Hardness.PERMANENT if reply.permanent else Hardness.TEMPORARY
    status, scope = judge(phase, reply)
    return scope, Hardness.of(Outcome("", status, "", str(reply), scope))


_HOPS = {True: ", another hop is left", False: ", no hop is left", None: ""}


def _text(row: dict[str, Any]) -> str:
    if "reply" in row:
        note = f"\n    {row['note']}" if "note" in row else ""
        evidence = f", by its {row['evidence']}" if row["evidence"] else ""
        source = f" ({row['source']})" if row["source"] else ""
        return (
            f"{row['reply']}\n    about {row['about']}{evidence}\n    {row['reason']}{source}\n"
            f"    to {row['phase']}: scope {row['scope']}, {row['hardness']}{note}\n\n"
        )
    scopes = "any" if len(row["scopes"]) == len(Scope) else " or ".join(row["scopes"])
    breaker = "; counts against the hop's health" if row["breaker"] else ""
    return (
        f"scope {scopes}; {' or '.join(row['hardness'])}{_HOPS[row['hopsLeft']]}\n"
        f"    -> {row['action']}{breaker}\n    {row['reason']} ({row['source']})\n"
    )
