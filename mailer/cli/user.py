"""`mailer user`: manage the users file, the logins in addition to the configuration's own."""

import os
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager

import click
import msgspec

from mailer.cli import arguments
from mailer.cli.exits import Exit, Failure
from mailer.cli.lazy import LazyGroup
from mailer.cli.options import config_option, examples, json_of
from mailer.cli.output import json_line
from mailer.cli.setup import configuration
from mailer.config.trust import owners_of, programs_group
from mailer.config.users import User, changing_users, read_users
from mailer.mail.patterns import can_match
from mailer.mail.reply import printable
from mailer.receive.users import hashes

_PLACE = "mailer.cli.user"
_NO_LIMIT = click.IntRange(0, 1_000_000_000)


@click.group(
    epilog=examples(
        "mailer user add shop --allow shop.example.com --max-per-hour 100",
        "mailer user token shop                  a random token in place of a password",
        "mailer user allow crm welcome@example.com     allow it another sender",
        "mailer user ls",
    ),
    cls=LazyGroup,
    commands_in={
        name: f"{_PLACE}:{name}" for name in ("add", "passwd", "token", "allow", "deny", "ls", "rm", "check")
    },
)
@config_option
def user() -> None:
    """Manage the users file: more logins, each with its own rights.

    Passwords are stored as hashes, so these users log in with PLAIN or LOGIN; CRAM-MD5, which needs the
    password itself, works only for the configuration's own login. The receiver applies a change within a
    second, and changed limits at its next start or SIGHUP.
    """


@click.command(
    epilog=examples("mailer user add shop --allow shop.example.com", "pwgen 24 1 | mailer user add shop")
)
@click.argument("name")
@click.option(
    "--allow",
    "allowed",
    multiple=True,
    metavar="PATTERN",
    help="An address, a domain or * that this user may send as; may be repeated. Default: it may send as "
    "anyone.",
)
@click.option("--max-per-hour", type=_NO_LIMIT, metavar="N", help="Messages; 0 means no limit.")
@click.option("--max-per-day", type=_NO_LIMIT, metavar="N", help="Messages; 0 means no limit.")
@json_of("name, action")
@config_option
def add(
    name: str,
    allowed: tuple[str, ...],
    max_per_hour: int | None,
    max_per_day: int | None,
    *,
    as_json: bool,
) -> None:
    """Add a user; the password is asked for, or read from standard input."""
    _check_name(name)
    _check_patterns(allowed)
    _check_new(name, _read())
    # Ask before the file is locked, since typing may take long.
    hashed = hashes.hash_password(_new_password(), os.urandom)
    with _changing() as users:
        _check_new(name, users)
        users[name] = User(
            name=name,
            hash=hashed,
            allowed_senders=allowed or ("*",),
            max_per_hour=max_per_hour,
            max_per_day=max_per_day,
        )
    _say(f"added {printable(name)}", {"name": name, "action": "added"}, as_json=as_json)
    if not as_json and (max_per_hour, max_per_day) != (None, None):
        sys.stdout.write(
            "limits take effect at the receiver's next start or reload (systemctl reload mailer, or SIGHUP)\n"
        )


@click.command(epilog=examples("mailer user passwd shop"))
@click.argument("name", shell_complete=arguments.users)
@json_of("name, action")
@config_option
def passwd(name: str, *, as_json: bool) -> None:
    """Give a user a new password; the old one, or the token, becomes invalid immediately."""
    _known(name)
    hashed = hashes.hash_password(_new_password(), os.urandom)
    with _changing() as users:
        users[name] = msgspec.structs.replace(users[name], hash=hashed)
    done = {"name": name, "action": "password changed"}
    _say(f"changed the password of {printable(name)}", done, as_json=as_json)


