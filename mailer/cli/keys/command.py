"""`mailer config keys`: what each key of the configuration means, and its default."""

import re
import sys
from collections.abc import Sequence

import click
from click.shell_completion import CompletionItem

from mailer.cli.exits import Exit, Failure
from mailer.cli.keys.reference import Described, described, read
from mailer.cli.options import config_option, examples, json_of, language_option, preferred_language
from mailer.cli.output import end_with_the_pipe, json_line
from mailer.mail.reply import printable


def _paths(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
    return [
        CompletionItem(each.key.path, help=each.meaning)
        for each in described(preferred_language(), read())
        if each.key.path.startswith(incomplete)
    ]


@click.command(
    epilog=examples(
        "mailer config keys                       every key and its default",
        "mailer config keys sending.ratePerHop    one key: values, default, meaning",
        "mailer config keys retry                 all keys of a group",
        "mailer config keys '$.dkim.keys[0]'      as an error message names it",
        "mailer config keys --json | jq -r 'select(.type == \"secret\").key'",
        "mailer config keys --language zh-CN dkim",
    )
)
@click.argument("key", required=False, shell_complete=_paths)
@language_option
@json_of("key, group, type, form, choices, minimum, maximum, required, default, unset, meaning")
@config_option
def keys(key: str | None, *, language: str | None, as_json: bool) -> None:
    """Explain keys of the configuration: their meaning, the values they may have, and their default.

    With KEY, explain it and all keys below it; the last part of a key is enough, such as `maxAge`, in any
    case. Without KEY, list all keys with their defaults. `mailer config show` prints the values in use. In
    --json, `unset` is what a default that is empty, null or 0 stands for.
    """
    end_with_the_pipe()
    source, language = read(), language or preferred_language()
    every, words = described(language, source), source.in_language(language)
    chosen = every if key is None else _meant(key, every)
    if as_json:
        sys.stdout.writelines(json_line(_record(each)) for each in chosen)
    elif key is None:
        width = max(len(each.key.path) for each in chosen)
        lines = (f"{each.key.path:{width}}  {each.default}\n" for each in chosen)
        sys.stdout.writelines(line.replace("`", "") for line in lines)
    else:
        sys.stdout.write("\n".join(_block(each, words) for each in chosen))


def _meant(text: str, every: Sequence[Described]) -> list[Described]:
    """Return the key that a text names and those below it, else the keys whose last part it is.

    Raises:
        Failure: there is none; the message has the most similar key.
    """
    wanted = _plain(text)
    by_path = {_plain(each.key.path): each for each in every}
    if found := [each for path, each in by_path.items() if f"{path}.".startswith(f"{wanted}.")]:
        return found
    if found := [each for path, each in by_path.items() if path.endswith(f".{wanted}")]:
        return found
    import difflib  # noqa: PLC0415 - only for a mistake

    parts = [each.key.path.split(".") for each in every]
    whole = {".".join(each[:length]) for each in parts for length in range(1, len(each) + 1)}
    last = {each[-1]: ".".join(each) for each in parts}
    names = {_plain(path): path for path in (*last, *whole)}
    similar = [names[name] for name in difflib.get_close_matches(wanted, names, n=1)]
    hint = f'did you mean "{similar[0]}"?' if similar else "`mailer config keys` lists all"
    raise Failure(Exit.USAGE, f'there is no key "{printable(text, 60)}"; {hint}')


_PLACE = re.compile(r"\[\d*\]")


def _plain(path: str) -> str:
    """Return a path without case, without the places in lists, and without the `$.` of error messages."""
    return _PLACE.sub("", path).removeprefix("$.").lower()


def _block(each: Described, words: dict[str, str]) -> str:
    return (
        f"{each.key.path}\n  {each.meaning}\n"
        f"  {words['value']}: {each.value}\n  {words['default']}: {each.default}\n"
    )


def _record(each: Described) -> dict[str, object]:
    key = each.key
    return {
        "key": key.path,
        "group": each.group,
        "type": key.kind,
        "form": key.form,
        "choices": key.choices,
        "minimum": key.least,
        "maximum": key.most,
        "required": key.required,
        "default": key.default,
        "unset": each.unset,
        "meaning": each.meaning,
    }
