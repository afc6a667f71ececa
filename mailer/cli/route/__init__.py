"""`mailer route`: explain where a mail would go, and on what terms, without sending it."""

import sys
import time
from typing import BinaryIO

import click
import msgspec

from mailer.cli import arguments
from mailer.cli.arguments import MessageId
from mailer.cli.options import config_option, examples, json_of
from mailer.cli.output import end_with_the_pipe, json_line
from mailer.cli.setup import command_context, configuration
from mailer.config.checks import refuse_to_send
from mailer.config.problem import ConfigError
from mailer.mail.address import check_address
from mailer.mail.header import MAX_HEADER

_FIELDS = (
    "address, rule, conditions, reason, hops [{name, kind, relay, username, weight, health, tls, sender, "
    "rewriteFrom, dkim, exchangers, trouble}], next, nextAttempt"
)


class Order(msgspec.Struct, frozen=True):
    """The options of the command line."""

    sender: str
    to: tuple[str, ...]
    user: str
    message_id: str | None
    file: BinaryIO | None
    as_json: bool


@click.command(
    epilog=examples(
        "mailer route --from app@example.com --to bob@example.net",
        "mailer route --from app@example.com --to bob@example.net --user shop mail.eml",
        "mailer route --from '<>' --to app@example.com          a notification",
        "mailer route --id 01JD0M3Q --json | jq .hops           a queued message, as it would be tried now",
    )
)
@click.option("--from", "sender", default="", metavar="ADDRESS", help="The envelope sender; '<>': a bounce.")
@click.option("--to", multiple=True, metavar="ADDRESS", help="A recipient; may be given several times.")
@click.option(
    "--user",
    default="",
    metavar="NAME",
    shell_complete=arguments.users,
    help="The login that submits the mail; without it, none.",
)
@click.option("--id", "message_id", metavar="ID", type=MessageId(), help="Explain a queued message instead.")
@click.argument("file", type=click.File("rb"), required=False)
@json_of(_FIELDS)
@config_option
def route(**asked: object) -> None:
    """Explain where a mail would go: the rule, the hops in order, and the terms of each.

    This prints for each recipient the rule of `routes` that matches; the hops in the order in which they are
    tried, with the state of each, its TLS, the changes to sender and From, and the DKIM keys that sign; and
    when the mail would be tried. Nothing is sent, and nothing is changed. Mail exchangers are looked up in
    DNS.

    FILE is the mail as it was submitted (- for standard input), of which only the header matters. Without
    FILE, rules with a `header` condition do not match, and From is assumed to be the sender.
    """
    order = Order(**asked)  # type: ignore[arg-type]  # click has converted the values to the declared types
    _check(order)
    end_with_the_pipe()
    loaded = configuration()
    if problems := refuse_to_send(loaded):
        raise ConfigError(problems)
    from mailer.cli.route.explanation import Explainer, as_text  # noqa: PLC0415 - not needed for `--help`
    from mailer.cli.route.subject import queued, typed  # noqa: PLC0415 - as above

    with command_context(loaded) as context:
        if order.message_id:
            subject = queued(context.spool, order.message_id)
        else:
            sender = "" if order.sender == "<>" else order.sender
            head = order.file.read(MAX_HEADER) if order.file else None
            subject = typed(sender, order.to, order.user, head)
        explainer = Explainer(context.config, context.spool, time.time())
        for each in explainer.explain(subject):
            sys.stdout.write(json_line(each) if order.as_json else as_text(each))


def _check(order: Order) -> None:
    if order.message_id:
        if order.sender or order.to or order.user or order.file:
            raise click.UsageError(
                "--id excludes the other options: sender, recipients and header are those of the message"
            )
        return
    if not (order.sender and order.to):
        raise click.UsageError("Give --from and --to, or --id.")
    for option, address in (("--from", order.sender), *(("--to", each) for each in order.to)):
        try:
            if address != "<>" or option != "--from":
                check_address(address)
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint=option) from None
