"""Describe the keys of the configuration: what the model knows of them, joined with `guide/keys.toml`.

The model has names, types, bounds and defaults; the file has the meanings.
"""

from pathlib import Path

import msgspec

from mailer.config.key_list import Form, Key, Kind, keys

SOURCE = Path(__file__).parents[2] / "guide" / "keys.toml"


class Text(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A text in both languages, as Markdown within a line."""

    en: str
    zh: str = msgspec.field(name="zh-CN")

    def __getitem__(self, language: str) -> str:
        return self.zh if language == "zh-CN" else self.en


class Meaning(Text, frozen=True, forbid_unknown_fields=True):
    """The meaning of a key."""

    unset: Text | None = None
    """What a default that is empty, null or 0 stands for."""


class Group(Text, frozen=True, forbid_unknown_fields=True):
    """The title of a group of keys, and their meanings in the order of the table."""

    key: dict[str, Meaning]


class Source(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of `keys.toml`."""

    words: dict[str, Text]
    """The words of the columns `value` and `default`, and the heads of all columns."""
    group: list[Group]

    def in_language(self, language: str) -> dict[str, str]:
        """Return the words in one language."""
        return {name: text[language] for name, text in self.words.items()}


class Described(msgspec.Struct, frozen=True):
    """A key in one language."""

    key: Key
    group: str
    value: str
    """What the file may contain."""
    default: str
    unset: str
    """What an empty default stands for; empty: nothing, or the default is not empty."""
    meaning: str


def read() -> Source:
    """Read the meanings that are installed with mailer."""
    return msgspec.toml.decode(SOURCE.read_bytes(), type=Source)


def described(language: str, source: Source) -> list[Described]:
    """Return all keys that have a meaning, in the order of the source and in `en` or `zh-CN`."""
    by_path = {key.path: key for key in keys()}
    words = source.in_language(language)
    return [
        Described(
            key,
            group[language],
            _value(key, words),
            _default(key, unset := meaning.unset[language] if meaning.unset else "", words),
            unset,
            meaning[language],
        )
        for group in source.group
        for path, meaning in group.key.items()
        if (key := by_path.get(path))
    ]


def _value(key: Key, words: dict[str, str]) -> str:
    """Say what the file may contain, such as `duration`, `1 to 65,535` or the choices."""
    if key.kind is Kind.CHOICE:
        value = ", ".join(f"`{choice}`" for choice in key.choices)
        value = words["choices"].format(value) if key.form is Form.LIST else value
    elif key.form is Form.ONE and key.least is not None and key.most is not None:
        value = words["from-to"].format(f"{key.least:,}", f"{key.most:,}")
    else:
        value = words[_WORDS.get((key.kind, key.form), key.kind)]
    if key.above_zero or (key.kind is Kind.SIZE and key.least):
        value = words["above-zero"].format(value)
    return words["or-object"].format(value) if key.object else value


_WORDS = {
    (Kind.NUMBER, Form.LIST): "numbers",
    (Kind.DURATION, Form.LIST): "durations",
    (Kind.TEXT, Form.LIST): "texts",
    (Kind.TEXT, Form.ONE_OR_LIST): "text-or-texts",
    (Kind.TEXT, Form.TABLE): "named-texts",
    (Kind.OBJECT, Form.LIST): "objects",
}


def _default(key: Key, unset: str, words: dict[str, str]) -> str:
    """Say which value stands if the file has none."""
    if key.required:
        return words["required"]
    if key.empty:
        said = unset or words["none"]
        return words["with-words"].format(0, said) if key.default == 0 else said
    if isinstance(key.default, list):
        return words["all"] if key.default == list(key.choices) else " ".join(key.default)
    if isinstance(key.default, bool):
        return str(key.default).lower()
    literal = key.kind in {Kind.TEXT, Kind.CHOICE, Kind.PATH}
    return f"`{key.default}`" if literal else str(key.default)
