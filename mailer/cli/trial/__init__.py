"""`mailer test`: send one real mail, and follow it from its submission to the remote server's reply."""

import sys
from dataclasses import dataclass

import click

from mailer.cli import arguments
from mailer.cli.exits import Exit, Failure
from mailer.cli.options import DURATION, config_option, examples, json_option
from mailer.cli.setup import configuration
from mailer.config.model import Config
from mailer.mail.address import check_address
from mailer.mail.reply import printable


@dataclass(frozen=True, slots=True)
class Order:
    """The options of the command line."""

    to: str
    sender: str
    user: str
    provider: str
    direct: bool
    dialogue: bool
    as_json: bool
    wait: float

    @property
    def runs_itself(self) -> bool:
        """Whether this command must deliver the mail itself, because no other runner could do as asked."""
        return bool(self.provider or self.direct or self.dialogue)

    def say(self, line: str) -> None:
        """Print progress, on standard error with --json."""
        stream = sys.stderr if self.as_json else sys.stdout
        stream.write(f"{line}\n")
        stream.flush()


@click.command(
    epilog=examples(
        "mailer test --to you@example.net                    as an application would, by your own services",
        "mailer test --to you@example.net --dialogue         show what was said, passwords masked",
        "mailer test --to you@example.net --provider backup  through this provider and no other",
        "mailer test --to you@example.net --direct           to the recipient's own mail exchangers",
    )
)
@click.option("--to", required=True, metavar="ADDRESS", help="The recipient: your own address, for instance.")
@click.option("--from", "sender", default="", metavar="ADDRESS", help="Otherwise defaultUsername.")
@click.option(
    "--user",
    default="",
    metavar="NAME",
    shell_complete=arguments.users,
    help="Log in as this user of `mailer user`; its password is asked for, or read from standard input.",
)
@click.option(
    "--provider",
    default="",
    metavar="NAME",
    shell_complete=arguments.providers,
    help="Only through this provider, enabled or not.",
)
@click.option("--direct", is_flag=True, help="Only by direct delivery, enabled or not.")
@click.option("--dialogue", is_flag=True, help="Show the SMTP dialogue with the next hop.")
@click.option(
    "--wait", type=DURATION, default="2m", metavar="TIME", help="How long to wait for a runner; 2m."
)
@json_option
@config_option
def test(**asked: object) -> Exit:
    """Send one real mail, follow it to the remote server's reply, and explain the result.

    Without --provider, --direct or --dialogue, the mail is submitted to `mailer serve` like an application's,
    and the host's `mailer-send` delivers it. With one of them, this command delivers the mail itself, without
    the queue: signed and routed as configured, tried once, and logged like any other mail.

    The exit code is 0 when the next hop accepted the mail, 1 when it was refused permanently, 69 when `mailer
    serve` does not answer, 75 when the mail has not been sent yet.

    JSON is one object, at the end: the fields of `mailer spool why`, status (pending sent deferred bounced
    expired uncertain) and meaning (a sentence); progress goes to standard error.
    """
    order = Order(**asked)  # type: ignore[arg-type]  # click has converted the values to the declared types
    loaded = configuration()
    sender = order.sender or _own_address(loaded.config)
    for option, address in (("--to", order.to), ("--from", sender)):
        try:
            check_address(address)
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint=option) from None
    if order.provider and order.direct:
        raise click.UsageError("--provider and --direct exclude each other")
    if order.runs_itself:
        from mailer.cli.trial.alone import deliver  # noqa: PLC0415 - needed only for this way

        told = deliver(loaded, order, sender)
    else:
        from mailer.cli.trial.queued import submit, watch  # noqa: PLC0415 - as above

        message_id = submit(loaded.config, order, sender)
        order.say(f"accepted by mailer serve as {message_id}; waiting for a runner to send it")
        told = watch(loaded, message_id, order.wait)
    from mailer.cli.trial.result import conclude  # noqa: PLC0415 - as above

    # Before the first start there is no ledger in which a mail sent without the queue could be logged.
    return conclude(told, order.to, known=loaded.config.spool_dir.exists(), as_json=order.as_json)


def _own_address(config: Config) -> str:
    for address in (config.default_username, config.rewrite_from_address):
        if "@" in address:
            return address
    name = printable(config.default_username) or "defaultUsername"
    raise Failure(Exit.USAGE, f"name the sender: --from ADDRESS ({name} is not an address)")
