"""What is checked of a drop's form before it is left: nothing that a receiver takes is refused."""

import os
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mailer.receive.settings import Settings
from mailer.receive.smtp.transaction import Transaction
from mailer.sendmail import session
from mailer.sendmail.syntax import wrong_address, wrong_parameters

PARTS = [
    "a", "B-9", ".", "@", "b.example", "@b.example", '"', "\\", "[192.0.2.1]", "[IPv6:::1]", "%", " ", "_",
    "-", ",", ":", "xn--e1afmkfd", "\xfc", "\u3002", "\ud800", "<", ">", "x" * 60, "\x7f",
]  # fmt: skip
ADDRESSES = st.lists(st.sampled_from(PARTS), max_size=8).map("".join)
MAIL = [
    " SIZE=1", " SIZE=-1", " size=9", " BODY=8BITMIME", " BODY=x", " RET=full", " RET=x", " ENVID=a+2B",
    " ENVID=+", " AUTH=<>", " AUTH=a@x", " SMTPUTF8", " SMTPUTF8=1", " BODY", " ENVID=" + "x" * 101,
]  # fmt: skip
RCPT = [
    " NOTIFY=NEVER", " NOTIFY=success,DELAY", " NOTIFY=BOGUS", " NOTIFY=DELAY,DELAY", " NOTIFY=NEVER,DELAY",
    " NOTIFY", " ORCPT=rfc822;a@x", " ORCPT=x", " ORCPT=utf-8;\xfc@x", " ORCPT=rfc822;" + "x" * 500,
]  # fmt: skip


def taken_by_receiver(mail: str, rcpt: str = "TO:<a@b.example>") -> bool:
    """Tell whether a receiver takes these arguments of MAIL and RCPT at `submitSocket`."""
    settings: Any = Settings(port=0)
    transaction = Transaction(settings, names=True)
    begun = transaction.begin(mail, 0, extended=True)
    return begun.positive and transaction.add_recipient(rcpt, extended=True).positive


class Client(session.Session):
    """One that is asked without a connection."""

    def __init__(self) -> None:
        super().__init__(-1, -1, "")

    def takes(self, mail: str, rcpt: str = "TO:<a@b.example>") -> bool:
        return all(
            self._answer(os.fsencode(f"{line}\r\n"))[0] == "2" for line in (f"MAIL {mail}", f"RCPT {rcpt}")
        )


@given(ADDRESSES)
@example("a@b.example.")
@example("a@[192.0.2.1].")
@example(f"{'x' * 64}@{'y' * 63}.{'y' * 63}.{'y' * 61}")
def test_an_address_that_a_receiver_takes_is_not_refused(address: str) -> None:
    for bracketed in (f"<{address}>", address):
        if taken_by_receiver("FROM:<> SMTPUTF8", f"TO:{bracketed}"):
            assert Client().takes("FROM:<> SMTPUTF8", f"TO:{bracketed}")
        if taken_by_receiver(f"FROM:{bracketed} SMTPUTF8"):
            assert Client().takes(f"FROM:{bracketed} SMTPUTF8")
    if taken_by_receiver("FROM:<> SMTPUTF8", f"TO:<{address}>"):
        assert wrong_address(address) == ""


@given(st.lists(st.sampled_from(MAIL), max_size=3), st.lists(st.sampled_from(RCPT), max_size=2))
def test_parameters_are_refused_where_a_receiver_refuses_them(mail: list[str], rcpt: list[str]) -> None:
    said = f"FROM:<a@x>{''.join(mail)}", f"TO:<b@x>{''.join(rcpt)}"
    assert Client().takes(*said) == taken_by_receiver(*said)


@pytest.mark.parametrize(
    "address",
    [
        "bad@@b", "a b@x", "a@x b@x", "", "@x", "a@", "a,b@x", "a@x..y", "a@-x", "a@" + "y" * 64, "<a@x",
        "a@x>", "x" * 65 + "@y", "a@[x y]", "a%b", "\udcff@x", '"a@x', "a:b@x", "@r:a@x", "a@x_.-", "root,",
        "a(b)@x",
    ],
)  # fmt: skip
def test_a_malformed_address_is_refused_as_a_receiver_does(address: str) -> None:
    assert not taken_by_receiver("FROM:<> SMTPUTF8", f"TO:<{address}>")
    assert wrong_address(address)


def test_what_is_not_known_here_is_not_judged() -> None:
    assert wrong_parameters(["XNEW=x", "SIZE=1"]) == ""