@click.command(epilog=examples("mailer user token shop", "mailer user token cron --allow cron@example.com"))
@click.argument("name", shell_complete=arguments.users)
@click.option(
    "--allow",
    "allowed",
    multiple=True,
    metavar="PATTERN",
    help="Add the user if it does not exist: an address, a domain or * that it may send as; may be repeated.",
)
@json_of("name, action, token")
@config_option
def token(name: str, allowed: tuple[str, ...], *, as_json: bool) -> None:
    """Give a user a random token in place of a password, and print it, this once.

    A token cannot be guessed and is quick to check, so it suits programs, over SMTP and over HTTP
    (submitHttp). With --allow, a user who does not exist is added.
    """
    _check_name(name)
    _check_patterns(allowed)
    made = hashes.new_token(os.urandom)
    with _changing() as users:
        known = name in users
        if known == bool(allowed):
            raise _token_refusal(name, known=known)
        before = users.get(name) or User(name=name, hash="", allowed_senders=allowed)
        users[name] = msgspec.structs.replace(before, hash=hashes.hash_token(made))
    if as_json:
        done = "token changed" if known else "added"
        sys.stdout.write(json_line({"name": name, "action": done, "token": made}))
        return
    # Print only the token on standard output, so that it can be redirected to a file.
    done = "changed the token of" if known else "added"
    sys.stderr.write(f"{done} {printable(name)}; its token, which is shown only this once:\n")
    sys.stderr.flush()
    sys.stdout.write(f"{made}\n")


def _token_refusal(name: str, *, known: bool) -> Failure:
    if known:
        words = f"there is a user {name} already, whose senders `mailer user allow` and `deny` change"
        return Failure(Exit.USAGE, printable(words))
    words = f"the user {name} does not exist; to add it, name its senders: --allow DOMAIN, or --allow '*'"
    return Failure(Exit.NO_INPUT, printable(words))


@click.command(
    epilog=examples("mailer user allow crm welcome@example.com", "mailer user allow crm example.org")
)
@click.argument("name", shell_complete=arguments.users)
@click.argument("patterns", nargs=-1, required=True, metavar="PATTERN...")
@json_of("name, allowedSenders")
@config_option
def allow(name: str, patterns: tuple[str, ...], *, as_json: bool) -> None:
    """Let a user send as more addresses: each PATTERN is an address, a domain, or * for all.

    The receiver applies the change within a second.
    """
    _known(name)
    _check_patterns(patterns)
    with _changing() as users:
        known = users[name].allowed_senders
        after = tuple(dict.fromkeys((*known, *patterns)))
        users[name] = msgspec.structs.replace(users[name], allowed_senders=after)
    _say_senders(name, after, as_json=as_json)


@click.command(epilog=examples("mailer user deny crm welcome@example.com"))
@click.argument("name", shell_complete=arguments.users)
@click.argument("patterns", nargs=-1, required=True, metavar="PATTERN...", shell_complete=arguments.senders)
@json_of("name, allowedSenders")
@config_option
def deny(name: str, patterns: tuple[str, ...], *, as_json: bool) -> None:
    """Stop a user from sending as the given addresses, written as `mailer user ls` shows them."""
    _known(name)
    with _changing() as users:
        known = users[name].allowed_senders
        if unknown := [each for each in patterns if each not in known]:
            raise Failure(
                Exit.NO_INPUT,
                f"{printable(' '.join(unknown))} is not among the senders of {printable(name)}: "
                f"{printable(' '.join(known))}",
            )
        left = tuple(each for each in known if each not in patterns)
        if not left:
            raise Failure(
                Exit.USAGE,
                f"{printable(name)} would have no sender left; to remove its login: mailer user rm NAME",
            )
        users[name] = msgspec.structs.replace(users[name], allowed_senders=left)
    _say_senders(name, left, as_json=as_json)


def _say_senders(name: str, senders: tuple[str, ...], *, as_json: bool) -> None:
    anyone = " (*: anyone; to end that: mailer user deny NAME '*')" if "*" in senders else ""
    said = f"{printable(name)} may send as {printable(' '.join(senders))}{anyone}"
    _say(said, {"name": name, "allowedSenders": senders}, as_json=as_json)


