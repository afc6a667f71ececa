"""A story: what happens in one world, as plain values that a number gives, and that can be made shorter."""

from dataclasses import dataclass, replace
from random import Random

from lab.disk import PROFILES
from lab.hops import CUT, DEADLY, DOWN, LATER, LOST, REFUSED, SENT

LATER_RUN = 1900.0
"""Seconds after which what was deferred is due."""
FAULTS = ("EIO", "EIO", "ENOSPC", "EINTR", "short", "full", "full", "abort")
CALLS = {
    "abort": ("fsync", "fdatasync"),
    "EIO": ("fdatasync", "fdatasync", "fsync", "write", "pread", "open", "rename", "fallocate", "unlink"),
    "ENOSPC": ("creat", "write", "rename", "link", "mkdir", "fallocate"),
    "EINTR": ("fallocate",),
    "short": ("write", "pwrite", "pread"),
    "full": ("write", "fallocate", "creat"),
}


@dataclass(frozen=True, slots=True)
class Mail:
    """A message that a client submits."""

    token: str
    sender: str
    recipients: tuple[str, ...]
    size: int
    after: float
    """Seconds from the beginning."""
    receiver: int = 0


@dataclass(frozen=True, slots=True)
class Fault:
    """A call that fails: the n-th of its name, from 1. `full` lasts for so many calls."""

    kind: str
    call: str
    number: int
    lasts: int = 1


@dataclass(frozen=True, slots=True)
class Kill:
    """A program dies at its n-th call, and is started again after so many seconds."""

    program: str
    number: int
    back_after: float


@dataclass(frozen=True, slots=True)
class Command:
    """The operator's: `retry`, `hold`, `release`, `rm` of a message."""

    verb: str
    token: str
    after: float


@dataclass(frozen=True, slots=True)
class Story:
    """Everything that a run depends on, but for the code."""

    seed: int
    profile: int
    eagerness: float
    mails: tuple[Mail, ...]
    answers: tuple[tuple[str, str, tuple[str, ...]], ...]
    runners: tuple[float, ...]
    """When each begins."""
    commands: tuple[Command, ...] = ()
    faults: tuple[Fault, ...] = ()
    kills: tuple[Kill, ...] = ()
    pace: float = 0.0
    """Seconds that a hop takes to answer, at most."""
    archive: bool = False
    hold_uncertain: bool = False
    rot: bool = False
    """The disk changes an octet of a message that lies there when all programs have died."""

    def __str__(self) -> str:
        lines = [
            (
                f"seed {self.seed}: a filesystem of the kind {PROFILES[self.profile].name}, preempted at "
                f"{self.eagerness:.0%} of calls{', with an archive' if self.archive else ''}"
                f"{', uncertain: hold' if self.hold_uncertain else ''}, hops within {self.pace} s"
            )
        ]
        for mail in self.mails:
            lines.append(
                f"  {mail.after:.2f} s: client {mail.receiver} submits {mail.token} ({mail.size} octets) of "
                f"<{mail.sender}>"
            )
            lines += [f"    to {to}: {', '.join(a)}" for token, to, a in self.answers if token == mail.token]
        lines += [f"  {at:.2f} s: mailer-send --once" for at in self.runners]
        lines += [f"  {c.after:.2f} s: mailer spool {c.verb} {c.token}" for c in self.commands]
        lines += [f"  {f.kind} at {f.call} {f.number}, {f.lasts} call(s)" for f in self.faults]
        lines += [
            f"  kill -9 {k.program} at its call {k.number}; again {k.back_after:.2f} s later"
            for k in self.kills
        ]
        return "\n".join(lines)

    @property
    def deadly(self) -> str:
        """The message that kills its runners; empty: none does."""
        return next((token for token, _, answers in self.answers if DEADLY in answers), "")

    @property
    def keeps_promises(self) -> bool:
        """No fault takes more than the last second's record of what was sent."""
        return (
            not self.kills
            and not self.deadly
            and all(f.call == "fdatasync" and f.kind == "EIO" for f in self.faults)
        )

    @property
    def loses_replies(self) -> bool:
        """Its own faults may lose what a hop has answered."""
        return bool(
            self.kills or self.deadly or any(f.kind not in {"full", "short", "EINTR"} for f in self.faults)
        )

    def shorter(self) -> "list[Story]":  # noqa: C901 - one kind of part after the other
        """Return every story with one part less."""
        found: list[Story] = []
        for name in ("kills", "faults", "commands", "runners", "mails"):
            parts = getattr(self, name)
            found += [replace(self, **{name: (*parts[:n], *parts[n + 1 :])}) for n in range(len(parts))]
        for n, mail in enumerate(self.mails):
            for m in range(len(mail.recipients)):
                fewer = replace(mail, recipients=(*mail.recipients[:m], *mail.recipients[m + 1 :]))
                if fewer.recipients:
                    found.append(replace(self, mails=(*self.mails[:n], fewer, *self.mails[n + 1 :])))
        for n, (token, to, answers) in enumerate(self.answers):
            if len(answers) > 1:
                fewer_answers = (token, to, answers[1:])
                found.append(
                    replace(self, answers=(*self.answers[:n], fewer_answers, *self.answers[n + 1 :]))
                )
        if self.pace:
            found.append(replace(self, pace=0.0))
        if self.eagerness:
            found.append(replace(self, eagerness=0.0))
        if self.rot:
            found.append(replace(self, rot=False))
        if self.archive:
            found.append(replace(self, archive=False))
        return found


