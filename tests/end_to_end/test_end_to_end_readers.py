"""What lies in the spool can be read by programs that know nothing of mailer."""

import email
import email.policy
import mailbox
from email.message import EmailMessage
from pathlib import Path

import pytest
from outbound.real_mail import Mail, hard_mail, python_corpus, submit
from outbound.sending import forward_to
from spools.walk import walk
from testbed.arrival import as_taken
from testbed.mutt import Mutt
from testbed.relay import USERNAME, Relay

SUBJECTS = ("first", "second", "third")
_BLOCK = ("Spool-Format", "Spool-Id", "Spool-Received", "Spool-User", "Spool-Peer", "Spool-Sender")


def plain(subject: str) -> Mail:
    header = f"From: <app@example.com>\r\nTo: <bob@example.net>\r\nSubject: {subject}\r\n"
    return Mail((f"{subject}@example.net",), f"{header}\r\nThis is the {subject}.\r\n".encode())


def accept(relay: Relay, mails: list[Mail]) -> None:
    with relay.serve(), relay.connect() as client:
        for mail in mails:
            submit(client, mail)


def files(directory: Path) -> dict[Path, bytes]:
    return {path.relative_to(directory): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_mutt_lists_and_reads_the_local_maildir_and_changes_nothing(relay: Relay, tmp_path: Path) -> None:
    """As the README's `mutt -R -f spool/local`."""
    accept(relay, [plain(subject) for subject in SUBJECTS])
    assert relay.mailer_send("--once").returncode == 0
    maildir = relay.spool / "local"
    before = files(maildir)
    with Mutt(maildir, tmp_path) as mutt:
        mutt.await_subjects(*SUBJECTS)
        read = mutt.read_all()
        assert mutt.quit() == 0
    for subject in SUBJECTS:
        assert f"Subject: {subject}\n\nThis is the {subject}.\n".encode() in read
    assert files(maildir) == before


def test_pythons_mailbox_reads_the_local_maildir(relay: Relay) -> None:
    mails = python_corpus() + hard_mail()
    accept(relay, mails)
    assert relay.mailer_send("--once").returncode == 0
    maildir = mailbox.Maildir(relay.spool / "local", create=False)
    kept = {message["Delivered-To"]: message for message in maildir}
    assert len(maildir) == len(mails)
    for mail in mails:
        message = kept[mail.recipients[0]]
        # Some of the corpus were delivered before: what they bring stands below ours.
        assert tuple(message.get_all("Delivered-To", [])[: len(mail.recipients)]) == mail.recipients
        assert message["Return-Path"] == f"<{mail.sender}>"
        assert message.get_subdir() == "new"


@pytest.mark.parametrize("place", ["new", "retry"])
def test_a_spool_file_is_a_message_to_any_parser(place: str, relay: Relay, free_port: int) -> None:
    """RFC 5322: the block's fields, then those of the message, in their order, and its body."""
    mails = python_corpus()
    accept(relay, mails)
    if place == "retry":
        relay.configure(forward_to(free_port))
        assert relay.mailer_send("--once").returncode == 0
    found = walk(relay.spool, (place,))
    assert len(found) == len(mails)
    of = {mail.recipients: mail for mail in mails}
    for file in filter(Path.is_file, (relay.spool / place).rglob("*")):
        mail = of[found[file.name].recipients]
        whole = parse(file.read_bytes())
        kept = parse(as_taken(mail.message))
        added = [name for name in ("Message-ID", "Date") if name not in kept]
        fields = [*_BLOCK, "Spool-Recipient", "Spool-Length", "Received", *added, *kept]
        assert [name for name in whole if name != "Spool-Options"] == fields
        assert whole["Spool-Id"] == file.name
        assert whole["Spool-User"] == USERNAME
        assert whole["Spool-Sender"] == f"<{mail.sender}>"
        assert whole["Spool-Recipient"] == f"<{mail.recipients[0]}>"


def parse(message: bytes) -> EmailMessage:
    return email.message_from_bytes(message, policy=email.policy.SMTP)
