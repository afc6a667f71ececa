"""Hosts that share a directory: epochs, leases, and the takeover of a spool, with times given as values."""

import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from testbed.waiting import until

from mailer.mail.clock import Clocks
from mailer.spool.directory import Spool
from mailer.spool.hosts import epochs
from mailer.spool.hosts.adoption import NotAdoptable, claim, mail_in, release, wait_until_quiet
from mailer.spool.hosts.epochs import Epoch, Grounds, Hosts, Machine, NotJoined, Overtaken, Why, following
from mailer.spool.hosts.lease import (
    LEASE,
    MARGIN,
    RENEW_EVERY,
    Lease,
    NoLease,
    is_draining,
    records,
    required,
    set_draining,
)
from mailer.spool.layout import HOSTS, Place, Spot
from mailer.spool.locked_message import Gone, LockedMessage
from mailer.spool.preparation import SpoolError, is_of_hosts

A, B, C = Machine("a", "a" * 20), Machine("b", "b" * 20), Machine("c", "c" * 20)
WORD = Grounds("ann", "switched off")
NO_WORD = Grounds("ann")


@dataclass
class Uptime:
    """Seconds since boot, as a test wants them."""

    now: float = 1000.0

    def clocks(self, boot: str = "11111111-aaaa") -> Clocks:
        return Clocks(lambda: 1_800_000_000.0 + self.now, lambda: self.now, boot)

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[Hosts]:
    with Hosts.open(tmp_path, create=True) as opened:
        yield opened


@pytest.fixture
def join(hosts: Hosts, tmp_path: Path) -> Callable[[Machine], Spool]:
    def joined(machine: Machine) -> Spool:
        claim(hosts, machine.host, machine, NO_WORD, 0.0, again=True)
        return Spool.open(tmp_path / machine.host, create=True)

    return joined


def lease_of(spool: Spool, machine: Machine, clocks: Clocks) -> Lease:
    assert spool.path.parent
    return Lease(spool, Hosts.open(spool.path.parent), machine, clocks)


