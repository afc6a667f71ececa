"""Grammar rows: they match a thing and a state in any words that the lexicon has for them.

They come after all phrases, and match replies with phrases that have never been seen. Rows about ourselves
come first; a row about the recipient or the mail matches only if nothing of ours is named.
"""

from mailer.send.replies.lexicon import COMPLAINTS
from mailer.send.replies.reading import About
from mailer.send.replies.row import CONTENT, DATA, RECIPIENT, SENDER, UNKNOWN, Row

_OURS = (
    "login, relay, hello, our host, ip address, ill fame, encryption, connection, allowance, account, proof"
)
_OUR_ADDRESS = "our host, ip address, hello"
_TO_RECIPIENT = RECIPIENT | CONTENT | UNKNOWN
_NOT_SYNTAX = r"4\d\d|5[1-9]\d"
"""Without 501 and other 50z: the domain may be that of EHLO, which some servers refuse only at this point."""
_SOURCE = "Servers of all kinds, in words of their own"

_PACE = "We send more mail, or send faster, than the server accepts from us."
_UNPROVEN = "SPF, DKIM or DMARC fail for mail from here; another hop may sign, or be in the SPF record."
_SENDER = "This account may not send as this sender; another provider may allow it."
_NO_SENDER = "The sender's address does not exist."
_FORM = "The mail's form is refused."
_NOBODY = "The recipient does not exist, or accepts no mail."
_FAULT = "The server is faulty or overloaded; another one may accept the mail."
_COMMANDS = "The server rejects our commands."

OURS = (
    Row(About.DESTINATION, thing="greylisting",
        reason="Greylisting: the server accepts the mail later.", source=_SOURCE),
    Row(About.SENDER, thing="proof", here=True,
        reason=_UNPROVEN, source=_SOURCE),
    Row(About.SENDER, thing="signature", state=COMPLAINTS, without="content", here=True,
        reason=_UNPROVEN, source=_SOURCE),
    Row(About.SENDER, thing="address, email, domain, sender", state="unverified", here=True,
        phases=SENDER | CONTENT, reason=_SENDER, source=_SOURCE),
    Row(About.SENDER, thing="login, account", state="mismatch", here=True,
        reason=_SENDER, source=_SOURCE),
    Row(About.MESSAGE, thing="content, form, attachment", state="listed", phases=CONTENT,
        without=_OUR_ADDRESS, reason="The mail contains something that is on a blocklist.", source=_SOURCE),
    Row(About.RECIPIENT, thing="recipient, mailbox", state="listed", phases=RECIPIENT, here=True,
        without=f"sender, domain, {_OUR_ADDRESS}",
        reason="The recipient is on a suppression list of the hop.", source=_SOURCE),
    Row(About.SENDER, thing="sender, domain", state="listed", here=True, without=_OUR_ADDRESS,
        reason="The sender, or its domain, is on a blocklist.", source=_SOURCE),
    Row(About.SESSION, thing="listed",
        reason="Our address is on a blocklist, so every mail would be refused.", source=_SOURCE),
    Row(About.SESSION, thing="hello", state=COMPLAINTS,
        reason="Our name in EHLO (`hostname`) is refused.", source=_SOURCE),
    Row(About.QUOTA, thing="allowance", state="full, too much", without="mailbox, size", pause=600.0,
        reason=_PACE, source=_SOURCE),
    Row(About.ACCOUNT, thing="login", state=COMPLAINTS, without="attachment",
        reason="Our login is missing or refused.", source=_SOURCE),
    Row(About.SESSION, thing="ill fame", without="domain",
        reason="Our address is refused, or its reputation is bad.", source=_SOURCE),
    Row(About.SENDER, thing="ill fame", here=True,
        reason="The sender's domain has a bad reputation there.", source=_SOURCE),
    Row(About.ACCOUNT, thing="relay", state=COMPLAINTS,
        reason="The server does not relay for our account.", source=_SOURCE),
    Row(About.SESSION, thing="connection", state="full, refused, banned, too much, broken",
        reason="Our session, or the number of our sessions, is refused.", source=_SOURCE),
    Row(About.TRANSACTION, thing="recipients", state="full, too much", without="mailbox, proof",
        phases=RECIPIENT | CONTENT,
        reason="Too many recipients for one transaction; the others are sent in another.", source=_SOURCE),
    Row(About.QUOTA, thing="message", state="too much",
        without="mailbox, size, recipient, user, content, form, loop, server", pause=600.0,
        reason=_PACE, source=_SOURCE),
    Row(About.SESSION, thing="our host, ip address", state=COMPLAINTS,
        reason="Our host is refused, so every mail would be refused.", source=_SOURCE),
    Row(About.HOST, thing="encryption", state="broken, unsupported, unknown",
        reason="The server's TLS does not work.", source=_SOURCE),
    Row(About.SESSION, thing="encryption", state="required, refused, banned",
        reason="The server accepts mail over TLS only.", source=_SOURCE),
    Row(About.ACCOUNT, thing="account", state="unknown, disabled, refused, banned, full, required",
        phases=SENDER | CONTENT,
        reason="Our account there may not do this, so every mail would be refused.", source=_SOURCE),
)  # fmt: skip

