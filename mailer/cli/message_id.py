"""The type of a command's argument that names a message by its id, or by the beginning of one."""

import shlex
from typing import Any

import click
from click.shell_completion import CompletionItem

from mailer.cli.candidates import message_ids
from mailer.mail.reply import printable
from mailer.spool.ids import is_prefix
from mailer.spool.layout import Place
from mailer.spool.scan import QUEUE


class MessageId(click.ParamType[str]):
    """An id, or the beginning of one, that the shell completes."""

    name = "id"

    def __init__(self, *places: Place, delivered: bool = False) -> None:
        """Offer what is in these places, all of the queue by default; `delivered`: recent others, too."""
        self._places = places
        self._delivered = delivered

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:  # noqa: ANN401, ARG002 - click's signature
        return _message_id(value)

    def shell_complete(
        self,
        ctx: click.Context,
        param: click.Parameter,  # noqa: ARG002 - click's signature
        incomplete: str,
    ) -> list[CompletionItem]:
        found = message_ids(ctx, incomplete, self._places or QUEUE, delivered=self._delivered)
        return list(map(CompletionItem, found))


def _message_id(text: str) -> str:
    """Read an id or the beginning of one; what is neither is refused before anything is touched."""
    prefix = text.upper()
    if not is_prefix(prefix):
        said = f'"{printable(text, 80)}" is not a message id, nor the beginning of one'
        if "@" in text:
            said += f". The mail of an address: mailer log --to {shlex.quote(printable(text, 320))}"
        raise click.BadParameter(said)
    return prefix
