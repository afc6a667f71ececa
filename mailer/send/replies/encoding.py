r"""Decode a reply's bytes: as UTF-8 (RFC 6531 3.7.4), else in an encoding that they prove, else escaped.

Servers reply in the encoding of their country without declaring it, and nearly any bytes decode in most of
these encodings, to nonsense. So each encoding has a test for text that is plausible in its languages. Bytes
that pass the test of no encoding, or of several, are shown as `\xNN`, from which the text can be recovered.
"""

import re
from collections.abc import Callable

_MAX_TESTED = 1024
"""The most octets to test for other encodings than UTF-8. RFC 5321 4.5.3.1.5: 512."""
_MIN_CHARACTERS = 2
"""The fewest characters that prove an East Asian encoding. A single pair of octets may be anything."""
_MIN_LETTERS = 3
"""The fewest letters that the longest Cyrillic word must have."""

# GB18030: two octets, or four. Invalid octets do not match.
_CHARACTER = re.compile(rb"[\x81-\xfe][\x30-\x39][\x81-\xfe][\x30-\x39]|[\x81-\xfe][\x40-\x7e\x80-\xfe]")
# GB 2312: rows 1 to 3 (punctuation, full-width forms), rows 16 to 55 (level 1: 99 % of running text).
_COMMON = re.compile(rb"[\xa1-\xa3\xb0-\xd7][\xa1-\xfe]")
_HIGH = re.compile(rb"[\x80-\xff]+")
_HANGUL = re.compile(rb"(?:[\xb0-\xc8][\xa1-\xfe])+")
_HANGUL_WORDS = re.compile(rb"[\xb0-\xc8][\xa1-\xfe] [\xb0-\xc8][\xa1-\xfe]")
_KOREAN_ENDING = "\ub2c8\ub2e4".encode("euc_kr")
"""The verb ending of every polite sentence."""
_KANA = re.compile("[\u3041-\u3093\u30a1-\u30f6]")
_JAPANESE = re.compile("[\u3000-\u30ff\u4e00-\u9fff\uff01-\uff9f]")
# Big5: characters in daily use are in its first level; GB 2312 text has no second octet below A1.
_BIG5_COMMON = re.compile(rb"[\xa1-\xc6](?:[\x40-\x7e]|[\xa1-\xfe])")
_BIG5_ONLY = re.compile(rb"[\xa4-\xc6][\x40-\x7e]")
_BIG5_RUN = re.compile(rb"(?:[\xa4-\xf9](?:[\x40-\x7e]|[\xa1-\xfe])){4}")
"""Shorter runs may be accented letters, each before an unaccented one."""
_WORD = re.compile(r"[^\W\d_]+")
_LOWER = "\u0430-\u044f\u0451\u0454\u0456\u0457\u0491"
"""The lower-case letters of Russian, Ukrainian and Bulgarian."""
_CYRILLIC_WORD = re.compile(f"[\u0410-\u042f\u0401\u0404\u0406\u0407\u0490]?[{_LOWER}]+|[\u0410-\u042f]")
_VOWELS = re.compile("[\u0430\u0435\u0438\u043e\u0443\u044b\u044d\u044e\u044f\u0451\u0454\u0456\u0457]")
_CYRILLIC_MARKS = frozenset("\xab\xbb\u2014\u2013\u2116\xa0")
# The characters at the same positions in Windows-1252 and Latin-1 as in Windows-1250 and Latin-2.
_SHARED = frozenset(
    "\xe4\xf6\xfc\xdf\xc4\xd6\xdc\xe9\xc9\xe1\xed\xf3\xfa\xe7\xe2\xee\xf4"
    "\xab\xbb\xa0\xb0\u2018\u2019\u201c\u201d\u2013"
)
# Other positions have different letters in the two families. The groups are for French and Italian, Spanish,
# Portuguese, and Nordic languages. A Western text has letters of one group only; an Eastern text that is
# misread as Western mostly has letters of two.
_GROUPS = tuple(
    frozenset(letters)
    for letters in (
        "\xe0\xe8\xea\xf9\xfb\xeb\xef\xec\xf2\xc0\xc8",
        "\xf1\xbf\xa1",
        "\xe3\xf5\xe0\xea",
        "\xe5\xf8\xe6\xc5\xd8",
    )
)
_LATIN_WORD = re.compile(r"[^\W\d_]{3,}")


