"""The story that a number stands for: of any kind, or with more of what seldom meets by chance."""

from dataclasses import replace
from random import Random

from lab.disk import PROFILES
from lab.hops import CUT, DEADLY, DOWN, LATER, LOST, REFUSED, SENT
from lab.story import LATER_RUN, Command, Fault, Kill, Mail, Plant, Story

_FAULTS = ("EIO", "EIO", "ENOSPC", "EINTR", "short", "full", "full", "abort")
_CALLS = {
    "abort": ("fsync", "fdatasync"),
    "EIO": ("fdatasync", "fdatasync", "fsync", "write", "pread", "open", "rename", "fallocate", "unlink"),
    "ENOSPC": ("creat", "write", "rename", "link", "mkdir", "fallocate"),
    "EINTR": ("fallocate",),
    "short": ("write", "pwrite", "pread"),
    "full": ("write", "fallocate", "creat"),
}


def story_of(seed: int) -> Story:
    """Make the story that a number stands for."""
    random = Random(f"story {seed}")
    story = _any(seed, random)
    theme = _THEMES[seed % len(_THEMES)]
    return theme(story, random) if theme else story


def _any(seed: int, random: Random) -> Story:
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
    return Story(
        seed,
        random.randrange(len(PROFILES)),
        random.choice((0.0, 0.03, 0.1, 0.4)),
        tuple(mails),
        tuple(answers),
        runners,
        _commands(random, mails, span, random.choice((0, 0, 0, 1, 2))),
        _faults(random),
        _kills(random, random.choice((0, 0, 0, 1, 2))),
        pace=random.choice((0.0, 0.0, 0.3, 2.0)),
        batch=random.choice((1, 2, 2)),
        archive=random.random() < 0.2,
        hold_uncertain=random.random() < 0.15,
        rot=random.random() < 0.1,
    )


def _answers(random: Random) -> tuple[str, ...]:
    before = random.choices((LATER, DOWN, LOST, CUT), (4, 2, 2, 1), k=random.choice((0, 0, 0, 1, 1, 2)))
    return (*before, random.choice((SENT, SENT, SENT, REFUSED)))


def _commands(random: Random, mails: list[Mail], span: float, count: int) -> tuple[Command, ...]:
    verbs = ("retry", "hasten", "hold", "release", "rm")
    return tuple(
        Command(random.choice(verbs), random.choice(mails).token, random.uniform(0, span + 1))
        for _ in range(count)
    )


def _kills(random: Random, count: int) -> tuple[Kill, ...]:
    return tuple(
        Kill(
            random.choice(("runner", "receiver", "operator")) + " 0",
            random.randint(20, 160),
            random.uniform(0, 1),
            tears=random.random() < 0.3,
        )
        for _ in range(count)
    )


def _faults(random: Random) -> tuple[Fault, ...]:
    found: list[Fault] = []
    for _ in range(random.choice((0, 0, 0, 0, 1, 1, 2))):
        kind = random.choice(_FAULTS)
        call = random.choice(_CALLS[kind])
        number = random.randint(1, 40)
        found.append(
            Fault(kind, call, number, random.randint(1, 60) if kind == "full" else random.choice((1, 1, 3)))
        )
    return tuple(found)


def _retries(story: Story, random: Random) -> Story:
    """What was deferred is sent by a later run, and the power fails some seconds after that."""
    answers = tuple((token, to, (random.choice((LATER, DOWN)), *a)) for token, to, a in story.answers)
    commands = tuple(
        Command(random.choice(("rm", "hold", "retry")), mail.token, random.uniform(5.0, 60.0))
        for mail in story.mails
        if random.random() < 0.3
    )
    mails = tuple(
        replace(mail, wait=random.uniform(5, 3000)) if random.random() < 0.2 else mail for mail in story.mails
    )
    story = replace(story, mails=mails, answers=answers, commands=commands, faults=(), kills=())
    return replace(story, runners=(*story.runners, LATER_RUN), rot=False)