def test_no_program_makes_the_directory_of_the_epochs(tmp_path: Path) -> None:
    with pytest.raises(NotJoined, match="is its filesystem mounted"):
        Hosts.open(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_of_two_hosts_that_begin_the_same_epoch_one_gets_it(hosts: Hosts) -> None:
    claim(hosts, "a", A, NO_WORD, 0.0, again=True)
    latest = hosts.latest("a")
    hosts.advance(following(latest, "a", Why.ADOPTED, 0.0, WORD, B))
    with pytest.raises(Overtaken, match="the spool of a was adopted by"):
        hosts.advance(following(latest, "a", Why.ADOPTED, 0.0, WORD, C))
    found = hosts.latest("a")
    assert found is not None
    assert (found.number, found.owner_host) == (2, "b")
    assert sorted(each.name for each in (hosts.shared / HOSTS).iterdir()) == ["a.1", "a.2"], (
        "no draft is left"
    )


def test_a_link_that_the_network_sent_twice_counts_as_made(
    hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def twice(*args: object, **kwargs: object) -> None:
        link(*args, **kwargs)  # type: ignore[arg-type]
        link(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "link", twice)
    made = hosts.advance(following(None, "a", Why.JOINED, 0.0, NO_WORD, A))
    assert hosts.latest("a") == made


@pytest.mark.parametrize("text", [b"", b"{", b'{"host":"b","number":1,"why":"joined"}', b"\xff" * 40, b"[]"])
def test_no_host_gets_a_lease_with_a_damaged_epoch(hosts: Hosts, text: bytes) -> None:
    (hosts.shared / HOSTS / "a.1").write_bytes(text)
    with pytest.raises(SpoolError, match=r"a\.1 is damaged"):
        hosts.latest("a")
    with pytest.raises(SpoolError, match="is damaged"):
        claim(hosts, "a", B, WORD, 0.0)


def test_names_with_dots_and_files_of_others_are_told_apart(hosts: Hosts) -> None:
    for name in ("relay-1.example", "relay-1.example.org"):
        hosts.advance(following(None, name, Why.JOINED, 0.0, NO_WORD, Machine(name, "w")))
    for stray in ("README", ".a.1.123", "x.", "x.y", ".1"):
        (hosts.shared / HOSTS / stray).touch()
    assert hosts.names() == ["relay-1.example", "relay-1.example.org"]


def test_epochs_that_others_could_change_are_not_believed(tmp_path: Path) -> None:
    Hosts.open(tmp_path, create=True).close()
    (tmp_path / HOSTS).chmod(0o770)
    with pytest.raises(SpoolError, match="can be changed by other users"):
        Hosts.open(tmp_path)


def test_a_machine_without_an_id_is_no_host(tmp_path: Path) -> None:
    (tmp_path / "machine-id").write_text("uninitialized\n")
    for path in (tmp_path / "machine-id", tmp_path / "missing"):
        with pytest.raises(SpoolError, match="systemd-machine-id-setup"):
            epochs.this_machine("a", path)


def test_containers_of_one_image_are_different_hosts(tmp_path: Path) -> None:
    (tmp_path / "machine-id").write_text("0123456789abcdef0123456789abcdef\n")
    one, two = (epochs.this_machine(host, tmp_path / "machine-id") for host in "ab")
    assert one.word != two.word
    assert "0123456789abcdef" not in one.word


_CLAIMS = [
    (None, A, NO_WORD, True, "joined"),
    (None, B, WORD, False, "no host a has ever joined"),
    (A, A, NO_WORD, True, "as before"),
    (A, B, NO_WORD, False, "is in use by"),
    (A, B, WORD, False, "adopted"),
    (A, Machine("a", "new"), NO_WORD, True, "is in use by"),
    (A, Machine("a", "new"), WORD, True, "joined"),
    (B, B, NO_WORD, False, "as before"),
    (B, A, WORD, True, "b is taking the spool of a over"),
    (B, C, NO_WORD, False, "is in use by"),
    (B, C, WORD, False, "adopted"),
    ("nobody", A, NO_WORD, True, "joined"),
    ("nobody", C, NO_WORD, False, "adopted"),
]
"""The owner now, the claimant, the evidence, whether it joins as that host, and what happens."""


@pytest.mark.parametrize(("owner", "claimant", "grounds", "again", "then"), _CLAIMS)
def test_who_may_take_a_spool(
    hosts: Hosts, owner: Machine | str | None, claimant: Machine, grounds: Grounds, *, again: bool, then: str
) -> None:
    before: Epoch | None = None
    if owner is not None:
        why = {A: Why.JOINED, B: Why.ADOPTED}.get(owner, Why.LEFT)  # type: ignore[call-overload]
        machine = owner if isinstance(owner, Machine) else None
        before = hosts.advance(following(None, "a", why, 0.0, NO_WORD, machine))
    if then in {"joined", "adopted", "as before"}:
        epoch = claim(hosts, "a", claimant, grounds, 0.0, again=again)
        assert epoch.is_of(claimant)
        assert (epoch == before) == (then == "as before")
        assert then in {epoch.why, "as before"}
        assert hosts.latest("a") == epoch
    else:
        with pytest.raises(NotAdoptable, match=then):
            claim(hosts, "a", claimant, grounds, 0.0, again=again)
        assert hosts.latest("a") == before


def test_a_lease_counts_from_the_beginning_of_the_look(join: Callable[[Machine], Spool]) -> None:
    time = Uptime()
    with join(A) as spool:
        lease = lease_of(spool, A, time.clocks())
        with pytest.raises(NoLease, match="has not been taken yet"):
            lease.check()
        lease.renew()
        lease.check()
        time.now += LEASE - 0.001
        lease.check()
        time.now += 0.001
        with pytest.raises(NoLease, match="has ended") as found:
            lease.check()
        assert found.value.errno is not None
        lease.renew()
        lease.check()


def test_a_slow_look_is_good_for_less(
    join: Callable[[Machine], Spool], monkeypatch: pytest.MonkeyPatch
) -> None:
    time = Uptime()
    with join(A) as spool:
        lease = lease_of(spool, A, time.clocks())
        monkeypatch.setattr(os, "fsync", lambda _: time.sleep(20.0))
        lease.renew()
        time.now += LEASE - 20.0 - 0.001
        lease.check()
        time.now += 0.001
        with pytest.raises(NoLease):
            lease.check()


def test_a_look_that_cannot_write_renews_nothing(
    join: Callable[[Machine], Spool], monkeypatch: pytest.MonkeyPatch
) -> None:
    time = Uptime()
    with join(A) as spool:
        lease = lease_of(spool, A, time.clocks())
        lease.renew()

        def broken(_: int) -> None:
            raise OSError(108, "Cannot send after transport endpoint shutdown")

        monkeypatch.setattr(os, "fsync", broken)
        time.now += LEASE - 1
        with pytest.raises(OSError, match="endpoint shutdown"):
            lease.renew()
        lease.check()
        time.now += 1
        with pytest.raises(NoLease):
            lease.check()
        assert not lease.lost


def test_a_host_that_has_lost_its_epoch_gets_no_lease_again(
    hosts: Hosts, join: Callable[[Machine], Spool]
) -> None:
    time = Uptime()
    with join(A) as spool:
        lease = lease_of(spool, A, time.clocks())
        lease.renew()
        claim(hosts, "a", B, WORD, 0.0)
        with pytest.raises(NoLease, match="was taken over by b"):
            lease.renew()
        with pytest.raises(NoLease, match="was taken over by b"):
            lease.check()
        with pytest.raises(NoLease, match="was taken over by b"):
            required(hosts, A, spool.path)


def test_the_new_owner_waits_for_longer_than_any_lease_lasts(
    hosts: Hosts, join: Callable[[Machine], Spool]
) -> None:
    """Whenever the old host last looked, it has stopped when the new one begins."""
    for before in (0.0, 0.1, RENEW_EVERY, LEASE - 0.1):
        time = Uptime()
        with join(A) as spool:
            lease = lease_of(spool, A, time.clocks())
            lease.renew()
            time.now += before
            epoch = claim(hosts, "a", B, WORD, 0.0)
            list(wait_until_quiet(spool, time.clocks(), time.sleep))
            with pytest.raises(NoLease):
                lease.check()
            release(hosts, epoch, "ann", 0.0)


def test_a_program_that_goes_on_renewing_keeps_the_new_owner_out(join: Callable[[Machine], Spool]) -> None:
    time = Uptime()
    with join(A) as spool:
        lease = lease_of(spool, A, time.clocks())

        def sleep(seconds: float) -> None:
            time.now += seconds
            lease.renew()  # It sees no new epoch, as if out of a cache.

        with pytest.raises(NotAdoptable, match="still renews its lease"):
            list(wait_until_quiet(spool, time.clocks(), sleep))


def test_a_program_that_stops_within_its_lease_does_not(join: Callable[[Machine], Spool]) -> None:
    time = Uptime()
    with join(A) as spool:
        lease = lease_of(spool, A, time.clocks())
        end = time.now + LEASE - RENEW_EVERY

        def sleep(seconds: float) -> None:
            time.now += seconds
            if time.now < end:
                lease.renew()

        left = list(wait_until_quiet(spool, time.clocks(), sleep))
        assert left[0] == pytest.approx(LEASE + MARGIN)
        assert left == sorted(left, reverse=True)


def descriptors() -> list[Path]:
    """The open files of this process."""
    return sorted(Path("/proc/self/fd").iterdir())


def test_a_lease_that_was_lost_is_ended_once_and_closes_no_file_of_others(
    hosts: Hosts, join: Callable[[Machine], Spool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The program ends it, and then closes the spool, which ends it, too."""
    monkeypatch.setattr("mailer.spool.hosts.lease.RENEW_EVERY", 0.01)
    with join(A) as spool:
        opened = descriptors()
        lease = lease_of(spool, A, Uptime().clocks())
        lease.renew()
        spool.lease = lease
        claim(hosts, "a", B, WORD, 0.0)
        lost = threading.Event()
        lease.keep(lambda _: lost.set())
        assert lost.wait(60)
        until(lambda: descriptors() == opened, "the thread to close what it used")
        with (spool.path / "others").open("w"):
            lease.end()
            lease.end()
            assert len(descriptors()) == len(opened) + 1


def test_a_host_that_takes_a_spool_over_holds_a_lease_there(
    hosts: Hosts, join: Callable[[Machine], Spool]
) -> None:
    """So it stops before a third one begins; and it refuses nothing because the dead host was drained."""
    time = Uptime()
    with join(A) as spool:
        set_draining(spool, wanted=True)
        claim(hosts, "a", B, WORD, 0.0)
        lease = Lease(spool, Hosts.open(spool.path.parent), B, time.clocks(), "a")
        lease.renew()
        lease.check()
        assert not lease.draining
        claim(hosts, "a", C, WORD, 0.0)
        with pytest.raises(NoLease, match="was taken over by c"):
            lease.renew()
        assert [name for name, _ in records(spool)] == ["lease-11111111"]
        lease.forget()
        assert list(records(spool)) == []


def test_without_a_lease_no_message_is_locked(join: Callable[[Machine], Spool]) -> None:
    """A lock may mean nothing to the host that has the spool now."""
    time = Uptime()
    with join(A) as spool:
        spool.lease = lease = lease_of(spool, A, time.clocks())
        lease.renew()
        with pytest.raises(Gone):
            LockedMessage.lock(spool, Spot(Place.NEW, "01"))
        time.now += LEASE
        with pytest.raises(NoLease, match="has ended"):
            LockedMessage.lock(spool, Spot(Place.NEW, "01"))


def test_a_cloned_machine_is_noticed_by_both(join: Callable[[Machine], Spool]) -> None:
    time = Uptime()
    with join(A) as spool:
        one = lease_of(spool, A, time.clocks("11111111-aaaa"))
        other = lease_of(spool, A, time.clocks("22222222-bbbb"))
        one.renew()
        other.renew()  # It may be the same machine after a reboot.
        time.now += RENEW_EVERY
        one.renew()
        time.now += RENEW_EVERY
        for lease in (other, one):
            with pytest.raises(NoLease, match="another machine with the same id"):
                lease.renew()
            with pytest.raises(NoLease, match="another machine with the same id"):
                lease.check()


def test_a_reboot_is_no_clone_and_its_record_goes(join: Callable[[Machine], Spool]) -> None:
    time = Uptime()
    with join(A) as spool:
        lease_of(spool, A, time.clocks("11111111-aaaa")).renew()
        lease = lease_of(spool, A, time.clocks("22222222-bbbb"))
        for _ in range(40):
            time.now += RENEW_EVERY
            lease.renew()
        assert [name for name, _ in records(spool)] == ["lease-22222222"]


def test_programs_of_one_boot_share_a_record(join: Callable[[Machine], Spool]) -> None:
    time = Uptime()
    with join(A) as spool:
        leases = [lease_of(spool, A, time.clocks()) for _ in range(3)]
        for _ in range(3):
            for lease in leases:
                time.now += 1
                lease.renew()
        assert [name for name, _ in records(spool)] == ["lease-11111111"]


def test_draining_is_seen_by_the_next_look(join: Callable[[Machine], Spool]) -> None:
    time = Uptime()
    with join(A) as spool:
        lease = lease_of(spool, A, time.clocks())
        lease.renew()
        assert not lease.draining
        assert set_draining(spool, wanted=True)
        assert not set_draining(spool, wanted=True)
        assert is_draining(spool)
        lease.renew()
        assert lease.draining
        assert set_draining(spool, wanted=False)
        lease.renew()
        assert not lease.draining


def test_a_spool_knows_whether_it_is_one_of_several(join: Callable[[Machine], Spool], tmp_path: Path) -> None:
    with join(A) as spool, Spool.open(tmp_path / "a" / "tmp" / "alone", create=True) as alone:
        assert is_of_hosts(spool.root)
        assert not is_of_hosts(alone.root)
        assert mail_in(spool) == 0


def test_a_filesystem_that_hangs_holds_up_no_other_spool(
    join: Callable[[Machine], Spool], monkeypatch: pytest.MonkeyPatch
) -> None:
    with join(A) as spool:
        hung, there = Spool.open_unchecked(spool.path), Spool.open_unchecked(spool.path)
        began, ends, stat = threading.Event(), threading.Event(), os.stat

        def hanging(*args: Any, **kwargs: Any) -> os.stat_result:
            if kwargs.get("dir_fd") == hung.root:
                began.set()
                assert ends.wait(60)
            return stat(*args, **kwargs)

        monkeypatch.setattr(os, "stat", hanging)
        asking = [threading.Thread(target=lambda each=each: each.is_shared) for each in (hung, there)]
        asking[0].start()
        assert began.wait(60)
        asking[1].start()
        asking[1].join(10)
        answered = not asking[1].is_alive()
        ends.set()
        for each in asking:
            each.join()
        hung.close()
        there.close()
    assert answered
