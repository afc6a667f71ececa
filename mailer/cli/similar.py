"""Find the commands that somebody may have meant who typed a word that is none of them."""

from collections.abc import Iterator
from difflib import get_close_matches

import click

from mailer.cli.synonyms import COMMANDS

_MOST = 3
"""Commands that are named."""


def similar(word: str, ctx: click.Context) -> str:
    """Return commands of that meaning, of that name in another group, or of nearly that name; empty: none.

    Args:
        word: what was typed.
        ctx: the context of the group that has no such command.
    """
    program = ctx.find_root().info_name or "mailer"
    group = ctx.command_path.removeprefix(program).strip()
    known = list(_commands(ctx.find_root()))
    here = {path.split()[-1]: path for path in known if path.rpartition(" ")[0] == group}
    meanings = COMMANDS.get(word.lower(), ())
    # `suppress delete` means `suppress rm`, as `delete` means `spool rm`.
    meant = [here[path.split()[-1]] for path in meanings if group and path.split()[-1] in here]
    meant = meant or [*meanings, *(path for path in known if path.split()[-1] == word)]
    meant = meant or [here[name] for name in get_close_matches(word, here, n=_MOST, cutoff=0.7)]
    return " or ".join(f"`{program} {path}`" for path in meant[:_MOST])


def _commands(root: click.Context) -> Iterator[str]:
    """Yield all commands, as they are typed after the program's name; this imports those of groups."""
    assert isinstance(root.command, click.Group)
    for name in root.command.list_commands(root):
        yield name
        command = root.command.get_command(root, name)
        if isinstance(command, click.Group):
            yield from (f"{name} {each}" for each in command.list_commands(root))
