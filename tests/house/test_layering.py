"""The house keeps its rooms apart; each rule is shown to see the wall that someone knocked through.

`mail` and `ground` import nothing of ours; `config`, `spool` and `maillog` import those two, not one another;
`receive`, `send` and `monitor` import all of these and never each other; `cli` imports all, and nothing
imports `cli`.
"""

import ast
import re
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

MAILER = Path(__file__).resolve().parents[2] / "mailer"

VALUES = frozenset({"mail"})
BASE = VALUES | {"ground"}
SHARED_ROOMS = frozenset({"config", "spool", "maillog"})
PROGRAMS = frozenset({"receive", "send", "monitor"})
ROOMS_IMPORT = {
    "mail": frozenset(),
    # Mechanisms that are the same for any program: they read clocks and change files, which `mail` must not,
    # and know nothing of mail.
    "ground": frozenset(),
    **dict.fromkeys(SHARED_ROOMS, BASE),
    # What is asked outside of mail: by HTTP, or by running a program.
    "calls": BASE,
    # Tokens are kept in the spool, under the terms of the configuration.
    "oauth": VALUES | {"config", "spool", "calls"},
    "events": BASE | SHARED_ROOMS | {"calls"},
    **dict.fromkeys(PROGRAMS, BASE | SHARED_ROOMS),
    "send": BASE | SHARED_ROOMS | {"oauth", "calls"},
    "monitor": BASE | SHARED_ROOMS | {"calls", "events"},
    # For every mail that cron sends a process of its own: it knows SMTP and nothing else of us.
    "sendmail": frozenset(),
    # Other relays' queues are known by what these relays wrote, and by nothing of ours.
    "imports": VALUES,
    "cli": BASE | SHARED_ROOMS | PROGRAMS | {"oauth", "calls", "events", "sendmail", "imports"},
    # `python -m mailer` is the command line by another name; `mailer` itself holds the version.
    "__main__": frozenset({"cli"}),
    "": frozenset(),
}
PARTS_IMPORT = {
    # What is wrong with a message is a `Fault`; that SMTP has a reply to it is known above, in `replies`.
    # The names of peers that have no address are in `Received` fields as well.
    "mailer.receive.content": frozenset({"mailer.receive.peers"}),
    # The refusals to send come from the server, in the protocol of each listener.
    "mailer.receive.listen.listener": frozenset({"mailer.receive.peers"}),
    "mailer.receive.peers": frozenset(),
}
"""What these modules and packages may import of their room, besides themselves."""
IMPORTED_ANYWHERE = {"msgspec", "mailer", *sys.stdlib_module_names}

Sources = Mapping[str, str]
"""Dotted module name to source text; a package's name is its `__init__`."""


@dataclass(frozen=True, slots=True)
class Import:
    """One import: who, what (a module, or a name in one), and whether it runs when the importer is loaded."""

    importer: str
    imported: str
    relative: bool
    at_load: bool


def sources() -> Sources:
    found = {}
    for path in MAILER.rglob("*.py"):
        parts = path.relative_to(MAILER.parent).with_suffix("").parts
        found[".".join(parts).removesuffix(".__init__")] = path.read_text()
    return found


def imports(tree: Sources) -> Iterator[Import]:
    for importer, source in tree.items():
        yield from _imports_of(importer, ast.parse(source), at_load=True)


