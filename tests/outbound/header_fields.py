"""Header fields with recipients, drawn at random."""

from hypothesis import strategies as st

BOB, EVE, ZOE = "bob@example.net", "eve@example.org", "zoe@xn--bcher-kva.example"


QUOTED = '"a b,c"@example.net'


LITERAL = "root@[192.0.2.1]"


OTHERS = ("mallory@example.com", "x@example.com", "BOB@example.net", "bob@example.net.example.com")


KNOWN = (BOB, EVE, ZOE, QUOTED, LITERAL)


words = st.sampled_from(
    ["Bob", '"Doe, Bob"', '"a@b.example"', '"\\"x\\" y"', "=?utf-8?q?J=C3=B6rg?=", "=?utf-8?b?QEIsYQ==?=",
     "J. R.", "=?utf-8?q?mallory=40example=2Ecom=2C?=", "Jörg", "(a comment, x@example.com)", "=?x?", ""]
)  # fmt: skip


blank = st.sampled_from(["", " ", "\r\n ", "\r\n\t", " (c) ", "\r\n \r\n ", "\t"])


@st.composite
def mailboxes(draw: st.DrawFn) -> str:
    address = draw(st.sampled_from((*KNOWN, *OTHERS)))
    match draw(st.integers(0, 6)):
        case 0:
            return address
        case 1 | 2:
            return f"{draw(words)}{draw(blank)}<{address}>{draw(blank)}"
        case 3:
            others = ", ".join(draw(st.lists(st.sampled_from((*KNOWN, *OTHERS)), max_size=3)))
            return f"us:{draw(blank)}{others};"
        case 4:
            return f"<@relay.example:{address}>"
        case 5:
            return address.replace("@", f"{draw(blank)}@{draw(blank)}")
    return draw(st.text(st.characters(codec="latin-1", exclude_characters="\r\n\0"), max_size=20))


@st.composite
def fields(draw: st.DrawFn) -> bytes:
    name = draw(
        st.sampled_from(
            ["To", "Cc", "Bcc", "TO", "cC", "To ", "Resent-To", "Resent-Cc", "Resent-Bcc", "Subject", "X-To",
             "Reply-To", "\x0bTo", "To\x0b", " To", "From bob", "X-Original-To"]
        )
    )  # fmt: skip
    separator = draw(st.sampled_from([",", ", ", ",\r\n ", ",,", ";", ",\r\n\t"]))
    value = separator.join(draw(st.lists(mailboxes(), max_size=4)))
    colon = draw(st.sampled_from([":", ": ", ":\r\n ", ""])) if draw(st.booleans()) else ": "
    end = draw(st.sampled_from(["\r\n", "\r\n", "\r\n", "\n", "\r"]))
    return f"{name}{colon}{value}".encode("latin-1", "replace") + end.encode()
