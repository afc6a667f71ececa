"""The story that a number stands for: of any kind, or with more of what seldom meets by chance."""

from dataclasses import replace
from hashlib import sha256
from itertools import count
from random import Random

from lab.disk import PROFILES
from lab.hops import CUT, DEADLY, DOWN, LATER, LOST, REFUSED, SENT
from lab.story import LATER_RUN, Command, Fault, Jump, Kill, Mail, Plant, Story

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
    # Some runs before the pause is over: nothing is tried at these.
    early = tuple(random.uniform(600.0, 660.0) for _ in range(random.choice((0, 3))))
    return replace(story, runners=(*story.runners, *early, LATER_RUN), rot=False)


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


def _scheduled_keys(story: Story, random: Random) -> Story:
    """The same, and the sender names a time."""
    mails = tuple(
        replace(mail, wait=random.uniform(5, 3000)) if random.random() < 0.4 else mail for mail in story.mails
    )
    return _keys(replace(story, mails=mails), random)


def _allowances(story: Story, random: Random) -> Story:
    """The hop allows so many recipients in a window, or so many sessions at a time."""
    begun, most = random.uniform(0.0, 1.0), random.choice((1, 2, 2))
    kind = random.choice(("minute", "hour", "hour", "sessions"))
    mails = [
        replace(mail, recipients=mail.recipients[:2], after=random.uniform(0.0, begun))
        for mail in story.mails[:3]
    ]
    if len(mails) == 1:
        mails.append(replace(mails[0], token="m2", after=random.uniform(0.0, begun)))
    return replace(
        story,
        mails=tuple(mails),
        per_minute=most if kind == "minute" else 0,
        per_hour=most if kind == "hour" else 0,
        sessions=1 if kind == "sessions" or random.random() < 0.3 else 0,
        runners=(*story.runners[:1], begun, begun + random.uniform(0.0, 0.003)),
        pace=random.choice((0.0, 0.3, 2.0)) if kind != "sessions" else 2.0,
        eagerness=random.choice((0.03, 0.1, 0.4)),
        commands=(),
        faults=(),
        rot=False,
    )


def _clocks(story: Story, random: Random) -> Story:
    """The wall clock jumps, and is put right."""
    by = random.choices((10 * _YEAR, -_YEAR, 40 * _DAY, 7200.0, -7200.0, 300.0), (4, 2, 2, 1, 1, 1), k=2)
    jumps = tuple(
        Jump(random.uniform(0.0, 2.0), one, random.choice((0.5, 60.0, 4000.0)))
        for one in by[: random.choice((1, 1, 2))]
    )
    answers = tuple(
        (token, to, (random.choice((LATER, DOWN)), *given) if random.random() < 0.7 else given)
        for token, to, given in story.answers
    )
    runners = (*story.runners, random.uniform(0.0, 3.0), random.uniform(3.0, 600.0), LATER_RUN)
    story = replace(story, jumps=jumps, answers=answers, runners=runners, faults=(), rot=False)
    if random.random() < 0.5:
        return story
    # A client hears no reply, and comes again: by a wrong clock its key would be forgotten.
    mails = (replace(story.mails[0], after=0.0, receiver=0, key=True),)
    jumps = (replace(jumps[0], after=random.uniform(0.1, 2.0), lasts=4000.0),)
    kills = (Kill("receiver 0", random.randint(20, 90), 1.0),)
    return replace(story, mails=mails, jumps=jumps, kills=kills)


def _suppressed(story: Story, random: Random) -> Story:
    """Two operators change the suppression list, and look whether the spool is whole."""
    first = [Command("suppress", "", random.uniform(0.0, 1.0), "r1@example.net", by=1)]
    if random.random() < 0.5:
        first.append(Command("suppress", "", random.uniform(0.0, 2.0), "r2@example.net", by=1))
    verbs = random.choices(("suppress", "restore"), k=2)
    other = [Command(verb, "", first[0].after, BESIDE, by=2) for verb in verbs]
    other += [Command("fsck", "", random.uniform(0.0, 3.0), by=3) for _ in range(2)]
    return replace(
        story,
        commands=(*story.commands, *first, *other),
        answers=tuple(
            (t, to, (random.choice((LATER, DOWN)), *a) if random.random() < 0.5 else a)
            for t, to, a in story.answers
        ),
        runners=(*story.runners, 70.0, LATER_RUN),
        eagerness=random.choice((0.1, 0.4)),
        kills=(),
        faults=(),
        rot=False,
    )


def _moves(story: Story, random: Random) -> Story:
    """All mail is moved to another spool while programs send it, and one side of the move dies."""
    last = max(mail.after for mail in story.mails)
    moves = tuple(random.uniform(0.3 * last, last + 0.5) for _ in range(random.choice((1, 1, 2))))
    kills = tuple(
        Kill(
            random.choice(("mover 0", "target 0")), random.randint(20, 250), 1.0, tears=random.random() < 0.3
        )
        for _ in range(random.choice((0, 1, 1)))
    )
    commands = tuple(
        Command(random.choice(("hold", "hold", "release", "retry")), mail.token, random.uniform(0.0, 1.0))
        for mail in story.mails
        if random.random() < 0.4
    )
    answers = tuple(
        (token, to, (random.choice((LATER, DOWN)), *given) if random.random() < 0.5 else given)
        for token, to, given in story.answers
    )
    runners = (*story.runners, LATER_RUN)
    story = replace(story, moves=moves, kills=kills, commands=commands, answers=answers, runners=runners)
    return replace(story, rot=False)


def _replays(story: Story, random: Random) -> Story:
    """The operator sends a message again to somebody else, and asks again if nobody has answered."""
    first = story.mails[0]
    copies = tuple(
        Mail(
            f"p{number}",
            first.sender,
            (f"x{number}@example.net",),
            first.size,
            first.after + random.uniform(0.0, 1.0),
            key=random.random() < 0.6,
            replays=first.token,
        )
        for number in range(1, random.choice((1, 2)) + 1)
    )
    answers = tuple((copy.token, copy.recipients[0], _answers(random)) for copy in copies)
    kills = (Kill("replay 0", random.randint(20, 120), 1.0),) if random.random() < 0.3 else ()
    waits = tuple(
        (t, to, (LATER, *given)) if t == first.token else (t, to, given) for t, to, given in story.answers
    )
    story = replace(story, mails=story.mails + copies, answers=waits + answers, kills=kills, rot=False)
    return replace(story, runners=(*story.runners, LATER_RUN))


_DAY = 86_400.0
_YEAR = 365 * _DAY


def _file_of(address: str) -> str:
    return sha256(address.encode()).hexdigest()[:3]


BESIDE = next(
    address
    for number in count(10)
    if _file_of(address := f"r{number}@example.net") == _file_of("r1@example.net")
)
"""An address that stands in the same file of the suppression list as the first recipient."""

_FIRST = (
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
_OTHERS = {
    2: _scheduled_keys,
    5: _allowances,
    11: _clocks,
    14: _moves,
    19: _suppressed,
    21: _moves,
    22: _allowances,
    25: _clocks,
    26: _replays,
}
"""What others of twice as many numbers have. Seeds that are known by their failures keep their stories."""
_THEMES = tuple(_OTHERS.get(number, theme) for number, theme in enumerate(_FIRST + _FIRST))
