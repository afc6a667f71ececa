"""What two clients of a filesystem see of each other, each tried by doing it.

Two processes of one host are two clients, and so are two mounts of one filesystem over a network. The spool
requires that a name or a lock is given to one of two clients only, and that no appended line is lost. Two
mounts are tried for more (`VISIBILITY`): whether each sees the other's changes immediately.
"""

from collections.abc import Callable
from functools import partial

from mailer.mail.finding import Grade
from mailer.spool.checks.client import Client, eventually
from mailer.spool.checks.trials import ELSEWHERE, TOLERABLE, UNSUPPORTED, Outcome

_FILES = 64
"""Names for which two clients compete, each beginning with the first."""
_TURNS = 10
_LINES = 100
"""Lines that each client appends: some in turn, and then as many more at the same time."""
_LINE = 200
"""Octets of an appended line: less than an entry of the ledger usually has."""
_ROUNDS = 10
_FREED = 5.0
"""Seconds within which the lock of a dead client must be free. A filesystem implemented by a program frees it
a moment after the process has ended."""


def create(one: Client, other: Client) -> Outcome:
    """A name is created by one client only (O_EXCL)."""
    other.begin("create_all", "raced-", _FILES)
    mine = one.do("create_all", "raced-", _FILES)
    if trouble := _shared(mine, other.result()):
        return Grade.PROBLEM, f"two programs can create the same file: {trouble}", ELSEWHERE
    return Grade.OK, "gives a name to one of two programs only (O_EXCL)", ""


def rename(one: Client, other: Client) -> Outcome:
    """A name is given to the file of one client only (RENAME_NOREPLACE)."""
    one.do("create_all", "mine-", _FILES)
    other.do("create_all", "its-", _FILES)
    try:
        other.begin("rename_all", "its-", "target-", _FILES)
        mine = one.do("rename_all", "mine-", "target-", _FILES)
        its = other.result()
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
        words = "works without RENAME_NOREPLACE: two hosts could rename to one name"
        return Grade.WARNING, words, TOLERABLE
    if trouble := _shared(mine, its):
        return Grade.PROBLEM, f"two programs can rename to the same name: {trouble}", ELSEWHERE
    return Grade.OK, "gives a name to one of two programs only (RENAME_NOREPLACE)", ""


def _shared(mine: list[int], its: list[int]) -> str:
    """Compare which client got which of the names; return what is wrong."""
    if both := {*mine} & {*its}:
        return f"{len(both)} of {_FILES} names were given to both"
    if none := {*range(_FILES)} - {*mine} - {*its}:
        return f"{len(none)} of {_FILES} names were given to neither"
    return ""


def append(one: Client, other: Client) -> Outcome:
    """Lines that two clients append to one file are all whole."""
    one.do("create", "appended")
    lines = [f"{letter * (_LINE - 1)}\n" for letter in "ab"]
    for client in (one, other):
        client.do("begin_appending", "appended")
    for _ in range(_TURNS):
        one.do("append_one", "appended", lines[0])
        other.do("append_one", "appended", lines[1])
    other.begin("append", "appended", lines[1], _LINES - _TURNS)
    one.do("append", "appended", lines[0], _LINES - _TURNS)
    other.result()
    for client in (one, other):
        client.do("close", "appended")
    _, _, _, text = one.do("look", "appended")
    whole = sum(text.count(line) for line in lines)
    if whole != 2 * _LINES or len(text) != whole * _LINE:
        words = f"of {2 * _LINES} lines that two programs appended, {whole} are whole: so would the ledger be"
        return Grade.PROBLEM, words, ELSEWHERE
    return Grade.OK, "lines that two programs append are whole", ""


def flock(one: Client, other: Client) -> Outcome:
    """An exclusive lock keeps the other client out, and is free once its holder has been killed.

    This ends the other client.
    """
    one.do("create", "locked")
    for holder, excluded in ((one, other), (other, one)):
        if not eventually(partial(holder.do, "lock", "locked"), _FREED):
            return Grade.PROBLEM, "a lock that was released is not free", ELSEWHERE
        if excluded.do("lock", "locked"):
            words = "two programs can hold an exclusive lock together: two runners would send the same mail"
            return Grade.PROBLEM, words, ELSEWHERE
        if holder is one:
            one.do("close", "locked")
    other.kill()
    if not eventually(partial(one.do, "lock", "locked"), _FREED):
        words = f"the lock of a program that was killed was still held after {_FREED:.0f} s"
        return Grade.PROBLEM, words, "claimed mail would wait for ever: set spoolDir to another filesystem"
    return Grade.OK, "keeps a second program out, and is free when its holder is killed", ""


def seen(one: Client, other: Client) -> Outcome:
    """Each client sees at once what the other creates, appends, renames and removes."""
    late: dict[str, int] = {}
    for number in range(_ROUNDS):
        for actor, witness in ((one, other), (other, one)):
            for what in _unseen(actor, witness, f"seen-{number}-{'it' if actor is other else 'me'}"):
                late[what] = late.get(what, 0) + 1
    if late:
        words = ", ".join(f"{what} ({count} of {2 * _ROUNDS} times)" for what, count in late.items())
        return Grade.PROBLEM, f"what one mount does, the other does not see at once: {words}", ""
    return Grade.OK, "what one mount creates, appends, renames and removes, the other sees at once", ""


def _unseen(actor: Client, witness: Client, name: str) -> list[str]:
    """Do one thing after another with a file; return those that the witness did not see."""
    moved = f"{name}-moved"
    both = "first\nsecond\n"
    wrong = []
    witness.do("look", name)  # A client that caches missing names caches this one.
    actor.do("create", name, "first\n")
    found = witness.do("look", name)
    if found is None or found[3] != "first\n":
        return ["a new file"]
    witness.do("keep", name)
    witness.do("kept", name)
    actor.do("append", name, "second\n", 1)
    looked = witness.do("look", name)
    if looked is None or looked[2:] != [len(both), both]:
        wrong.append("what was appended")
    if witness.do("kept", name) != [len(both), 1, both]:
        wrong.append("what was appended to an open file")
    actor.do("move", name, moved)
    there = witness.do("look", moved)
    if witness.do("look", name) is not None or there is None or there[0] != found[0]:
        wrong.append("a rename")
    if {name, moved} & {*witness.do("names")} != {moved}:
        wrong.append("a rename in the list of names")
    actor.do("remove", moved)
    if witness.do("look", moved) is not None or moved in witness.do("names"):
        wrong.append("a removal")
    witness.do("close", name)
    return wrong


TrialOfTwo = Callable[[Client, Client], Outcome]

TRIALS: tuple[tuple[str, TrialOfTwo], ...] = (("create", create), ("append", append), ("flock", flock))
"""Between two processes; the last one ends the second."""
BETWEEN_MOUNTS: tuple[tuple[str, TrialOfTwo], ...] = (
    ("create", create),
    ("rename", rename),
    ("append", append),
    ("visibility", seen),
    ("flock", flock),
)
