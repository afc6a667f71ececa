"""Whatever stands in a message or in DNS, `verify` judges it and does not break."""

import asyncio

from hypothesis import given
from hypothesis import strategies as st

from mailer.send.dkim.verify import Result, verify

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
