"""The order of system calls that a power cut demands, seen by strace: durable before it matters."""

from pathlib import Path

from spools.moves import MOVE, WHOLE
from spools.strace import Call, straced
from spools.strategies import accept

from mailer.spool.directory import Spool


def at(calls: list[Call], name: str, *, path: str = "", holding: str = "", after: int = -1) -> int:
    """Find the first such call after another one that succeeded; it must be there."""
    for number, call in enumerate(calls):
        succeeded = call.name == name and call.result >= 0
        if number > after and succeeded and path in call.path and holding in call.arguments:
            return number
    raise AssertionError(f"no {name} of {path!r} with {holding!r} after call {after}: {calls[after + 1 :]}")


def test_a_message_is_acknowledged_only_when_file_and_directory_are_durable(tmp_path: Path) -> None:
    root = tmp_path / "spool"
    Spool.open(root, create=True).close()
    ran = straced(tmp_path / "log", "receive", str(root), "10", "300000")
    names = ran.said_after("accepted")
    assert len(names) == 2
    for name, last_write in zip(names, ("write", "pwrite64"), strict=True):
        created = at(ran.calls, "openat", holding=f'"tmp/{name}"')
        locked = at(ran.calls, "flock", path=name, after=created)
        written = at(ran.calls, last_write, path=name, after=locked)
        synced = at(ran.calls, "fsync", path=name, after=written)
        moved = at(ran.calls, "renameat2", holding=f'"new/{name}"', after=synced)
        durable = at(ran.calls, "fsync", path="/new", after=moved)
        acknowledged = at(ran.calls, "write", holding=f"accepted {name}", after=durable)
        assert not [c for c in ran.calls[synced:acknowledged] if "write" in c.name and c.path.endswith(name)]
        assert acknowledged


def test_a_message_leaves_cur_only_when_its_journal_is_durable(tmp_path: Path) -> None:
    """And the destination is durable before the source: no instant has the name in neither."""
    for address, place in (("deferred@example.net", "retry/"), ("bounced@example.net", "failed")):
        root = tmp_path / address
        name = accept(root, b"x", address)
        ran = straced(tmp_path / "log", "run", str(root))
        assert ran.said[-1] == "done"
        claimed = at(ran.calls, MOVE, holding=f'"cur/{name}"')
        committing = at(ran.calls, "write", path=name, holding="committing", after=claimed)
        delivered = at(ran.calls, "write", holding="delivered", after=committing)
        reserved = at(ran.calls, "fallocate", path=name)
        outcome = at(ran.calls, "write", path=name, after=delivered)
        synced = at(ran.calls, "fdatasync", path=name, after=outcome)
        moved = at(ran.calls, MOVE, holding=f'"{place}', after=synced)
        destination = at(ran.calls, "fsync", path=f"/{place}".rstrip("/"), after=moved)
        if place == "retry/":
            assert ran.calls[destination].path.endswith("/retry"), "the bucket is new: retry/ must know it"
            destination = at(ran.calls, "fsync", path="/retry/", after=destination)
            assert ran.calls[destination].path.endswith("Z"), "the bucket"
        if not WHOLE:
            gone = [at(ran.calls, "unlinkat", holding=f'"{p}/{name}"') for p in ("cur", "new")]
            assert min(gone) > destination, "no name is removed before another is durable"
        at(ran.calls, "fsync", path="/cur", after=destination)
        assert reserved < delivered, "room for the outcome before the message is sent"
