r"""A reply's bytes as text: UTF-8 (RFC 6531 3.7.4), else another encoding that the bytes prove, else escaped.

Servers answer in the encoding of their country and say nothing of it, and nearly any bytes decode in most of
them, into nonsense. So each encoding has a test for what only its own language makes of it; what passes the
test of no encoding, or of several, is shown as `\xNN`, from which the words can still be had.
"""

import re
from collections.abc import Callable

_LONGEST = 1024
"""Octets that are looked at so closely. RFC 5321 4.5.3.1.5: 512."""
_LEAST = 2
"""Characters of an East Asian encoding. A lone pair of octets may be anything."""
_LEAST_LETTERS = 3
"""Letters of the longest Cyrillic word."""

# GB18030: two octets, or four. What cannot be read stays out and spoils the count.
_CHARACTER = re.compile(rb"[\x81-\xfe][\x30-\x39][\x81-\xfe][\x30-\x39]|[\x81-\xfe][\x40-\x7e\x80-\xfe]")
# GB 2312: rows 1 to 3 (punctuation, full-width forms), rows 16 to 55 (level 1: 99 % of running text).
_COMMON = re.compile(rb"[\xa1-\xa3\xb0-\xd7][\xa1-\xfe]")
_HIGH = re.compile(rb"[\x80-\xff]+")
_HANGUL = re.compile(rb"(?:[\xb0-\xc8][\xa1-\xfe])+")
_HANGUL_WORDS = re.compile(rb"[\xb0-\xc8][\xa1-\xfe] [\xb0-\xc8][\xa1-\xfe]")
_KOREAN_ENDING = "\ub2c8\ub2e4".encode("euc_kr")
"""Of every polite sentence."""
_KANA = re.compile("[\u3041-\u3093\u30a1-\u30f6]")
_JAPANESE = re.compile("[\u3000-\u30ff\u4e00-\u9fff\uff01-\uff9f]")
# Big5: what is in daily use is in its first level; a second octet below A1 is in no GB 2312 text.
_BIG5_COMMON = re.compile(rb"[\xa1-\xc6](?:[\x40-\x7e]|[\xa1-\xfe])")
_BIG5_ONLY = re.compile(rb"[\xa4-\xc6][\x40-\x7e]")
_BIG5_RUN = re.compile(rb"(?:[\xa4-\xf9](?:[\x40-\x7e]|[\xa1-\xfe])){4}")
"""Else it may be letters with accents, each before one without."""
_WORD = re.compile(r"[^\W\d_]+")
_LOWER = "\u0430-\u044f\u0451\u0454\u0456\u0457\u0491"
"""Of Russian, Ukrainian and Bulgarian."""
_CYRILLIC_WORD = re.compile(f"[\u0410-\u042f\u0401\u0404\u0406\u0407\u0490]?[{_LOWER}]+|[\u0410-\u042f]")
_VOWELS = re.compile("[\u0430\u0435\u0438\u043e\u0443\u044b\u044d\u044e\u044f\u0451\u0454\u0456\u0457]")
_CYRILLIC_MARKS = frozenset("\xab\xbb\u2014\u2013\u2116\xa0")
# Windows-1252 and Latin-1 have these where Windows-1250 and Latin-2 do.
_SHARED = frozenset(
    "\xe4\xf6\xfc\xdf\xc4\xd6\xdc\xe9\xc9\xe1\xed\xf3\xfa\xe7\xe2\xee\xf4"
    "\xab\xbb\xa0\xb0\u2018\u2019\u201c\u201d\u2013"
)
# The others are other letters there. Of French and Italian, Spanish, Portuguese, the North: a text of
# the West has letters of one of these groups alone; words of the East, so misread, mostly have of two.
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
    r"""Return the text; octets that cannot be read are kept as `\xNN`. Never raises."""
    if b"\x1b$" in octets:
        return _strict(octets, "iso2022_jp") or _escaped(octets)
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError as error:
        cut = error.reason == "unexpected end of data" and not octets[: error.start].isascii()
        if cut or len(octets) > _LONGEST:
            return _escaped(octets)
    texts = ((_strict(octets, encoding), proves) for encoding, proves in _TESTS)
    found = {text for text, proves in texts if text and proves(octets, text)}
    return found.pop() if len(found) == 1 else _escaped(octets)


def _escaped(octets: bytes) -> str:
    """Keep what is UTF-8 if most of it is; in another encoding a character of UTF-8 comes about by chance."""
    text = octets.decode("utf-8", "backslashreplace")
    chance = sum(character > "\x7f" for character in text) < text.count("\\x")
    return octets.decode("ascii", "backslashreplace") if chance else text


def _strict(octets: bytes, encoding: str) -> str:
    """Decode; empty: it is not in that encoding. A character that the line's end cuts stays escaped."""
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
        return False  # Words with a blank between them, of hangul's rows alone: as likely Korean.
    characters = _CHARACTER.findall(octets)
    common = sum(1 for character in characters if _COMMON.fullmatch(character))
    return common >= _LEAST and 4 * common >= 3 * len(characters)


def _taiwanese(octets: bytes, _: str) -> bool:
    characters = _CHARACTER.findall(octets)
    common = sum(1 for character in characters if _BIG5_COMMON.fullmatch(character))
    told = _BIG5_RUN.search(octets) is not None and len(_BIG5_ONLY.findall(octets)) >= _LEAST
    return told and 4 * common >= 3 * len(characters) and not _kana_in(octets)


def _korean(octets: bytes, _: str) -> bool:
    return _KOREAN_ENDING in octets


def _kana_in(octets: bytes) -> bool:
    return any(_japanese(octets, _strict(octets, encoding)) for encoding in ("shift_jis", "euc_jp"))


def _japanese(_: bytes, text: str) -> bool:
    """Every sentence has kana, which no other language has."""
    strange = [character for character in text if character > "\x7f"]
    kana = len(_KANA.findall(text))
    return kana >= _LEAST and 4 * kana >= len(strange) and all(map(_JAPANESE.match, strange))


def _cyrillic(_: bytes, text: str) -> bool:
    """Words in lower case but for the first letter, with vowels: read in another encoding, they are not."""
    words = [word for word in _WORD.findall(text) if not word.isascii()]
    letters = "".join(words)
    vowels = len(_VOWELS.findall(letters.lower()))
    others = {character for character in text if character > "\x7f"} - set(letters)
    return (
        max(map(len, words), default=0) >= _LEAST_LETTERS
        and all(map(_CYRILLIC_WORD.fullmatch, words))
        and 5 * vowels >= len(letters) >= vowels + vowels // 2
        and others <= _CYRILLIC_MARKS
    )


def _western(_: bytes, text: str) -> bool:
    """Letters with accents, alone among letters without."""
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
