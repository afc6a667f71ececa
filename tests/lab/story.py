"""A story: what happens in one world, as plain values that can be made shorter; `themes` makes them."""

from dataclasses import dataclass, replace
from typing import ClassVar

from lab.disk import PROFILES
from lab.hops import DEADLY

LATER_RUN = 1900.0
"""Seconds after which what was deferred is due."""


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
    key: bool = False
    """It has an Idempotency-Key, and its client submits it again until it hears a reply."""
    user: int = 0
    """It is left in `drop/` by this user."""
    replays: str = ""
    """It is this message, which the operator sends again to others. With a key the request is repeated."""
    wait: float = 0.0
    """Its sender wants it to be tried no earlier than so many seconds from the beginning; 0: at once."""


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
    tears: bool = False
    """It dies in the middle of the first write from there on."""


@dataclass(frozen=True, slots=True)
class Command:
    """The operator's: `retry`, `hold`, `release`, `rm` of a message, `copy` by hand; `pause`, `resume`;
    `suppress` and `restore` an address; `fsck`."""

    verb: str
    token: str
    after: float
    to: str = ""
    """Where to it is copied; or the address."""
    by: int = 0
    """Which operator gives it: each one's come one after the other."""


@dataclass(frozen=True, slots=True)
class Jump:
    """The wall clock is wrong for a while."""

    after: float
    by: float
    """Seconds by which it is ahead."""
    lasts: float


@dataclass(frozen=True, slots=True)
class Plant:
    """Something that another user put into the spool: a `foreign` file, a symbolic `link`, and so on."""

    kind: str
    place: str
    after: float
    KINDS: ClassVar = ("foreign", "link", "hardlink", "directory", "fifo")


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
    plants: tuple[Plant, ...] = ()
    rotations: tuple[float, ...] = ()
    """When a program gets another refresh token in place of the one it has."""
    moves: tuple[float, ...] = ()
    """When all mail is moved to another spool on this host."""
    pace: float = 0.0
    """Seconds that a hop takes to answer, at most."""
    batch: int = 2
    """Recipients that a hop takes at once."""
    archive: bool = False
    hold_uncertain: bool = False
    rot: bool = False
    """The disk changes an octet of a message that lies there when all programs have died."""
    per_minute: int = 0
    per_hour: int = 0
    """Recipients that the hop allows in a window; 0: any number."""
    sessions: int = 0
    """Connections that the hop allows at a time; 0: any number."""
    jumps: tuple[Jump, ...] = ()
    events: bool = False
    """Somebody wants to be told what becomes of mail, and cannot always take it."""

    def __str__(self) -> str:
        lines = [
            (
                f"seed {self.seed}: a filesystem of the kind {PROFILES[self.profile].name}, preempted at "
                f"{self.eagerness:.0%} of calls{', with an archive' if self.archive else ''}"
                f"{', uncertain: hold' if self.hold_uncertain else ''}, hops within {self.pace} s"
            )
        ]
        for mail in self.mails:
            how = f"user {mail.user} leaves in drop/" if mail.user else f"client {mail.receiver} submits"
            how = f"operator sends {mail.replays} again as" if mail.replays else how
            lines.append(
                f"  {mail.after:.2f} s: {how} {mail.token} ({mail.size} octets) of "
                f"<{mail.sender}>{', under a key' if mail.key else ''}"
                f"{f', for {mail.wait:.0f} s' if mail.wait else ''}"
            )
            lines += [f"    to {to}: {', '.join(a)}" for token, to, a in self.answers if token == mail.token]
        lines += [f"  {at:.2f} s: mailer-send --once" for at in self.runners]
        lines += [f"  {at:.2f} s: mailer spool move --all" for at in self.moves]
        lines += [f"  {at:.2f} s: a refresh token is rotated" for at in self.rotations]
        lines += [
            f"  {c.after:.2f} s: {f'operator {c.by}: ' * bool(c.by)}{c.verb} {c.token} {c.to}".rstrip()
            for c in self.commands
        ]
        lines += [
            f"  {j.after:.2f} s: the clock is {j.by:+.0f} s wrong for {j.lasts:.0f} s" for j in self.jumps
        ]
        if self.limits or self.sessions:
            allowed = [f"{most} recipients in {window:.0f} s" for window, most in self.limits]
            lines.append(f"  the hop allows {', '.join(allowed)}; {self.sessions or 'any'} sessions")
        lines += [f"  {p.after:.2f} s: another user puts a {p.kind} into {p.place}/" for p in self.plants]
        lines += [f"  {f.kind} at {f.call} {f.number}, {f.lasts} call(s)" for f in self.faults]
        lines += [
            f"  kill -9 {k.program} {'in a write after' if k.tears else 'at'} its call {k.number}; again "
            f"{k.back_after:.2f} s later"
            for k in self.kills
        ]
        return "\n".join(lines)

    @property
    def limits(self) -> tuple[tuple[float, int], ...]:
        """What the hop allows: seconds of a window, and recipients in each."""
        found = ((60.0, self.per_minute), (3600.0, self.per_hour))
        return tuple((window, most) for window, most in found if most)

    @property
    def tidy(self) -> bool:
        """Nothing puts into the spool what does not belong there, or damages what does."""
        moved = any(command.verb in {"copy", "hold"} for command in self.commands)
        return not (self.plants or moved or self.rot or self.deadly or self.faults)

    @property
    def deadly(self) -> str:
        """The message that kills its runners; empty: none does."""
        return next((token for token, _, answers in self.answers if DEADLY in answers), "")

    @property
    def keeps_promises(self) -> bool:
        """No fault takes more than the last second's record of what was sent."""
        return not self.kills and not self.deadly and all(f.call == "fdatasync" for f in self.faults)

    @property
    def loses_replies(self) -> bool:
        """Its own faults may lose what a hop has answered."""
        return bool(
            self.kills or self.deadly or any(f.kind not in {"full", "short", "EINTR"} for f in self.faults)
        )

    def shorter(self) -> "list[Story]":
        """Return every story with one part less."""
        found: list[Story] = []
        for name in (
            "kills",
            "faults",
            "plants",
            "rotations",
            "moves",
            "jumps",
            "commands",
            "runners",
            "mails",
        ):
            parts = getattr(self, name)
            found += [replace(self, **{name: (*parts[:n], *parts[n + 1 :])}) for n in range(len(parts))]
        for n, mail in enumerate(self.mails):
            for m in range(len(mail.recipients)):
                fewer = replace(mail, recipients=(*mail.recipients[:m], *mail.recipients[m + 1 :]))
                if fewer.recipients:
                    found.append(replace(self, mails=(*self.mails[:n], fewer, *self.mails[n + 1 :])))
        tokens = {mail.token for mail in self.mails}
        for n, (token, to, answers) in enumerate(self.answers):
            if len(answers) > 1 and token in tokens:
                fewer_answers = (token, to, answers[1:])
                found.append(
                    replace(self, answers=(*self.answers[:n], fewer_answers, *self.answers[n + 1 :]))
                )
        plain = {"pace": 0.0, "eagerness": 0.0, "rot": False, "archive": False, "events": False}
        plain |= {"per_minute": 0, "per_hour": 0, "sessions": 0}
        found += [replace(self, **{name: value}) for name, value in plain.items() if getattr(self, name)]  # type: ignore[arg-type]
        return found
