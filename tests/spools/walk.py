"""Read a spool without the product's code: what a fault left on the disk, as plain values.

It shares no line with `mailer.spool`, so that a mistake there cannot hide itself here.
"""

import contextlib
import json
import os
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

QUEUE = ("cur", "new", "retry", "hold", "failed", "corrupt")
GIVEN_UP = {"bounced", "expired"}
_LOOKS = 1000


@dataclass(frozen=True)
class Found:
    """One file of the spool."""

    place: str
    bucket: str
    name: str
    sender: str
    recipients: tuple[str, ...]
    notify: dict[str, str]
    """NOTIFY of those that have one."""
    message: bytes
    events: tuple[dict[str, object], ...]
    intact: bool
    """It has an accepted line, and both its digests are right."""

    @property
    def kinds(self) -> list[object]:
        return [event["event"] for event in self.events]

    @property
    def held(self) -> bool:
        last = [kind for kind in self.kinds if kind in {"held", "released", "requeued"}]
        return last[-1:] == ["held"]

    @property
    def is_parked(self) -> bool:
        """Whether the last lines of its journal leave it to another spool, so that nothing sends it."""
        move = ""
        for event in self.events:
            if event["event"] in {"moving", "moved", "arriving"}:
                move = str(event["move"])
            elif event["event"] in {"arrived", "stayed"} and event["move"] == move:
                move = ""
        return bool(move)

    @property
    def statuses(self) -> dict[str, str]:
        """What the journal says of each recipient, folded the slow and obvious way."""
        *_, last = self.history
        return last

    @property
    def history(self) -> Iterator[dict[str, str]]:
        """The statuses before the first event, and after each."""
        now = dict.fromkeys(self.recipients, "pending")
        yield now
        for event in self.events:
            kind = str(event["event"])
            to: Collection[str] = event.get("to", ())  # type: ignore[assignment]
            if kind == "requeued" and not to:
                now = {a: "pending" if s in GIVEN_UP else s for a, s in now.items()}
            elif kind in {"sent", "deferred", "bounced", "expired", "uncertain", "committing"}:
                status = "uncertain" if kind == "committing" else kind
                now = {a: status if a in to and s != "sent" else s for a, s in now.items()}
            yield now


def read(path: Path, root: Path) -> Found:
    return parse(path.read_bytes(), str(path.relative_to(root)))


def parse(raw: bytes, path: str) -> Found:
    """Return what a file's octets say; the path is relative to the spool."""
    block, _, rest = raw.partition(b"\r\nSpool-Length: ")
    digits = rest[:10]
    length = int(digits) if digits.isdigit() else 0
    message, journal = rest[12 : 12 + length], rest[12 + length :]
    fields = [line.split(": ", 1) for line in block.decode("utf-8", "replace").split("\r\n")]
    events = []
    for line in journal.split(b"\n"):
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict):
            events.append(event)
    accepted = next((event for event in events if event["event"] == "accepted"), {})
    place, *bucket, name = path.split("/")
    return Found(
        place=place,
        bucket=bucket[0] if bucket else "",
        name=name,
        sender=next((_address(f[1]) for f in fields if f[0] == "Spool-Sender"), ""),
        recipients=tuple(_address(f[1]) for f in fields if f[0] == "Spool-Recipient"),
        notify=dict(_notify(f[1]) for f in fields if f[0] == "Spool-Recipient" and " NOTIFY=" in f[1]),
        message=message,
        events=tuple(events),
        intact=accepted.get("sha256") == sha256(message).hexdigest()
        and accepted.get("envelope") == sha256(raw[: len(block) + 28]).hexdigest(),
    )


def _address(value: str) -> str:
    """Return what stands between the brackets; one within quotes does not close them."""
    quoted = escaped = False
    for at, character in enumerate(value):
        if character == ">" and not quoted:
            return value[1:at]
        quoted ^= character == '"' and not escaped
        escaped = quoted and character == "\\" and not escaped
    return value


def _notify(value: str) -> tuple[str, str]:
    return _address(value), value.rpartition(" NOTIFY=")[2].partition(" ")[0]


def walk(root: Path, places: tuple[str, ...] = QUEUE) -> dict[str, Found]:
    """Return every file of some places by its name; two files of one name fail.

    One file that stands in two places, as a fault may leave it where a power cut can tear a rename, is given
    where a run meets it first.

    Programs may be moving files meanwhile: then it is looked at until nothing has moved between two looks.
    """
    for _ in range(_LOOKS):
        paths = _standing(root, places)
        if paths != _standing(root, places):
            continue
        with contextlib.suppress(FileNotFoundError):
            first: dict[str, Path] = {}
            for path in paths:
                assert path.samefile(first.setdefault(path.name, path)), (
                    f"two files: {first[path.name]}, {path}"
                )
            return {path.name: read(path, root) for path in first.values()}
    raise AssertionError(f"in {_LOOKS} looks no two were alike")


def in_two_places(root: Path) -> list[str]:
    """Name what stands in two places of the queue: nothing does when no program was killed."""
    return [
        name for name, count in Counter(path.name for path in _standing(root, QUEUE)).items() if count > 1
    ]


def _standing(root: Path, places: tuple[str, ...]) -> list[Path]:
    return [
        Path(directory, name)
        for place in sorted(places, key=lambda place: place != "cur")
        for directory, _, names in os.walk(root / place)
        for name in sorted(names)
    ]


def untold(files: Mapping[str, Found]) -> list[str]:
    """Name what was given up without its sender being told: message and recipient without a bounce on record.

    One that was tried again by the operator, and given up again, wants no second one; nor may it have one.
    """
    missing: list[str] = []
    for file in files.values():
        told: set[str] = set()
        for event, statuses in zip(file.events, file.history, strict=False):
            if event["event"] == "notified":
                failed = {a for a in event.get("to", ()) if statuses.get(a) in GIVEN_UP}  # type: ignore[attr-defined]
                assert not failed & told, f"{file.name}: told twice of {failed & told}"
                told |= failed
        wanted = {address for address in file.recipients if "FAILURE" in file.notify.get(address, "FAILURE")}
        given_up = {address for address, status in file.statuses.items() if status in GIVEN_UP}
        missing += [f"{file.name} {address}" for address in sorted(given_up & wanted - told) if file.sender]
    return missing


def only(root: Path, place: str) -> list[Found]:
    return list(walk(root, (place,)).values())
