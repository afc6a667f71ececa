"""`mailer completion`: print the script that makes a shell complete mailer's commands."""

import sys

import click
from click.shell_completion import get_completion_class

from mailer.cli.options import config_option, examples


@click.command(
    epilog=examples(
        'eval "$(mailer completion bash)"                                  # in ~/.bashrc',
        'eval "$(mailer completion zsh)"                                   # in ~/.zshrc',
        "mailer completion fish > ~/.config/fish/completions/mailer.fish",
    )
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@config_option
def completion(shell: str) -> None:
    """Print the shell's completion script for mailer and mailer-send."""
    from mailer.cli.main import cli  # noqa: PLC0415 - main imports this module
    from mailer.cli.send import send  # noqa: PLC0415 - only here

    kind = get_completion_class(shell)
    assert kind is not None
    for program, command in (("mailer", cli), ("mailer-send", send)):
        variable = f"_{program.replace('-', '_').upper()}_COMPLETE"
        sys.stdout.write(kind(command, {}, program, variable).source() + "\n")
