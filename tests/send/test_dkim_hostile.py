"""Whatever stands in a message or in DNS, `verify` judges it, does not break, and comes to an end."""

import asyncio
import base64
import sys
from pathlib import Path

import dkim
import pytest
from dkim.canonicalization import Relaxed, Simple
from hypothesis import given
from hypothesis import strategies as st
from testbed.name_server import NameServer
from testbed.relay import Relay

from mailer.send.dkim.opened import Opened, Unreadable
from mailer.send.dkim.verify import MAX_SIGNATURES, Result, verify

_tag = st.sampled_from(
    [
        "v=1",
        "a=rsa-sha256",
        "a=ed25519-sha256",
        "a=x",
        "b=AAAA",
        "b=",
        "bh=AAAA",
        "d=example.com",
        "d=\x1b[1m",
    ]
) | st.sampled_from(
    ["s=s", "h=from", "h=", "c=relaxed/relaxed", "c=?", "x=1", "t=99999999999", "l=-1", "=", "b", "i=@a"]
)
_record = st.one_of(
    st.text(max_size=30),
    st.lists(
        st.sampled_from(
            [
                "v=DKIM1",
                "v=2",
                "k=rsa",
                "k=ed25519",
                "k=x",
                "p=",
                "p=AAAA",
                "p=?",
                "s=x",
                "p=" + "A" * 43 + "=",
            ]
        )
    ).map("; ".join),
)


class Answers:
    def __init__(self, records):
        self.records = records

    async def texts(self, name):
        return self.records


@given(
    signature=st.lists(_tag).map("; ".join),
    header=st.binary(max_size=30),
    records=st.lists(_record, max_size=2),
)
def test_any_signature_and_any_record_have_a_verdict(signature, header, records):
    message = (
        b"DKIM-Signature: " + signature.encode() + b"\r\nFrom: a@example.com\r\n" + header + b"\r\n\r\nbody"
    )
    verdicts = asyncio.run(verify(message, Answers(records)))
    for verdict in verdicts:
        assert verdict.result is not Result.PASS
        assert verdict.reason
        assert all(text.isprintable() for text in (verdict.domain, verdict.selector, verdict.reason))


# Nobody's: its private half was not kept.
KEY = (
    "v=DKIM1; k=rsa; p="
    "MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAoipIXt23eBBoJ1kpvhEXom83tngHnGsnYQULOKVrViYXrb"
    "R6Ekmvq6iUoEUzvnBvCBMWytSszWlajMQ17gkwhevH/Z9TkE3OgqaKjshCID8LPi4k86uBnuAr7Xe9b0sLku+zFE8M"
    "UMm46X2GuFJriYj0XOA7ZJ8e+MH7TCxjpwL/1QkuokyEsOY5JygrWFWA5jhyVVGXTIEF3YXBIkHcAWFXGnr+eQbMMH"
    "j2XEN3ZJdNpCK2fvhFaIt+Re4pOZtG803EX6y31JFS21KzZdEuQxtTbtqHZcRKmsAWv+nRGRZh6+MSx05ScljDuna9"
    "VI3xK4Lq1niH0x+2UZzGDGddOwIDAQAB"
)
EMPTY_BODY = "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
COMPLETE = f"v=1; c=relaxed/relaxed; d=example.com; s=s; h=from; bh={EMPTY_BODY}; "


@given(
    algorithm=st.sampled_from(["rsa-sha256", "ed25519-sha256"]),
    b=st.sampled_from(["AAAA", "A" * 86 + "==", "A" * 344]),
    records=st.lists(_record, min_size=1, max_size=1),
)
def test_a_complete_signature_by_nobody_never_passes(algorithm, b, records):
    field = f"{COMPLETE}a={algorithm}; b={b}".encode()
    message = b"DKIM-Signature: " + field + b"\r\nFrom: a@example.com\r\n\r\n"
    [verdict] = asyncio.run(verify(message, Answers(records)))
    assert verdict.result is Result.FAIL


