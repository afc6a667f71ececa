"""`python -m mailer` is `mailer`."""

from mailer.cli import main

main()
