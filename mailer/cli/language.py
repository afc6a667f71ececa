"""The language of guides and of the meanings of keys: English or Chinese."""

import os

import click

LANGUAGES = ("en", "zh-CN")

language_option = click.option(
    "--language",
    type=click.Choice(LANGUAGES),
    help="Instead of the one that LC_ALL, LC_MESSAGES or LANG names.",
)


def preferred() -> str:
    """Return the language that the environment selects, in the order of POSIX (Base Definitions, 8.2)."""
    asked = next(filter(None, map(os.environ.get, ("LC_ALL", "LC_MESSAGES", "LANG"))), "")
    return "zh-CN" if asked.startswith("zh") else "en"
