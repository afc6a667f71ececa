"""Find what is wrong with the meanings of the keys, for `scripts/keys` and the tests."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator

from mailer.cli.keys.reference import Meaning, Source
from mailer.config.key_list import Key

_FILE = "mailer/guide/keys.toml"
_QUOTED = re.compile(r"`[^`]*`")
_NUMBER = re.compile(r"\d+")
_STATES_DEFAULT = re.compile(r"\bdefault(s to| is|:)|默认(值)?[为是：]")  # noqa: RUF001 - Chinese


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