def decode(octets: bytes) -> str:
    r"""Return the text; octets that cannot be decoded become `\xNN`. Never raises."""
    if b"\x1b$" in octets:
        return _strict(octets, "iso2022_jp") or _escaped(octets)
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError as error:
        cut = error.reason == "unexpected end of data" and not octets[: error.start].isascii()
        if cut or len(octets) > _MAX_TESTED:
            return _escaped(octets)
    texts = ((_strict(octets, encoding), proves) for encoding, proves in _TESTS)
    found = {text for text, proves in texts if text and proves(octets, text)}
    return found.pop() if len(found) == 1 else _escaped(octets)


def _escaped(octets: bytes) -> str:
    """Decode as UTF-8 and escape the rest; escape all if little is UTF-8, which may then be by chance."""
    text = octets.decode("utf-8", "backslashreplace")
    chance = sum(character > "\x7f" for character in text) < text.count("\\x")
    return octets.decode("ascii", "backslashreplace") if chance else text


def _strict(octets: bytes, encoding: str) -> str:
    """Decode strictly; empty: it is not in that encoding. A character cut off at the end is escaped."""
    try:
        return octets.decode(encoding)
    except UnicodeDecodeError as error:
        rest = octets[error.start :]
        if "incomplete" not in error.reason or not error.start:
            return ""
        return octets[: error.start].decode(encoding) + rest.decode("ascii", "backslashreplace")


def _chinese(octets: bytes, _: str) -> bool:
    if all(octet < 0x80 or octet >= 0xC0 for octet in octets) or _korean(octets, "") or _kana_in(octets):
        return False
    if _HANGUL_WORDS.search(octets) and b"".join(_HANGUL.findall(octets)) == b"".join(_HIGH.findall(octets)):
        return False  # Words with a blank between them, all from the rows of hangul: just as likely Korean.
    characters = _CHARACTER.findall(octets)
    common = sum(1 for character in characters if _COMMON.fullmatch(character))
    return common >= _MIN_CHARACTERS and 4 * common >= 3 * len(characters)


def _taiwanese(octets: bytes, _: str) -> bool:
    characters = _CHARACTER.findall(octets)
    common = sum(1 for character in characters if _BIG5_COMMON.fullmatch(character))
    told = _BIG5_RUN.search(octets) is not None and len(_BIG5_ONLY.findall(octets)) >= _MIN_CHARACTERS
    return told and 4 * common >= 3 * len(characters) and not _kana_in(octets)


def _korean(octets: bytes, _: str) -> bool:
    return _KOREAN_ENDING in octets


def _kana_in(octets: bytes) -> bool:
    return any(_japanese(octets, _strict(octets, encoding)) for encoding in ("shift_jis", "euc_jp"))


def _japanese(_: bytes, text: str) -> bool:
    """Test for Japanese: every sentence has kana, which no other language uses."""
    strange = [character for character in text if character > "\x7f"]
    kana = len(_KANA.findall(text))
    return kana >= _MIN_CHARACTERS and 4 * kana >= len(strange) and all(map(_JAPANESE.match, strange))


def _cyrillic(_: bytes, text: str) -> bool:
    """Test for Cyrillic: words in lower case except for the first letter, with a plausible share of vowels.

    Text that is decoded in the wrong one of the Cyrillic encodings does not look like that.
    """
    words = [word for word in _WORD.findall(text) if not word.isascii()]
    letters = "".join(words)
    vowels = len(_VOWELS.findall(letters.lower()))
    others = {character for character in text if character > "\x7f"} - set(letters)
    return (
        max(map(len, words), default=0) >= _MIN_LETTERS
        and all(map(_CYRILLIC_WORD.fullmatch, words))
        and 5 * vowels >= len(letters) >= vowels + vowels // 2
        and others <= _CYRILLIC_MARKS
    )


def _western(_: bytes, text: str) -> bool:
    """Test for Western European text: a few accented letters of one group among unaccented ones."""
    strange = {character for character in text if character > "\x7f"}
    words = [word for word in _LATIN_WORD.findall(text) if not word.isascii()]
    return any(strange <= _SHARED | group for group in _GROUPS) and any(
        2 * sum(character.isascii() for character in word) > len(word) for word in words
    )


_TESTS: tuple[tuple[str, Callable[[bytes, str], bool]], ...] = (
    ("gb18030", _chinese),
    ("big5", _taiwanese),
    ("euc_kr", _korean),
    ("shift_jis", _japanese),
    ("euc_jp", _japanese),
    ("koi8-r", _cyrillic),
    ("cp1251", _cyrillic),
    ("iso8859-5", _cyrillic),
    ("cp1252", _western),
)
