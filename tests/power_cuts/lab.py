"""The power-cut lab: real programs on real file systems, on a disk that logs, cut off at any moment.

    power_cuts.lab record SCENE FILESYSTEM DIRECTORY    into an empty directory
    power_cuts.lab check DIRECTORY COUNT SEED DRAINED UNTIL [NUMBER]
                                                        prints a JSON object for each finding, and one more
    power_cuts.lab image DIRECTORY COUNT SEED NUMBER FILE    what the disk had after one of these cuts

Each runs as root in namespaces of its own (`in_namespaces`): its mounts, its loop devices and whatever it
started are gone when it ends, however it ends. No other program has its ports, and its boot clock is new.
"""

import json
import shutil
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from testbed.filesystem import FILE_SYSTEMS
from testbed.modules import module_command
from testbed.tools import program
from testbed.write_log_disk import WriteLogDisk

from power_cuts.books import Books
from power_cuts.image import Cut, Recording, copy
from power_cuts.mail import have_runs_loaded
from power_cuts.scenes import SCENES

WORK = Path("/mnt")
"""Where the lab's own file system in memory is mounted, in its namespace."""
_TICK = 0.05
_STANDSTILL = 0.1
_SHORT = 0.01
"""Seconds of waiting in a tick that are as good as nothing."""
_EVERY = 20
_JUST_BOOTED = 60
"""Seconds."""
_KEPT_IMAGES = 5
"""Of one recording; the others can be made again, for the draw is the seed's."""


def in_namespaces(*arguments: str) -> list[str]:
    """The command line that runs this lab, and ends it with the process that started it."""
    # Booted a moment ago, by the clock that the programs count by: on a machine that is up for days, a day's
    # allowance that was used before the cut would count as used days ago.
    booted = f"--boottime={_JUST_BOOTED - int(time.clock_gettime(time.CLOCK_BOOTTIME))}"
    flags = ("--mount", "--net", "--pid", "--time", booted, "--fork", "--kill-child", "--mount-proc")
    # Not before other work: the kernel's threads that serve the disk would come last, and syncs take seconds.
    unshare = (program("setpriv"), "--pdeathsig", "KILL", program("unshare"), *flags)
    return [*unshare, *module_command("power_cuts.lab", *arguments)]


def record(scene_name: str, system_name: str, directory: Path) -> None:
    """Play a scene on a new disk, and leave `base`, `log`, `books` and what the programs printed."""
    scene, system = SCENES[scene_name], FILE_SYSTEMS[system_name]
    (directory / "kind").write_text(f"{scene.name}\n{system.name}\n")
    image = WORK / "image"
    system.create(image)
    copy(image, directory / "base")
    with _in_memory(directory) as beside:
        books = Books(beside / "books")
        at = WORK / "log-disk"
        at.mkdir()
        with (
            WriteLogDisk(at, image) as disk,
            system.mounted(disk.device, WORK / "disk") as mount,
            _watching_time(books),
        ):
            scene.play(mount, beside, books)
    copy(disk.log, directory / "log")


@contextmanager
def _in_memory(directory: Path) -> Iterator[Path]:
    """Give an empty directory in memory, whose files are put into another in the end.

    Whoever writes while a scene is played writes to memory. On a machine whose own disk stood still for six
    seconds, a destination that noted a delivery gave its 250 so much later, and the programs were blamed.
    """
    beside = WORK / "beside"
    beside.mkdir()
    try:
        yield beside
    finally:
        subprocess.run(["cp", "-a", f"{beside}/.", str(directory)], check=True)


@contextmanager
def _watching_time(books: Books) -> Iterator[None]:
    """Note when the machine stands still, or has no processor for the programs: neither is their doing."""
    stop = threading.Event()

    def tick() -> None:
        last, waited = time.monotonic(), _waited()
        while not stop.wait(_TICK):
            now, before, waited = time.monotonic(), waited, _waited()
            seconds = sum(each - before.get(task, 0.0) for task, each in waited.items())
            if now - last > _STANDSTILL or seconds > now - last:
                seconds = now - last
            if seconds > _SHORT:
                books.note("late", seconds=seconds)
            last = now

    thread = threading.Thread(target=tick)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _waited() -> dict[str, float]:
    """For how many seconds each thread of this namespace was ready to run, and no processor was free."""
    waited = {}
    for file in Path("/proc").glob("[0-9]*/task/*/schedstat"):
        with suppress(OSError):
            waited[str(file)] = int(file.read_text().split()[1]) / 1e9
    return waited


