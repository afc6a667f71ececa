"""Check the meanings of all keys, and write them into the configuration guide, for `scripts/keys`."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator

from mailer.cli.keys.reference import Meaning, Source, described
from mailer.config.key_list import Key

_HEAD = ("key", "value", "default", "meaning")
_BEGIN = (
    "<!-- Written by scripts/keys from mailer/config/model.py and mailer/guide/keys.toml: do not edit. -->\n"
)
_END = "<!-- End of what scripts/keys writes. -->\n"
_FILE = "mailer/guide/keys.toml"
_QUOTED = re.compile(r"`[^`]*`")
_NUMBER = re.compile(r"\d+")
_STATES_DEFAULT = re.compile(r"\bdefault(s to| is|:)|默认(值)?[为是：]")  # noqa: RUF001 - Chinese


def with_tables(guide: str, language: str, source: Source) -> str:
    """Return a guide in which the text between the marks is one table for each group.

    Raises:
        ValueError: the guide does not have both marks.
    """
    before, begin, rest = guide.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not (begin and end):
        raise ValueError(f"it has no lines {_BEGIN.strip()} and {_END.strip()}")
    return f"{before}{begin}\n{_tables(language, source)}\n{end}{after}"


def _tables(language: str, source: Source) -> str:
    words = source.in_language(language)
    head = [words[name] for name in _HEAD]
    lines, title = [], ""
    for each in described(language, source):
        if each.group != title:
            title = each.group
            lines += ["", f"### {title}", "", _row(head), _row(["---"] * len(head))]
        lines.append(_row([f"`{each.key.path}`", each.value, each.default, each.meaning]))
    return "\n".join(lines[1:]) + "\n"


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def faults(source: Source, model: Iterable[Key]) -> Iterator[str]:
    """Yield a sentence for each fault: keys and meanings without one another, and texts that do not agree."""
    known = {key.path: key for key in model}
    written = [path for group in source.group for path in group.key]
    for path in sorted(known.keys() - set(written)):
        yield f'{path}: this key of the model has no meaning; add [group.key."{path}"] to {_FILE}'
    for path in sorted(set(written) - known.keys()):
        yield f"{path}: {_FILE} has a meaning for it, but the model has no such key; remove it"
    for path, times in Counter(written).items():
        if times > 1:
            yield f"{path}: {_FILE} has it in two groups; remove one"
    for group in source.group:
        for path, meaning in group.key.items():
            if path in known:
                yield from (f"{path}: {fault}" for fault in _faults_of(known[path], meaning))


def _faults_of(key: Key, meaning: Meaning) -> Iterator[str]:
    if meaning.unset and not key.empty:
        default = "required" if key.required else f"{key.default!r} by default"
        yield f"unset describes an empty default, and the key is {default}; remove unset"
    for text in (meaning, *filter(None, [meaning.unset])):
        if set(_QUOTED.findall(text.en)) != set(_QUOTED.findall(text.zh)):
            yield "en and zh-CN do not quote the same names"
        if set(_NUMBER.findall(text.en)) != set(_NUMBER.findall(text.zh)):
            yield "en and zh-CN do not have the same numbers"
        if "|" in text.en + text.zh or "\n" in text.en + text.zh:
            yield "a meaning is one line without |, because it becomes a cell of a table"
    if _STATES_DEFAULT.search(meaning.en + meaning.zh):
        yield "the meaning states a default; the table takes it from the model, so remove it here"