def _imports_of(importer: str, node: ast.AST, *, at_load: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        match child:
            case ast.Import(names=names):
                for name in names:
                    yield Import(importer, name.name, relative=False, at_load=at_load)
            case ast.ImportFrom(module=module, names=names, level=level):
                for name in names:
                    imported = f"{module}.{name.name}" if module else name.name
                    yield Import(importer, imported, relative=level > 0, at_load=at_load)
            case ast.If(test=ast.Name(id="TYPE_CHECKING")):
                yield from _imports_of(importer, child, at_load=False)
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                yield from _imports_of(importer, child, at_load=False)
            case _:
                yield from _imports_of(importer, child, at_load=at_load)


def room(module: str) -> str:
    """The part of the house that a module of ours belongs to: `mailer.spool.ids` to `spool`."""
    return [*module.split("."), ""][1]


def ours(imported: str) -> bool:
    return imported.partition(".")[0] == "mailer"


def walls_broken(tree: Sources) -> list[str]:
    """Imports from a room that the importer's room may not know."""
    rooms = {room(module) for module in tree}
    broken = [f"the plan of the house has no room {name!r}" for name in sorted(rooms - ROOMS_IMPORT.keys())]
    for each in imports(tree):
        target = room(each.imported)
        # `import mailer` and `from mailer import __version__` name no room: anyone may ask for the version.
        if not (ours(each.imported) and target and target in rooms) or target == room(each.importer):
            continue
        if target not in ROOMS_IMPORT.get(room(each.importer), ()):
            broken.append(f"{each.importer} imports {each.imported}")
    return broken


def parts_opened(tree: Sources) -> list[str]:
    """Imports by a part of a room from the rest of that room which the part may not know."""
    return [
        f"{each.importer} imports {each.imported}"
        for each in imports(tree)
        for part, known in PARTS_IMPORT.items()
        if within(each.importer, part)
        and ours(each.imported)
        and room(each.imported) == room(part)
        and not within(each.imported, part, *known)
    ]


def within(name: str, *modules: str) -> bool:
    """Whether a name is one of these modules, or in one of them."""
    return any(f"{name}.".startswith(f"{module}.") for module in modules)


def scattered_packages(tree: Sources) -> list[str]:
    """Third-party packages imported by several modules of one room; click by any room but `cli`."""
    users = defaultdict(set)
    for each in imports(tree):
        package = each.imported.partition(".")[0]
        if not each.relative and package not in IMPORTED_ANYWHERE:
            users[room(each.importer), package].add(each.importer)
    return [
        f"{package} is imported in {', '.join(sorted(importers))}"
        for (where, package), importers in sorted(users.items())
        if (where != "cli" if package == "click" else len(importers) > 1)
    ]


def relative_imports(tree: Sources) -> list[str]:
    return [f"{each.importer} imports {each.imported} relatively" for each in imports(tree) if each.relative]


def import_cycles(tree: Sources) -> list[str]:
    """A cycle of modules that need one another in order to load, if there is one."""
    needs: dict[str, set[str]] = {module: set() for module in tree}
    for each in imports(tree):
        if each.at_load and ours(each.imported):
            # `from mailer.spool import ids` names a module, `from mailer.spool.ids import new` a name in one.
            target = each.imported if each.imported in tree else each.imported.rpartition(".")[0]
            needs[each.importer].add(target)
    try:
        TopologicalSorter(needs).prepare()
    except CycleError as error:
        return [" -> ".join(reversed(error.args[1]))]
    return []


RULES = [walls_broken, parts_opened, scattered_packages, relative_imports, import_cycles]


@pytest.mark.parametrize("rule", RULES)
def test_the_house_keeps_the_rule(rule) -> None:
    assert rule(sources()) == []


def test_the_whole_house_is_looked_at() -> None:
    assert {room(module) for module in sources()} >= ROOMS_IMPORT.keys()
    assert sources().keys() >= PARTS_IMPORT.keys()


SOUND = {
    "mailer": "__version__ = '1'",
    "mailer.__main__": "from mailer.cli import main",
    "mailer.mail": "",
    "mailer.mail.reply": "import re",
    "mailer.ground": "",
    "mailer.ground.deadline": "import asyncio",
    "mailer.spool": "",
    "mailer.spool.layout": "import filelock\nfrom mailer.mail.reply import Reply",
    "mailer.receive": "",
    "mailer.receive.server": "import aiosmtpd\nfrom mailer import __version__\nimport mailer.spool.layout",
    "mailer.receive.peers": "from mailer.mail.reply import Reply",
    "mailer.receive.content": "",
    "mailer.receive.content.fault": "from enum import Enum",
    "mailer.receive.content.data": "from mailer.receive.content.fault import Fault\n"
    "from mailer.receive.content import fault\nfrom mailer.receive.peers import UNIX",
    "mailer.receive.replies": "from mailer.receive.content.fault import Fault",
    "mailer.send": "",
    "mailer.send.runner": "import msgspec\nfrom mailer.spool.layout import Spool",
    "mailer.cli": "import click\nimport mailer\nfrom mailer.receive.server import serve",
    "mailer.cli.spool": "import click\n",
}


@pytest.mark.parametrize("rule", RULES)
def test_a_sound_house_breaks_no_rule(rule) -> None:
    assert rule(SOUND) == []


@pytest.mark.parametrize(
    ("rule", "module", "source", "complaint"),
    [
        (walls_broken, "mailer.mail.reply", "from mailer.spool.layout import Spool", "mail.reply imports"),
        (
            walls_broken,
            "mailer.spool.layout",
            "import mailer.send.runner",
            "layout imports mailer.send.runner",
        ),
        (
            walls_broken,
            "mailer.send.runner",
            "from mailer.receive import server",
            "runner imports mailer.receive",
        ),
        (walls_broken, "mailer.send.runner", "def f():\n  import mailer.cli", "runner imports mailer.cli"),
        (walls_broken, "mailer.utils", "", "no room 'utils'"),
        (
            parts_opened,
            "mailer.receive.content.data",
            "from mailer.receive import replies",
            "content.data imports mailer.receive.replies",
        ),
        (
            parts_opened,
            "mailer.receive.content.wishes",
            "def f():\n  from mailer.receive.replies import BAD_KEY",
            "content.wishes imports mailer.receive.replies.BAD_KEY",
        ),
        (
            parts_opened,
            "mailer.receive.content.data",
            "import mailer.receive.content_policy",
            "content.data imports mailer.receive.content_policy",
        ),
        (
            parts_opened,
            "mailer.receive.listen.listener",
            "import mailer.receive.replies",
            "listener imports mailer.receive.replies",
        ),
        (
            parts_opened,
            "mailer.receive.peers",
            "from mailer.receive.content.fault import Fault",
            "peers imports mailer.receive.content.fault.Fault",
        ),
        (
            walls_broken,
            "mailer.ground.deadline",
            "from mailer.mail.reply import Reply",
            "ground.deadline imports",
        ),
        (walls_broken, "mailer.mail.reply", "from mailer.ground import deadline", "mail.reply imports"),
        (
            scattered_packages,
            "mailer.spool.run.claim",
            "from filelock import lock",
            "filelock is imported in",
        ),
        (scattered_packages, "mailer.receive.server", "import click", "click is imported in mailer.receive"),
        (relative_imports, "mailer.spool.run.claim", "from .layout import Spool", "layout.Spool relatively"),
        (relative_imports, "mailer.spool.run.claim", "from . import layout", "layout relatively"),
        (import_cycles, "mailer.mail.reply", "import mailer.send.runner", "mailer.mail.reply -> "),
        (import_cycles, "mailer.mail.reply", "if True:\n  from mailer.mail import reply", "mail.reply -> "),
    ],
)
def test_each_rule_sees_its_breach(rule, module: str, source: str, complaint: str) -> None:
    [said] = rule({**SOUND, module: source})
    assert complaint in said


@pytest.mark.parametrize(
    "source",
    [
        "if TYPE_CHECKING:\n  from mailer.send.runner import Runner",
        "def later():\n  from mailer.send.runner import Runner",
    ],
)
def test_an_import_that_does_not_run_at_load_closes_no_cycle(source: str) -> None:
    assert import_cycles({**SOUND, "mailer.mail.reply": source}) == []


_POSSESSIVE_GROUP = re.compile(r"[)}](?:[*+?]|\{[\d,]+\})\+|\(\?>")


def test_no_pattern_has_a_possessive_group() -> None:
    """CPython before 3.11.5, and Debian 12's as it was released, goes on in mid-round after one.

    `x+(?:[.]x+)*+@` matched `x.@` (CPython issue 106052). A single character or set may be possessive.
    """
    assert all(map(_POSSESSIVE_GROUP.search, ('rb"(?:[ ][^,]*+)*+"', 'rf"{_QUOTED}?+"', 'r"(?>ab|a)"')))
    found = [name for name, source in sources().items() if _POSSESSIVE_GROUP.search(source)]
    assert found == []