def check(
    directory: Path, count: int, seed: int, drained: int, until: float, only: int | None = None
) -> None:
    """Make the images of so many cuts, or of one of them, and judge what is there.

    On at most `drained` of them the programs are started, and what they make of it is judged, too: the first
    of each shape, those with a broken promise, and one in `_EVERY`. None is begun after `until`, on
    CLOCK_MONOTONIC.
    """
    recording = Recording(directory)
    # Another boot than the recording's.
    (WORK / "boot").write_text(f"{uuid.uuid4()}\n")
    boot = Path("/proc/sys/kernel/random/boot_id")
    subprocess.run([program("mount"), "--bind", str(WORK / "boot"), str(boot)], check=True)
    have_runs_loaded()
    cuts = [cut for cut in recording.cuts(count, seed) if only in {None, cut.number}]
    shapes: set[str] = set()
    drains = judged = 0
    for cut in cuts:
        if time.monotonic() > until:
            break
        judged += 1
        drains += _check(recording, cut, shapes, may_drain=drains < drained)
    _say(cuts=judged, drained=drains, until=recording.span[1] - recording.span[0])


def _check(recording: Recording, cut: Cut, shapes: set[str], *, may_drain: bool) -> bool:
    """Judge one image; says whether programs were started on it."""
    scene_name, system_name = (recording.directory / "kind").read_text().splitlines()
    scene, system = SCENES[scene_name], FILE_SYSTEMS[system_name]
    work = WORK / f"cut-{cut.number}"
    work.mkdir()
    image = work / "image"
    evidence = recording.directory / "evidence" / f"cut-{cut.number}"
    recording.build(cut, image)
    system.repair(image)
    with system.mounted(image, WORK / "disk") as mount:
        standing = scene.walk(mount, cut, recording.events)
        findings, printed = standing.findings, ""
        is_worth_it = findings or standing.shape not in shapes or cut.number % _EVERY == 0
        if is_drained := bool(may_drain and is_worth_it):
            shapes.add(standing.shape)
            further, printed = scene.examine(mount, work, cut, recording.events)
            findings = [*findings, *further]
        if findings:
            shutil.rmtree(evidence, ignore_errors=True)
            evidence.mkdir(parents=True)
            subprocess.run(["cp", "-a", str(mount), str(evidence / "files")], check=True)
    image.unlink()
    shutil.rmtree(work)
    if not findings:
        return is_drained
    if len(list(evidence.parent.glob("*/image"))) < _KEPT_IMAGES:
        recording.build(cut, evidence / "image")
    when = f"cut {cut.number} at {cut.at - recording.span[0]:.3f} s"
    said = f"{system.name}, {scene.name}, {when} ({cut.how} kept of what was written since the last flush)"
    stories = [f"{said}: {finding.kind}: {finding.story}" for finding in findings]
    (evidence / "story").write_text("\n".join([*stories, "", printed]))
    for finding, story in zip(findings, stories, strict=True):
        _say(kind=finding.kind, story=story, evidence=str(evidence))
    return is_drained


def _say(**values: object) -> None:
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()


def _main(verb: str, *arguments: str) -> None:
    subprocess.run([program("ip"), "link", "set", "lo", "up"], check=True)
    # libfaketime names its shared memory after a process id, and each lab counts these from 1.
    for directory in (WORK, "/dev/shm"):
        subprocess.run([program("mount"), "-t", "tmpfs", "power-cut", str(directory)], check=True)
    if verb == "record":
        scene, system, directory = arguments
        record(scene, system, Path(directory))
    elif verb == "image":
        directory, count, seed, number, image = arguments
        recording = Recording(Path(directory))
        recording.build(recording.cuts(int(count), int(seed))[int(number)], Path(image))
    else:
        directory, count, seed, drained, until, *only = arguments
        check(Path(directory), int(count), int(seed), int(drained), float(until), *map(int, only))


if __name__ == "__main__":
    _main(*sys.argv[1:])
