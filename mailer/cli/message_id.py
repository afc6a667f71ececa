"""A click parameter type: a message id, or the beginning of one."""

import shlex
from typing import TYPE_CHECKING, Any

import click

from mailer.cli.candidates import message_ids
from mailer.mail.reply import printable
from mailer.spool.ids import is_prefix
from mailer.spool.layout import Place
from mailer.spool.scan import QUEUE

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


class MessageId(click.ParamType[str]):
    """A message id or the beginning of one, with shell completion."""

    name = "id"

    def __init__(self, *places: Place, delivered: bool = False) -> None:
        """Complete ids from these places, by default the queue; with `delivered`, also from the ledger."""
        self._places = places
        self._delivered = delivered

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:  # noqa: ANN401, ARG002 - click's signature
        return _message_id(value)

    def shell_complete(
        self,
        ctx: click.Context,
        param: click.Parameter,  # noqa: ARG002 - click's signature
        incomplete: str,
    ) -> "list[CompletionItem]":
        from click.shell_completion import CompletionItem  # noqa: PLC0415 - only for a Tab

        found = message_ids(ctx, incomplete, self._places or QUEUE, delivered=self._delivered)
        return list(map(CompletionItem, found))


def _message_id(text: str) -> str:
    """Parse an id or the beginning of one; reject anything else before the command touches the spool."""
    prefix = text.upper()
    if not is_prefix(prefix):
        said = f'"{printable(text, 80)}" is not a message id, nor the beginning of one'
        if "@" in text:
            said += f". The mail of an address: mailer log --to {shlex.quote(printable(text, 320))}"
        raise click.BadParameter(said)
    return prefix
