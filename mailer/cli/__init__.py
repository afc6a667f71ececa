"""The command line: click commands parse arguments and connect objects. No other room imports this one."""

import sys
from typing import NoReturn

from mailer.cli.without_gc import without_gc


def main() -> NoReturn:
    """Run the `mailer` command and exit with its code."""
    with without_gc():
        from mailer.cli.main import arguments_of_today, cli  # noqa: PLC0415 - without collections
        from mailer.cli.program import run  # noqa: PLC0415 - as above

    run(cli, "mailer", arguments_of_today(sys.argv[1:]))


def main_send() -> NoReturn:
    """Run the `mailer-send` command and exit with its code."""
    with without_gc():
        from mailer.cli.send import main  # noqa: PLC0415 - as above

    main()
