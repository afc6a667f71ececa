"""`mailer limits`: show how much of its rate limit each sender and user has used."""

import sys
import time
from collections.abc import Sequence

import click

from mailer.cli.options import config_option, examples, json_option
from mailer.cli.output import end_with_the_pipe, json_line
from mailer.cli.receiving import rates
from mailer.cli.setup import command_context
from mailer.config.model import Config
from mailer.mail.duration import duration
from mailer.mail.reply import printable
from mailer.maillog.events import MailLog
from mailer.monitor.limits import Use
from mailer.receive.users.rates import DAY, HOUR, RateLimiter
from mailer.spool.directory import Spool


@click.command(epilog=examples("mailer limits", "mailer limits --json | jq 'select(.wait > 0)'"))
@json_option
@config_option
def limits(*, as_json: bool) -> None:
    """Show for each sender and user with a limit what they sent in the last hour and day.

    The numbers come from the ledger, as in the receiver, except for messages that are being received now.
    Changed limits apply here immediately, and in a running receiver from its next reload (`systemctl reload
    mailer`, or SIGHUP): until then the receiver may not enforce a wait that is shown here.

    JSON is one object a line: who, hour and day (messages), maxPerHour, maxPerDay (0: no limit), wait (s).
    """
    end_with_the_pipe()
    with command_context() as context:
        found = uses(context.config, context.spool, context.log)
    if not as_json and found is None:
        sys.stdout.write("there are no limits: rateLimits is off, and no user has any\n")
        return
    for use in found or ():
        if as_json:
            sys.stdout.write(json_line(record(use)))
        else:
            wait = f"  waits {duration(use.wait)}" if use.wait else ""
            hour, day = (
                f"{count} of {most or 'any'}"
                for count, most in ((use.hour, use.per_hour), (use.day, use.per_day))
            )
            sys.stdout.write(f"{use.whom}: {hour} this hour, {day} this day{wait}\n")


def record(use: Use) -> dict[str, object]:
    return {
        "who": use.who,
        "hour": use.hour,
        "maxPerHour": use.per_hour,
        "day": use.day,
        "maxPerDay": use.per_day,
        "wait": use.wait,
    }


def uses(config: Config, spool: Spool, log: MailLog) -> Sequence[Use] | None:
    """Count the use of each limit, as the receiver does; return None if there are no limits.

    Raises:
        ConfigError, OSError: the users file, or the ledger, cannot be read.
    """
    users = rates.user_list(config, log, {})
    if not (config.rate_limits.enabled or users.limited):
        return None
    limiter = RateLimiter(rates.rules(config, users), time.time, rates.sent(spool, time.time()))
    return [
        Use(
            who=printable(use.key),
            hour=use.used(HOUR),
            per_hour=use.rate.per_hour,
            day=use.used(DAY),
            per_day=use.rate.per_day,
            wait=use.wait,
        )
        for use in limiter.uses()
    ]
