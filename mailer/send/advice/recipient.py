"""Advice for the operator about a recipient: who has to act, and with which commands.

It reads the configuration so that the commands can be typed as shown. It decides nothing.
"""

import re

import msgspec

from mailer.config.hops import Provider
from mailer.config.model import Config
from mailer.mail.lazy_pattern import compile_late
from mailer.mail.login_causes import cause_of
from mailer.mail.outcome import SUPPRESSION_LIST, Status
from mailer.send.advice.no_reply import advise_without_reply
from mailer.send.advice.reply import filled, template_for
from mailer.send.hop_names import provider_at, providers_with
from mailer.send.replies.reader import read_line
from mailer.spool.layout import LOCAL
from mailer.spool.message_state import Standing

_GIVEN_UP = frozenset({Status.BOUNCED, Status.EXPIRED})
_BY_ITSELF = "sending resumes by itself"
_RETRY = "type `mailer spool retry {id}`"
_REPLY = compile_late(r"[245]\d\d[ -]|HTTP \d")
_NOT_TRIED = compile_late(r"not tried before [^,]+, since it [^:]+: ")
"""Before the trouble of a paused provider, in the reply of mail that was not tried (`routes.providers`)."""
_THEIR_ID = compile_late(
    r"(?:queued(?: mail for delivery)?(?: as)?|message-?id|id)[ =:<]+([\w.@+-]{6,})|\b([\w-]*\d[\w.-]{9,})",
    re.IGNORECASE,
)
_SUPPRESSED = (
    "It was not sent: `mailer suppress ls` says since when and why. If it is to be mailed after all: `mailer "
    "suppress rm ADDRESS`, then `mailer spool retry {id}`."
)
_ONCE_MORE = " It is asked once more, since it may be their fault, and bounces if it is refused so again."
_DIVIDED = (
    " The session broke at one of several recipients, so the next transactions have at most {0} of them, "
    "until the one that breaks it is alone."
)
_ALONE = " The session broke at one of several recipients, so each of these is now tried alone."


def advise(config: Config, standing: Standing) -> str:
    """Return what to do about a recipient, or about several with the same state; empty if nothing is known.

    `{id}` in the text stands for the message's id.
    """
    if standing.hop == LOCAL and standing.status is Status.SENT:
        return _kept(config)
    whose = provider_at(config, standing.hop)
    if whose:
        whose = msgspec.structs.replace(whose, name=config.name_of(whose))  # Unique, for use in commands.
    moved = _left_behind(config, standing) if standing.hop not in {"", LOCAL} else ""
    match standing.status:
        case Status.SENT | Status.DEFERRED | Status.PENDING if moved:
            return moved
        case Status.SENT:
            return _theirs_now(standing, whose)
        case Status.UNCERTAIN:
            return _uncertain(config, standing, whose, is_left=bool(moved))
        case _ if standing.reply:
            said = _about(standing, whose)
            return _once_given_up(said) if standing.status in _GIVEN_UP else said + _divided(standing)
    return ""


def _once_given_up(advice: str) -> str:
    """Return advice for mail that was given up: nothing tries it again until the operator says so."""
    said = advice.replace(_BY_ITSELF, _RETRY)
    if "mailer spool retry" in said or "`mailer reload`" not in said:
        return said
    return f"{said} Then {_RETRY}."


def _divided(standing: Standing) -> str:
    if _REPLY.match(standing.reply) and not standing.reply.startswith("421"):
        return ""  # It has been refused since, for a reason of its own.
    if standing.batch > 1:
        return _DIVIDED.format(standing.batch)
    return _ALONE if standing.batch else ""


def _name(standing: Standing, whose: Provider | None) -> str:
    return whose.label if whose else standing.hop or "the recipient's server"


def _kept(config: Config) -> str:
    again = "have its application submit it again; that copy is in `local/` of the spool."
    if config.forward_smtp or config.direct_delivery.enabled:
        return f"That was while no route was switched on: {again}"
    return (
        "No route that leaves this host is switched on: set $.forwardSMTP and $.forwardProviders, or "
        f"$.directDelivery.enabled (`mailer init` asks for them), type `mailer reload`, and {again}"
    )


def _left_behind(config: Config, standing: Standing) -> str:
    """Return advice if a hop was a provider but is none now; empty if it still is, or is an exchanger."""
    hop = standing.hop
    if not config.forward_smtp or config.direct_delivery.enabled:
        return ""
    if provider_at(config, hop) or providers_with(config, hop):
        return ""
    server = f"{hop} is not a provider in $.forwardProviders any more"
    if standing.status is Status.SENT:
        return f"{server}; ask those who run it, with the reply above."
    return f"{server}: `mailer spool retry {{id}}` tries the mail at the present ones."


def _theirs_now(standing: Standing, whose: Provider | None) -> str:
    found = _THEIR_ID.search(standing.reply[3:])
    theirs = f" for {found[1] or found[2]}" if found else ", with the reply above"
    if whose:
        promise = "answer" if whose.api else "250"
        return (
            f"It is {whose.label}'s now: ask them{theirs}. Their {promise} promises that they try; it does "
            "not say that it reached the mailbox."
        )
    return (
        f"It is the recipient's server's now: ask its postmaster{theirs}. A 250 does not say that it is in "
        "the inbox: have the recipient look among spam first."
    )


def _uncertain(config: Config, standing: Standing, whose: Provider | None, *, is_left: bool) -> str:
    name = _name(standing, whose)
    if config.uncertain == "hold" or is_left:  # No run tries it at a hop that no route leads to.
        return (
            f"Ask {name} whether they have it. If so, `mailer spool rm {{id}}`; if not, `mailer spool "
            "release {id}`."
        )
    if whose and whose.api and standing.doubted_twice:
        return (
            f"It is not handed over there a third time by itself. Ask {name} whether they have it. If so, "
            "`mailer spool rm {id}`; if not, `mailer spool release {id}`."
        )
    if whose and whose.api:
        return (
            "It is tried again there once, and may arrive twice; if there is no answer again, it is held. "
            f"Ask {name} whether they have it. If so, `mailer spool rm {{id}}`; if not, `mailer spool "
            "release {id}`."
        )
    return f"It is tried again at the same hop, and may arrive twice: {name} knows whether they have it."


def _about(standing: Standing, whose: Provider | None) -> str:
    if standing.hop == SUPPRESSION_LIST:
        return _SUPPRESSED
    if paused := _NOT_TRIED.match(standing.reply):
        standing = msgspec.structs.replace(standing, reply=standing.reply[paused.end() :])
    if whose and (cause := cause_of(standing.reply)):
        return cause.advice(whose.label)
    if not _REPLY.match(standing.reply):
        return advise_without_reply(standing, whose)
    given_up = standing.status in _GIVEN_UP
    # A permanent refusal that still waits gets a second opinion, which will be the same if nothing changes.
    final = given_up or read_line("", standing.reply).permanent
    again = "; then `mailer spool retry {id}`" if final else ""
    template = template_for(standing.reply, ours=whose is not None, given_up=given_up)
    once_more = _ONCE_MORE if standing.unclear and not given_up else ""
    return filled(template, _name(standing, whose), again) + once_more