THEIRS = (
    Row(About.HOST, thing="recipient, recipients, sender, command", state="unknown, required", phases=DATA,
        without="content", reason=_COMMANDS, source=_SOURCE),
    Row(About.HOST, thing="recipient, recipients, address, sender, command", state="unknown, required",
        codes="503", without=_OURS, reason=_COMMANDS, source="RFC 5321 4.2.4: 503 Bad sequence of commands"),
    Row(About.HOST, thing="server", state="broken, full, too much, disabled", without="mailbox, content",
        reason=_FAULT, source=_SOURCE),
    Row(About.DESTINATION, thing="mailbox, recipient, user, address, domain", state="broken", codes=r"4\d\d",
        phases=RECIPIENT, without=f"sender, {_OURS}",
        reason="The recipient's mailbox or domain has a temporary fault.", source=_SOURCE),
    Row(About.MESSAGE, thing="content", phases=CONTENT, without=_OURS,
        reason="The mail's content is refused.", source=_SOURCE),
    Row(About.MESSAGE, thing="form", state=COMPLAINTS, phases=CONTENT, without=_OURS,
        reason=_FORM, source=_SOURCE),
    Row(About.MESSAGE, thing="attachment", state="unknown, refused, banned, unsupported, full, too much",
        phases=CONTENT, without=_OURS,
        reason="An attachment is refused.", source=_SOURCE),
    Row(About.MESSAGE, thing="utf8", state=COMPLAINTS, phases=SENDER | RECIPIENT | CONTENT, here=True,
        reason="The server does not accept addresses with non-ASCII characters (RFC 6531).", source=_SOURCE),
    Row(About.HOST, thing="command", state=COMPLAINTS, without=f"sender, recipient, address, {_OURS}",
        reason=_COMMANDS, source=_SOURCE),
    Row(About.MESSAGE, thing="loop", phases=CONTENT, without=_OURS,
        reason="The mail is in a loop.", source=_SOURCE),
    Row(About.MESSAGE, thing="size", state="full, too much", here=True, without=f"mailbox, {_OURS}",
        reason="The mail, or a part of it, is larger than this hop accepts.", source=_SOURCE),
    Row(About.SENDER, thing="sender", state="refused, banned, mismatch, disabled, broken", here=True,
        reason="This sender is refused there.", source=_SOURCE),
    Row(About.MESSAGE, thing="sender", state="unknown, required", phases=CONTENT, bare=True, here=True,
        without=_OURS, reason="From is refused; it may be valid at another hop.", source=_SOURCE),
    Row(About.MESSAGE, thing="sender", state="unknown, required", without=_OURS,
        reason=_NO_SENDER, source=_SOURCE),
    Row(About.MESSAGE, thing="address, email, path, user", state="unknown, required", phases=SENDER,
        without=f"policy, {_OURS}", reason=_NO_SENDER, source=_SOURCE),
    Row(About.MESSAGE, thing="domain", state="unknown, required", phases=SENDER, codes=_NOT_SYNTAX,
        without=f"policy, {_OURS}", reason=_NO_SENDER, source=_SOURCE),
    Row(About.SENDER, thing="domain, address, path", state="refused, banned, disabled", here=True,
        phases=SENDER, reason="This sender is refused there.", source=_SOURCE),
    Row(About.RECIPIENT, thing="mailbox, recipient, recipients",
        state="unknown, disabled, full, refused, banned", phases=_TO_RECIPIENT,
        without=f"sender, policy, content, {_OURS}", reason=_NOBODY, source=_SOURCE),
    Row(About.RECIPIENT, thing="user", state="unknown, full", phases=_TO_RECIPIENT,
        without=f"sender, policy, content, {_OURS}", reason=_NOBODY, source=_SOURCE),
    Row(About.RECIPIENT, thing="user", state="disabled", phases=RECIPIENT,
        without=f"sender, policy, content, {_OURS}", reason=_NOBODY, source=_SOURCE),
    Row(About.RECIPIENT, thing="address", state="unknown, disabled, refused, required", phases=RECIPIENT,
        without=f"sender, policy, content, {_OURS}", reason=_NOBODY, source=_SOURCE),
    Row(About.RECIPIENT, thing="path, email", state="unknown, disabled, full", phases=RECIPIENT,
        without=f"sender, policy, content, {_OURS}", reason=_NOBODY, source=_SOURCE),
    Row(About.RECIPIENT, thing="domain", state="unknown", phases=RECIPIENT, codes=_NOT_SYNTAX,
        without=f"sender, policy, content, {_OURS}", reason=_NOBODY, source=_SOURCE),
    Row(About.HOST, thing="message", state="broken", phases=CONTENT, without=f"content, {_OURS}",
        reason=_FAULT, source=_SOURCE),
    Row(About.MESSAGE, thing="message", state="unknown, unsupported", phases=CONTENT,
        without=f"server, policy, {_OURS}", reason=_FORM, source=_SOURCE),
)  # fmt: skip