@click.command(epilog=examples("mailer user ls", "mailer user ls --json | jq -r .name"))
@json_of("name, hash (password or token), allowedSenders, maxPerHour, maxPerDay (null: as rateLimits)")
@config_option
def ls(*, as_json: bool) -> None:
    """List the users, but not their hashes."""
    users = _read().values()
    if users and not as_json:
        sys.stdout.write("NAME\tLOGS IN BY\tMAY SEND AS\tLIMITS\n")
    for each in users:
        kind = "password" if hashes.is_slow(each.hash) else "token"
        if as_json:
            shown = msgspec.to_builtins(each) | {"hash": kind}
            sys.stdout.write(json_line(shown))
            continue
        limits = ", ".join(
            f"{most} per {window}"
            for most, window in ((each.max_per_hour, "hour"), (each.max_per_day, "day"))
            if most is not None
        )
        senders = printable(" ".join(each.allowed_senders))
        sys.stdout.write(f"{printable(each.name)}\t{kind}\t{senders}\t{limits}".rstrip() + "\n")


@click.command(epilog=examples("mailer user rm shop"))
@click.argument("name", shell_complete=arguments.users)
@json_of("name, action")
@config_option
def rm(name: str, *, as_json: bool) -> None:
    """Remove a user; sessions that have logged in already are not interrupted."""
    _known(name)
    with _changing() as users:
        users.pop(name, None)
    _say(f"removed {printable(name)}", {"name": name, "action": "removed"}, as_json=as_json)


@click.command(epilog=examples("mailer user check shop"))
@click.argument("name", shell_complete=arguments.users)
@json_of("name, right")
@config_option
def check(name: str, *, as_json: bool) -> Exit:
    """Check whether a password, asked for or read from standard input, is the user's: exit code 0 or 1."""
    known = _known(name)
    right = hashes.matches(_password("Password"), known.hash)
    _say("right" if right else "wrong", {"name": name, "right": right}, as_json=as_json)
    return Exit.OK if right else Exit.FINDINGS


def _say(text: str, record: Mapping[str, object], *, as_json: bool) -> None:
    sys.stdout.write(json_line(record) if as_json else f"{text}\n")


def _read() -> dict[str, User]:
    config = configuration().config
    return read_users(config.users_file, owners_of(config.spool_dir))


def _changing() -> AbstractContextManager[dict[str, User]]:
    loaded = configuration()
    config = loaded.config
    group = programs_group(config.spool_dir, loaded.path)
    return changing_users(config.users_file, owners_of(config.spool_dir), group)


def _known(name: str) -> User:
    users = _read()
    if name not in users:
        raise Failure(Exit.NO_INPUT, f"the user {printable(name)} does not exist; see `mailer user ls`")
    return users[name]


def _check_new(name: str, users: Mapping[str, User]) -> None:
    if name in users:
        raise Failure(Exit.USAGE, f"there is a user {printable(name)} already; see `mailer user passwd`")


def _check_name(name: str) -> None:
    if not name or not name.isprintable() or len(name.encode()) > 255:
        raise Failure(Exit.USAGE, "a user's name is 1 to 255 octets of printable text")
    if name == configuration().config.default_username:
        raise Failure(
            Exit.USAGE,
            f"{printable(name)} is the configuration's own login (defaultUsername), with its own password; "
            "choose another name",
        )


def _check_patterns(patterns: tuple[str, ...]) -> None:
    for pattern in patterns:
        if not can_match(pattern):
            raise Failure(
                Exit.USAGE,
                f'"{printable(pattern, 320)}" is neither an address, nor a domain such as shop.example.com, '
                "nor *; senders at a host whose name has no dot are named one by one: root@myhost",
            )


def _new_password() -> str:
    password = _password("New password", confirm=True)
    if len(password) < 8:
        raise Failure(
            Exit.USAGE, "a password needs at least 8 characters; `mailer user token` makes good ones"
        )
    if len(password.encode()) > hashes.MAX_PASSWORD or not password.isprintable():
        raise Failure(Exit.USAGE, f"a password is printable and at most {hashes.MAX_PASSWORD} octets")
    return password


def _password(prompt: str, *, confirm: bool = False) -> str:
    if not sys.stdin.isatty():
        return sys.stdin.readline().rstrip("\n")
    entered: str = click.prompt(prompt, hide_input=True, confirmation_prompt=confirm, err=True)
    return entered
