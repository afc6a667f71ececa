"""Options that select DKIM keys, and the selection itself."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from mailer.cli.exits import Exit, Failure
from mailer.cli.options import config_path
from mailer.cli.setup import configuration
from mailer.config.load import find, key_path
from mailer.config.model import Config, DkimKey
from mailer.config.problem import ConfigError
from mailer.config.trust import owners_of
from mailer.send.dkim.author import ascii_domain

if TYPE_CHECKING:
    from mailer.send.dkim.keys import PrivateKey


def _domain_name(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    if value is None:
        return None
    try:
        return ascii_domain(value)
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from None


domain_option = click.option("--domain", metavar="D", callback=_domain_name, help="Only this domain's keys.")
new_domain_option = click.option(
    "--domain", metavar="D", required=True, callback=_domain_name, help="The domain that stands in From."
)
selector_option = click.option(
    "--selector", metavar="S", callback=_domain_name, help="Only the key with this selector."
)


def surroundings() -> tuple[Path, Config]:
    """Return the directory that key paths are relative to, and the configuration, or a default one."""
    try:
        loaded = configuration()
    except ConfigError:
        if _somewhere():
            raise
        return Path.cwd(), Config()
    return loaded.path.parent, loaded.config


def _somewhere() -> bool:
    """Return whether there is a configuration file; if so, an error in it is not ignored."""
    try:
        find(config_path(), os.environ)
    except ConfigError:
        return False
    return True


def configured(config: Config) -> list[DkimKey]:
    """Return the configured keys, with domain and selector in the ASCII form of DNS."""
    try:
        return [
            msgspec.structs.replace(key, domain=ascii_domain(key.domain), selector=ascii_domain(key.selector))
            for key in config.dkim.signing_keys
        ]
    except ValueError as error:
        raise Failure(
            Exit.CONFIG, f"a domain or selector of dkim is {error}; see mailer config check"
        ) from None


def chosen(base: Path, config: Config, domain: str | None, selector: str | None) -> list[DkimKey]:
    """Return the configured keys that match the options; if none does, the key that the options name."""
    found = [
        key for key in configured(config) if domain in {None, key.domain} and selector in {None, key.selector}
    ]
    if found:
        return found
    if domain:
        return [unconfigured(base, domain, selector or "mail")]
    raise Failure(Exit.CONFIG, "no DKIM key is configured; make one with: mailer dkim keygen --domain D")


def unconfigured(base: Path, domain: str, selector: str) -> DkimKey:
    return DkimKey(domain=domain, selector=selector, private_key_path=key_path(base, domain, selector))


def key_file(key: DkimKey) -> Path:
    if key.private_key_path is None:
        raise Failure(
            Exit.CONFIG, "dkim.domain is empty, and defaultUsername has no domain to take its place"
        )
    return key.private_key_path


def read_key(key: DkimKey, config: Config) -> "PrivateKey":
    from mailer.send.dkim.key_files import KeyFile, KeyTrouble  # noqa: PLC0415 - not needed for a wrong option

    try:
        return KeyFile(key_file(key), owners_of(config.spool_dir)).key()
    except KeyTrouble as trouble:
        raise Failure(Exit.NO_INPUT, str(trouble)) from trouble
