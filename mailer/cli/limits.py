"""`mailer limits`: who has sent how much of what they may."""

import sys
import time

import click
import msgspec

from mailer.cli import receiver
from mailer.cli.options import config_option, examples, json_option
from mailer.cli.wire import end_with_the_pipe, workplace
from mailer.mail.reply import printable
from mailer.receive.rates import DAY, HOUR, RateLimiter


@click.command(epilog=examples("mailer limits", "mailer limits --json | jq 'select(.wait > 0)'"))
@json_option
@config_option
def limits(*, as_json: bool) -> None:
    """Show for each sender and user with a limit what they sent in the last hour and day.

    It counts as the receiver does, from the ledger, messages that are on their way in excepted.
    """
    end_with_the_pipe()
    with workplace() as place:
        users = receiver.user_list(place.config, place.log)
        rules = receiver.rules(place.config, users)
        limiter = RateLimiter(rules, time.time, receiver.sent(place.spool, time.time()))
    if not as_json and not (place.config.rate_limits.enabled or users.limited):
        sys.stdout.write("nobody is limited: rateLimits is off, and no user has limits\n")
        return
    for use in limiter.uses():
        shown = {
            "who": printable(use.key),
            "hour": use.used(HOUR),
            "maxPerHour": use.rate.per_hour,
            "day": use.used(DAY),
            "maxPerDay": use.rate.per_day,
            "wait": use.wait,
        }
        if as_json:
            sys.stdout.write(msgspec.json.encode(shown).decode() + "\n")
        else:
            wait = f"  waits {use.wait} s" if use.wait else ""
            hour, day = (
                f"{shown[count]} of {shown[most] or 'any'}"
                for count, most in (("hour", "maxPerHour"), ("day", "maxPerDay"))
            )
            sys.stdout.write(f"{shown['who']}: {hour} this hour, {day} this day{wait}\n")