SIGNED = f"DKIM-Signature: {COMPLETE}a=rsa-sha256; b={'A' * 344}\r\nFrom: a@example.com\r\n".encode()
MANY = 10_000_000


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (SIGNED + b"\r\n" + b" " * MANY + b"x\r\n", "body hash mismatch"),
        (SIGNED + b"\r\n" + b"\t" * MANY, "body hash mismatch"),
        (SIGNED + b"\r\n" + b" \n" * (MANY // 2), "does not fit"),
        (SIGNED + b"\r\n" + b"\r\n" * (MANY // 2), "does not fit"),
        (SIGNED + b" x\r\n" * 120_000 + b"\r\nx", "body hash mismatch"),
        (SIGNED + b" x\r\n" * (MANY // 4) + b"\r\nx", "header has more than"),
        (SIGNED + b"a:\r\n" * 100_000 + b"\r\nx", "header has more than"),
        (SIGNED.replace(b"h=from", b"h=from" + b" " * 7000 + b"?") + b"\r\nx", "200 blanks in a row"),
        (SIGNED.replace(b"h=from", b"h=" + b"a:" * 7000) + b"\r\nx", "signature field of more than"),
        (b" x\r\n" + SIGNED + b"\r\nx", "line 1 of its header is not a field"),
    ],
)
def test_security_case_115_a_hostile_file_takes_seconds_and_little_memory(message: bytes, said: str) -> None:
    """Each takes hours, or a hundred times its size, where the work is the square of something in it."""
    [verdict] = asyncio.run(verify(message, Answers([KEY])))
    assert said in verdict.reason
    assert verdict.result in {Result.FAIL, Result.PERMANENT}


_PEAK = """import resource, subprocess, sys
code = subprocess.run(sys.argv[2:], check=False).returncode
with open(sys.argv[1], "w") as report:
    report.write(str(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss))
sys.exit(code)
"""
"""Runs a command and writes its peak memory in KiB. Of our own children another test's may be the largest."""


def test_security_case_115_by_the_command(relay: Relay, tmp_path: Path) -> None:
    """1,500 signatures over 10 MB of blanks: ten are verified, and it is said."""
    short = b"DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d=a.b; s=s; h=from; bh=AAAA; b=AAAA\r\n"
    file = relay.directory / "hostile.eml"
    file.write_bytes(short * 1500 + b"From: a@example.com\r\n\r\n" + b" " * MANY + b"x")
    with NameServer({("s._domainkey.a.b", "TXT"): [f'"{KEY[:200]}" "{KEY[200:]}"']}) as server:
        verified = relay.mailer(
            *("dkim", "verify", "--resolver", str(server), str(file)),
            under=(sys.executable, "-c", _PEAK, str(tmp_path / "peak")),
        )
    assert verified.returncode == 1, verified.stderr
    lines = verified.stdout.splitlines()
    assert len(lines) == MAX_SIGNATURES + 1
    assert "1490 more signatures, which are not verified" in lines[-1]
    # A pattern over the blanks takes gigabytes.
    assert int((tmp_path / "peak").read_text()) < 600 * 1024


def test_a_key_that_takes_minutes_to_compute_with_is_refused() -> None:
    [verdict] = asyncio.run(verify(SIGNED + b"\r\n", Answers(["v=DKIM1; p=" + "A" * 10_000])))
    assert (verdict.result, "more than 4096 characters" in verdict.reason) == (Result.PERMANENT, True)


def record_of(modulus: int, exponent: int) -> str:
    def integer(value: int) -> bytes:
        data = value.to_bytes(value.bit_length() // 8 + 1)
        return b"\x02\x82" + len(data).to_bytes(2) + data

    numbers = integer(modulus) + integer(exponent)
    return "v=DKIM1; p=" + base64.b64encode(b"\x30\x82" + len(numbers).to_bytes(2) + numbers).decode()


@pytest.mark.parametrize(
    ("modulus", "exponent", "said"),
    [
        (12_000, 12_000, "the modulus of the RSA key has 12000 bits, more than 8192"),
        (4096, 4000, "the publicExponent of the RSA key has 4000 bits, more than 64"),
        (4096, 17, "does not fit"),
        (8192, 64, "does not fit"),
    ],
)
def test_a_key_whose_numbers_take_seconds_is_refused_in_a_sentence(modulus, exponent, said) -> None:
    """RFC 8301 3.2: 4,096 bits must do. By the first one a signature took 8.4 s, and a file has ten."""
    signed = SIGNED.replace(b"A" * 344, b"A" * (4 * (-(-modulus // 24))))
    record = record_of(2**modulus - 1, 2**exponent - 1)
    assert len(record) <= 4096
    [verdict] = asyncio.run(verify(signed + b"\r\n", Answers([record])))
    assert said in verdict.reason
    assert (verdict.result is Result.PERMANENT) == ("more than" in said)


_pieces = st.lists(
    st.sampled_from([b" ", b"\t", b"\r\n", b"\n", b"\r", b"a", b" \r\n", b"\x0c", b"b" * 9]), max_size=30
).map(b"".join)


@given(body=_pieces)
def test_the_prepared_body_has_the_forms_that_dkimpy_gives_it(body: bytes) -> None:
    opened = Opened.of(b"From: a@example.com\r\n\r\n" + body)
    theirs = dkim.DKIM(b"From: a@example.com\r\n\r\n" + body).body
    assert opened.body == theirs
    assert Simple.canonicalize_body(opened.simple) == Simple.canonicalize_body(theirs)
    form = Simple if opened.relaxed else Relaxed
    assert form.canonicalize_body(opened.relaxed) == Relaxed.canonicalize_body(theirs)


@given(header=st.lists(st.sampled_from([b"A: b", b" c", b"\td", b"From x", b"no field", b"e:", b"f: g:h"])))
def test_the_header_has_the_fields_that_dkimpy_finds(header: list[bytes]) -> None:
    whole = b"From: a@example.com\r\n" + b"".join(line + b"\r\n" for line in header)
    try:
        theirs = [tuple(each) for each in dkim.DKIM(whole + b"\r\nbody").headers]
    except dkim.MessageFormatError:
        with pytest.raises(Unreadable):
            Opened.of(whole + b"\r\nbody")
    else:
        assert Opened.of(whole + b"\r\nbody").fields == theirs
