"""Groups whose commands are imported when they are used: a shell starts us at each Tab."""

from importlib import import_module
from typing import Any

import click


class LazyGroup(click.Group):
    """A click group that knows where its commands are."""

    # click's constructor takes whatever its own base classes take.
    def __init__(self, *args: Any, commands_in: dict[str, str], **kwargs: Any) -> None:  # noqa: ANN401
        """Args: commands_in: for each command's name its place, as `package.module:attribute`."""
        super().__init__(*args, **kwargs)
        self._commands_in = commands_in

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(self._commands_in)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - see above
        place = self._commands_in.get(cmd_name)
        if place is None:
            return None
        module, _, attribute = place.partition(":")
        command = getattr(import_module(module), attribute)
        assert isinstance(command, click.Command)
        return command
