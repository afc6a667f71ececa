"""Write the part of man(7) that the manual pages need: sections, paragraphs, items and literal text."""

import re
from collections.abc import Iterable

_MARK = re.compile(r"`([^`]+)`|\*\*([^*]+)\*\*|\[([^\]]+)\]\([^)]*\)")
_OF_KEYS = ["key", "value", "default", "meaning"]
_ROW = re.compile(r"(?<!\\)\|")


def escape(text: str) -> str:
    r"""Return text escaped so that troff prints it unchanged, also lines that begin with a dot."""
    return "\n".join(map(_no_request, _plain(text).split("\n")))


def marked(text: str) -> str:
    """Convert a paragraph of Markdown: code and strong words become bold, a link becomes its text."""
    end, pieces = 0, []
    for each in _MARK.finditer(text):
        code, strong, link = each.groups()
        pieces += [
            _plain(text[end : each.start()]),
            rf"\fB{_plain(code or strong)}\fR" if not link else _plain(link),
        ]
        end = each.end()
    return "\n".join(map(_no_request, "".join([*pieces, _plain(text[end:])]).split("\n")))


def _plain(text: str) -> str:
    # \- prints a hyphen that can be searched for, and \: allows a line break in a long list of choices.
    return text.replace("\\", r"\e").replace("-", r"\-").replace("|", r"|\:")


def _no_request(line: str) -> str:
    return rf"\&{line}" if line.startswith((".", "'")) else line


def heading(name: str, section: int, description: str, version: str) -> str:
    """Return the beginning of a page, with the NAME section for whatis(1)."""
    return (
        f'.TH "{name.upper()}" "{section}" "" "mailer {version}" "mailer"\n'
        # No hyphenation and no justification, because of the names of keys and options.
        ".nh\n.ad l\n"
        f".SH NAME\n{escape(name)} \\- {escape(description)}\n"
    )


def chapter(title: str) -> str:
    return f'.SH "{escape(title.upper())}"\n'


def part(title: str) -> str:
    return f'.SS "{escape(title)}"\n'


def paragraph(text: str) -> str:
    return f".PP\n{marked(text)}\n"


def item(term: str, text: str) -> str:
    """Return an item: a term, in bold, and its description, which is in troff already."""
    return f".TP\n\\fB{escape(term)}\\fR\n{text or '.br'}\n"


def literal(lines: Iterable[str]) -> str:
    """Return lines to be printed unchanged, and indented."""
    shown = "\n".join(escape(line) for line in lines)
    return f".PP\n.RS 4\n.nf\n{shown}\n.fi\n.RE\n"


def of_markdown(text: str) -> str:
    """Convert the body of a guide: its chapters, paragraphs, lists, tables and blocks of code.

    A row of a table becomes an item, with the first cell as its term.
    """
    return "".join(map(_block, re.split(r"\n{2,}(?!    |\n)", _joined(text))))


def _joined(text: str) -> str:
    """Fill the empty lines of fenced blocks, so that they do not end the paragraph."""
    return re.sub(r"```.*?```", lambda block: re.sub(r"\n{2,}", "\n \n", block[0]), text, flags=re.DOTALL)


def _block(text: str) -> str:
    lines = text.strip("\n").split("\n")
    first = lines[0]
    if first.startswith(("## ", "### ")):
        marks, _, title = first.partition(" ")
        return chapter(title) if marks == "##" else part(title)
    if first.startswith("```"):
        return literal(lines[1:-1])
    if first.startswith("    "):
        return literal(line[4:] for line in lines)
    if first.startswith("| "):
        return "".join(map(_key if _cells(first) == _OF_KEYS else _row, lines[2:]))
    if first.startswith("- "):
        points = " ".join(lines).split(" - ")
        return "".join(f".IP \\(bu 2\n{marked(point.removeprefix('- '))}\n" for point in points)
    return f".PP\n{marked(' '.join(lines))}\n"


def _cells(row: str) -> list[str]:
    return [cell.strip() for cell in _ROW.split(row.strip().strip("|"))]


def _row(row: str) -> str:
    term, *others = _cells(row)
    return item(term.replace("`", ""), marked(": ".join(filter(None, others))))


def _key(row: str) -> str:
    key, value, default, meaning = _cells(row)
    return item(key.replace("`", ""), marked(f"{meaning}. Value: {value}. Default: {default}."))
