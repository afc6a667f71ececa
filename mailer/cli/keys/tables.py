"""Write the tables of all keys into the configuration guide, for `scripts/keys`."""

from collections.abc import Iterable

from mailer.cli.keys.reference import Source, described

_HEAD = ("key", "value", "default", "meaning")
_BEGIN = (
    "<!-- Written by scripts/keys from mailer/config/model.py and mailer/guide/keys.toml: do not edit. -->\n"
)
_END = "<!-- End of what scripts/keys writes. -->\n"


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