def _long_in_hand(story: Story, random: Random) -> Story:
    """A message stays in hand for seconds, and the disk refuses what is written of it meanwhile."""
    to = tuple(f"r{n}@example.net" for n in range(1, 4))
    mails = (replace(story.mails[0], recipients=to),)
    answers = [(mails[0].token, one, (SENT,)) for one in to]
    answers[-1] = (mails[0].token, to[-1], (LATER, SENT))
    faults = (Fault(random.choice(("EIO", "EIO", "ENOSPC")), "fdatasync", random.choice((1, 1, 2, 3))),)
    story = replace(story, mails=mails, answers=tuple(answers), faults=faults, kills=(), commands=())
    return replace(story, pace=2.0, batch=1, hold_uncertain=random.random() < 0.2)


def _full_disk(story: Story, random: Random) -> Story:
    """The disk has no room from the middle of a message's attempt on, and later it has."""
    fault = Fault("full", random.choice(("write", "fallocate")), random.randint(2, 14), random.randint(1, 60))
    return replace(
        story, faults=(fault,), kills=(), rot=False, runners=(*story.runners, random.uniform(3.0, 9.0))
    )


def _abort(story: Story, random: Random) -> Story:
    """The journal's disk refuses a write, and one of many programs is told so."""
    mails = tuple(replace(mail, receiver=n, after=0.0) for n, mail in enumerate(story.mails))
    fault = Fault("abort", "aimed", random.randint(1, 4))
    profile = random.choice((0, 0, 1))
    return replace(story, mails=mails, faults=(fault,), kills=(), eagerness=0.4, profile=profile, rot=False)


def _poison(story: Story, random: Random) -> Story:
    """A message kills its runners."""
    token, to, _ = random.choice(story.answers)
    answers = tuple((t, r, (DEADLY,) if (t, r) == (token, to) else a) for t, r, a in story.answers)
    return replace(story, answers=answers, rot=False, faults=(), kills=())


def _hands(story: Story, random: Random) -> Story:
    """Other users and the operator's hands put things into the spool."""
    span = story.runners[0] + 1
    plants = tuple(
        Plant(random.choice(Plant.KINDS), random.choice(("new", "new", "cur")), random.uniform(0, span))
        for _ in range(random.choice((0, 1, 2)))
    )
    copies = tuple(
        Command(
            "copy",
            random.choice(story.mails).token,
            random.uniform(0, span),
            random.choice(("cur", "failed")),
        )
        for _ in range(random.choice((0, 1, 1)))
    )
    return replace(story, plants=plants, commands=story.commands + copies, faults=(), rot=False)


def _torn(story: Story, random: Random) -> Story:
    """The operator's command dies in the middle of a line, and a runner later on."""
    first = random.choice(story.mails).token
    commands = tuple(Command(verb, first, 0.0) for verb in random.choices(("hold", "retry", "hasten"), k=2))
    kills = (Kill("operator 0", random.randint(5, 60), 1.0, tears=True),)
    mails = tuple(replace(mail, after=0.0) for mail in story.mails)
    runners = (random.uniform(0.0, 0.1), 1.0)
    return replace(story, mails=mails, commands=commands, kills=kills, faults=(), rot=False, runners=runners)


def _keys(story: Story, random: Random) -> Story:
    """Clients submit under a key until they hear a reply."""
    mails = tuple(replace(mail, key=random.random() < 0.8) for mail in story.mails)
    return replace(story, mails=mails, rot=False)


def _drops(story: Story, random: Random) -> Story:
    """Users leave mail in `drop/`."""
    mails = tuple(replace(mail, user=random.choice((0, 1001, 1002))) for mail in story.mails)
    return replace(story, mails=mails, rot=False)


def _state(story: Story, random: Random) -> Story:
    """Tokens are rotated, runners paused."""
    rotations = tuple(random.uniform(0, 2) for _ in range(random.randint(1, 3)))
    verbs = random.choices(("pause", "resume"), k=random.randint(0, 2))
    commands = tuple(Command(verb, "", random.uniform(0, 2)) for verb in verbs)
    return replace(story, rotations=rotations, commands=story.commands + commands)


def _events(story: Story, random: Random) -> Story:
    """What becomes of mail is told to somebody who cannot always take it."""
    return replace(story, events=True, rot=False, commands=())


_THEMES = (
    None,
    _retries,
    _keys,
    _hands,
    _full_disk,
    None,
    _abort,
    _long_in_hand,
    _torn,
    _poison,
    _drops,
    None,
    _state,
    _events,
)
