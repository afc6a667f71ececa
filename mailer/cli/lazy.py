"""Click groups that import a command only when it is used: a shell starts `mailer` at each press of Tab."""

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

from mailer.cli.without_gc import without_gc

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


class _InOrder(click.Group):
    """A group that lists its commands in the order given, where click sorts them."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(self.commands)


class LazyGroup(click.Group):
    """A click group that knows its commands by module and summary, and imports a command only to run it.

    Importing every command of `mailer` takes 0.3 s of CPU; listing them this way imports none.
    """

    # click's constructor takes whatever its own base classes take.
    def __init__(
        self,
        *args: Any,  # noqa: ANN401
        commands_in: Mapping[str, str],
        summaries: Mapping[str, str] | None = None,
        **kwargs: Any,  # noqa: ANN401
    ) -> None:
        """Make a group.

        Args:
            args: passed on to click.
            commands_in: where each command is, by name, as `package.module:attribute`.
            summaries: the beginning of each command's help, empty for a hidden command; a command without a
                summary is imported to list it.
            kwargs: passed on to click.
        """
        super().__init__(*args, **kwargs)
        self._commands_in = commands_in
        self._summaries = summaries or {}

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(self._commands_in)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - see above
        place = self._commands_in.get(cmd_name)
        if place is None:
            return None
        module, _, attribute = place.partition(":")
        with without_gc():
            command = getattr(import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that is meant, as click does; an error about an unknown one proposes others."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            from mailer.cli.similar import similar  # noqa: PLC0415 - only for mistakes

            if meant := similar(args[0], ctx):
                raise click.UsageError(f"{error.message} Did you mean {meant}?", ctx) from None
            raise

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        self._listed(ctx).format_commands(ctx, formatter)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> "list[CompletionItem]":
        return self._listed(ctx).shell_complete(ctx, incomplete)

    def _listed(self, ctx: click.Context) -> click.Group:
        """Return a group with the same names and options, whose commands have only their summaries."""
        commands = {}
        for name in self._commands_in:
            summary = self._summaries.get(name)
            brief = (
                self.get_command(ctx, name)
                if summary is None
                else click.Command(name, help=summary, hidden=not summary)
            )
            assert brief is not None
            commands[name] = brief
        return _InOrder(
            self.name, commands=commands, params=self.params, context_settings=self.context_settings
        )
