"""`mailer dkim keygen`, `record` and `rotate`: make keys, and print the DNS records to publish."""

import os
import sys
import time
from typing import TYPE_CHECKING

import click

from mailer.cli.dkim.key_options import (
    chosen,
    configured,
    domain_option,
    key_file,
    new_domain_option,
    read_key,
    selector_option,
    surroundings,
    unconfigured,
)
from mailer.cli.exits import Exit, Failure
from mailer.cli.options import config_option, examples, json_option
from mailer.cli.output import json_line
from mailer.config.model import Config, DkimKey
from mailer.config.trust import Untrusted
from mailer.mail.reply import printable

if TYPE_CHECKING:
    from mailer.send.dkim.keys import KeyType, PrivateKey


@click.command(
    epilog=examples(
        "mailer dkim keygen --domain example.com", "mailer dkim keygen --domain example.com --type ed25519"
    )
)
@new_domain_option
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
        private = read_key(key, config)
        if as_json:
            sys.stdout.write(json_line(_published(key, private)))
        else:
            _print_record(key, private)


@click.command(epilog=examples("mailer dkim rotate --domain example.com"))
@new_domain_option
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
        kind = KeyType.RSA2048 if read_key(old, config).algorithm == "rsa-sha256" else KeyType.ED25519
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
