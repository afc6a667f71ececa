"""`mailer dkim keygen`, `record` and `rotate`: make keys, and print the DNS records to publish.

The selection of keys by options is that of `mailer dkim check`, too.
"""

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from mailer.cli.exits import Exit, Failure
from mailer.cli.options import config_option, config_path, examples, json_option
from mailer.cli.output import json_line
from mailer.cli.setup import configuration
from mailer.config.load import find, key_path
from mailer.config.model import Config, DkimKey
from mailer.config.problem import ConfigError
from mailer.config.trust import Untrusted, owners_of
from mailer.mail.reply import printable
from mailer.send.dkim.author import ascii_domain

if TYPE_CHECKING:
    from mailer.send.dkim.keys import KeyType, PrivateKey


def _domain_name(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    if value is None:
        return None
    try:
        return ascii_domain(value)
    except ValueError as error:
        raise click.BadParameter(str(error), ctx, param) from None


domain_option = click.option("--domain", metavar="D", callback=_domain_name, help="Only this domain's keys.")
_new_domain_option = click.option(
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


def _read_key(key: DkimKey, config: Config) -> "PrivateKey":
    from mailer.send.dkim.key_files import KeyFile, KeyTrouble  # noqa: PLC0415 - not needed for a wrong option

    try:
        return KeyFile(key_file(key), owners_of(config.spool_dir)).key()
    except KeyTrouble as trouble:
        raise Failure(Exit.NO_INPUT, str(trouble)) from trouble


@click.command(
    epilog=examples(
        "mailer dkim keygen --domain example.com", "mailer dkim keygen --domain example.com --type ed25519"
    )
)
@_new_domain_option
@click.option(
    "--selector", metavar="S", help='The key\'s name; if not given "mail", or "ed25519" for that type.'
)
@click.option(
    "--type",
    "kind",
    type=click.Choice(["rsa2048", "ed25519"]),
    default="rsa2048",
    show_default=True,
    help="Every receiver supports RSA; use Ed25519 only in addition.",
)
@json_option
@config_option
def keygen(domain: str, selector: str | None, kind: str, *, as_json: bool) -> None:
    """Make a private key (mode 0600) and print the DNS record that goes with it.

    The key file is the one that the configuration names, or keys/DOMAIN/SELECTOR.private next to the
    configuration. An existing key is never overwritten. JSON is one object: the fields of `mailer dkim
    record`, and privateKeyPath.
    """
    from mailer.send.dkim.keys import KeyType  # noqa: PLC0415 - takes as long to load as everything else

    base, config = surroundings()
    wanted = selector or ("mail" if kind == "rsa2048" else "ed25519")
    known = [key for key in configured(config) if (key.domain, key.selector) == (domain, wanted)]
    _make(known[0] if known else unconfigured(base, domain, wanted), KeyType(kind), config, as_json=as_json)
    if not known and not as_json:
        sys.stdout.write(
            f'\nTo sign with it, add to dkim.keys: {{"domain": "{domain}", "selector": "{wanted}"}}\n'
        )


@click.command(
    epilog=examples("mailer dkim record --domain example.com", "mailer dkim record --json | jq -r .value")
)
@domain_option
@selector_option
@json_option
@config_option
def record(domain: str | None, selector: str | None, *, as_json: bool) -> None:
    """Print the TXT record of each key: split for zone files, and in one piece for DNS panels.

    JSON is one object a line: name, value (in one piece), zone (split for a zone file).
    """
    base, config = surroundings()
    for key in chosen(base, config, domain, selector):
        private = _read_key(key, config)
        if as_json:
            sys.stdout.write(json_line(_published(key, private)))
        else:
            _print_record(key, private)


@click.command(epilog=examples("mailer dkim rotate --domain example.com"))
@_new_domain_option
@selector_option
@json_option
@config_option
def rotate(domain: str, selector: str | None, *, as_json: bool) -> None:
    """Make a successor for each key of a domain, and say what to do with it and when.

    The old key keeps signing until the configuration names the new one, and mail in transit needs its record.
    JSON is one object a line for each new key, with the fields of `mailer dkim keygen`.
    """
    from mailer.send.dkim.keys import KeyType  # noqa: PLC0415 - as in keygen

    base, config = surroundings()
    today = time.strftime("%Y%m%d", time.gmtime())
    steps: list[str] = []
    for old in chosen(base, config, domain, selector):
        kind = KeyType.RSA2048 if _read_key(old, config).algorithm == "rsa-sha256" else KeyType.ED25519
        assert old.private_key_path is not None
        stem = old.selector.rstrip("0123456789").rstrip("-") or old.selector
        name = f"{stem}-{today}"
        new = DkimKey(
            domain=domain,
            selector=name,
            private_key_path=old.private_key_path.with_name(f"{name}.private"),
        )
        _make(new, kind, config, as_json=as_json)
        steps.append(
            f'   replace selector "{old.selector}" by "{name}", and its privateKeyPath if it is given'
        )
    if as_json:
        return
    days = max(1, round((config.dkim.signature_expiry + config.retry.max_age) / 86_400))
    sys.stdout.write(
        "\nWhat to do now:\n"
        "1. Publish what is printed above; leave the old records where they are.\n"
        f"2. Wait until DNS has it: mailer dkim check --domain {domain} --selector NEW\n"
        "3. In the configuration:\n"
        + "".join(f"{step}\n" for step in steps)
        + f"4. After {days} days no signature of the old key is in transit: remove its record and its file.\n"
    )


def _make(key: DkimKey, kind: "KeyType", config: Config, *, as_json: bool) -> None:
    from mailer.send.dkim.key_files import record_path, write_new  # noqa: PLC0415 - as in keygen
    from mailer.send.dkim.keys import generate, parse  # noqa: PLC0415 - as in keygen

    path = key_file(key)
    pem = generate(kind)
    private = parse(pem)
    try:
        write_new(path, pem, _zone(key, private) + "\n", _owner(config))
    except FileExistsError as error:
        raise Failure(
            Exit.CANNOT_CREATE, f"{error.filename} exists already, and a key is never overwritten"
        ) from error
    except Untrusted as error:
        raise Failure(Exit.NO_PERMISSION, f"no key was made: {error.strerror}") from error
    if as_json:
        sys.stdout.write(json_line(_published(key, private) | {"privateKeyPath": str(path)}))
        return
    sys.stdout.write(
        f"made {printable(str(path))}, the private key\n"
        f"made {printable(str(record_path(path)))}, the record to publish\n\n"
    )
    _print_record(key, private)


def _owner(config: Config) -> os.stat_result | None:
    """Return the owner to give a key that root makes, so that the runner can read it; None for no change."""
    if os.geteuid() != 0:
        return None
    try:
        return config.spool_dir.stat()
    except FileNotFoundError:
        return None


def _record_name(key: DkimKey) -> str:
    return f"{key.selector}._domainkey.{key.domain}"


def _zone(key: DkimKey, private: "PrivateKey") -> str:
    from mailer.send.dkim.key_files import zone_record  # noqa: PLC0415 - as in keygen

    return zone_record(_record_name(key), private.record)


def _published(key: DkimKey, private: "PrivateKey") -> dict[str, str]:
    return {"name": _record_name(key), "value": private.record, "zone": _zone(key, private)}


def _print_record(key: DkimKey, private: "PrivateKey") -> None:
    sys.stdout.write(
        f"In a zone file:\n{_zone(key, private)}\n\n"
        f"In a DNS panel, a TXT record:\n  name   {_record_name(key)}\n  value  {private.record}\n"
    )