def story_of(seed: int) -> Story:
    """Make the story that a number stands for."""
    random = Random(f"story {seed}")
    mails: list[Mail] = []
    answers: list[tuple[str, str, tuple[str, ...]]] = []
    span = random.choice((0.0, 0.02, 0.5, 3.0))
    for number in range(1, random.choice((1, 1, 2, 2, 3, 4)) + 1):
        token = f"m{number}"
        recipients = tuple(f"r{n}@example.net" for n in range(1, random.choice((1, 1, 2, 3)) + 1))
        sender = random.choice(("app@example.com", "app@example.com", ""))
        size = random.choice((200, 200, 900, 3000))
        mails.append(Mail(token, sender, recipients, size, random.uniform(0, span), random.randint(0, 1)))
        answers += [(token, to, _answers(random)) for to in recipients]
    runners = tuple(
        random.choice((span, random.uniform(0, span))) for _ in range(random.choice((1, 1, 2, 3)))
    )
    runners += (LATER_RUN,) * random.choice((0, 0, 1, 2))
    if random.random() < 0.04:
        answers[0] = (*answers[0][:2], (DEADLY,))
    commands = tuple(
        Command(
            random.choice(("retry", "hasten", "hold", "release", "rm")),
            random.choice(mails).token,
            random.uniform(0, span + 1),
        )
        for _ in range(random.choice((0, 0, 0, 1, 2)))
    )
    return Story(
        seed,
        random.randrange(len(PROFILES)),
        random.choice((0.0, 0.03, 0.1, 0.4)),
        tuple(mails),
        tuple(answers),
        runners,
        commands,
        _faults(random),
        tuple(
            Kill(
                random.choice(("runner", "receiver", "operator")) + " 0",
                random.randint(20, 160),
                random.uniform(0, 1),
            )
            for _ in range(random.choice((0, 0, 0, 1, 2)))
        ),
        random.choice((0.0, 0.0, 0.3, 2.0)),
        archive=random.random() < 0.2,
        hold_uncertain=random.random() < 0.15,
        rot=random.random() < 0.1,
    )


def _answers(random: Random) -> tuple[str, ...]:
    before = random.choices((LATER, DOWN, LOST, CUT), (4, 2, 2, 1), k=random.choice((0, 0, 0, 1, 1, 2)))
    return (*before, random.choice((SENT, SENT, SENT, REFUSED)))


def _faults(random: Random) -> tuple[Fault, ...]:
    found: list[Fault] = []
    for _ in range(random.choice((0, 0, 0, 0, 1, 1, 2))):
        kind = random.choice(FAULTS)
        call = random.choice(CALLS[kind])
        number = random.randint(1, 40)
        found.append(
            Fault(kind, call, number, random.randint(1, 60) if kind == "full" else random.choice((1, 1, 3)))
        )
    return tuple(found)
