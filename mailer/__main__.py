"""Run the `mailer` command as `python -m mailer`."""

from mailer.cli import main

main()
