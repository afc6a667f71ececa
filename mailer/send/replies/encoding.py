"""A reply's bytes as text: UTF-8 (RFC 6531 3.7.4), else GB18030 where it gives Chinese, else escaped.

Chinese providers answer in GB18030 without saying so. Nearly any bytes of Latin-1 or Cyrillic decode as
GB18030 as well, into nonsense, so that the text has to look like Chinese: most of its characters come from
the part of GB 2312 that holds punctuation and the common characters.
"""

import re

# GB18030: two octets, or four. What cannot be read stays out and spoils the count.
_CHARACTER = re.compile(rb"[\x81-\xfe][\x30-\x39][\x81-\xfe][\x30-\x39]|[\x81-\xfe][\x40-\x7e\x80-\xfe]")
# GB 2312: rows 1 to 3 (punctuation, full-width forms), rows 16 to 55 (level 1: 99 % of running text).
_COMMON = re.compile(rb"[\xa1-\xa3\xb0-\xd7][\xa1-\xfe]")
_LEAST = 2
"""Characters. A lone pair of octets may be anything."""


def decode(octets: bytes) -> str:
    r"""Return the text; octets that cannot be read are kept as `\xNN`. Never raises."""
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError:
        if _chinese(octets):
            return octets.decode("gb18030")
        return octets.decode("utf-8", "backslashreplace")


def _chinese(octets: bytes) -> bool:
    try:
        octets.decode("gb18030")
    except UnicodeDecodeError:
        return False
    characters = _CHARACTER.findall(octets)
    common = sum(1 for character in characters if _COMMON.fullmatch(character))
    return common >= _LEAST and 4 * common >= 3 * len(characters)
