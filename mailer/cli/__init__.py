"""The command line: click commands parse arguments and connect objects. No other room imports this one."""

import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run the `mailer` command and exit with its code."""
    from mailer.cli.without_gc import without_gc  # noqa: PLC0415 - mailer-send does not need it

    with without_gc():
        from mailer.cli.main import arguments_of_today, cli  # noqa: PLC0415 - as above
        from mailer.cli.program import run  # noqa: PLC0415 - as above

    run(cli, "mailer", arguments_of_today(sys.argv[1:]))
