"""What is secret is masked in whatever encoding a server quotes it."""

import json
from base64 import b64encode, urlsafe_b64encode
from urllib.parse import quote, quote_plus

import pytest

from mailer.mail.masking import masked

SECRETS = (
    "S3cr/et+va lue=99",
    "1//0gAbCdEf-GhIjKlMnOpQrStUvWxYz_0123",
    "ab+/==",
    "p\xe4$$w&rd\"\\x, <y>; and {more} of `it'",
    "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJzdmNAcHJvamVjdC5leGFtcGxlIn0.c2lnbmF0dXJlLW9mLWl0",
)
ENCODINGS = {
    "as it is": str,
    "a form": quote_plus,
    "a form in lower case": lambda secret: quote_plus(secret).lower(),
    "an address": quote,
    "an address without slashes": lambda secret: quote(secret, safe=""),
    "a form in a form": lambda secret: quote_plus(quote_plus(secret)),
    "JSON": json.dumps,
    "JSON with slashes escaped": lambda secret: json.dumps(secret).replace("/", "\\/"),
    "JSON in UTF-8": lambda secret: json.dumps(secret, ensure_ascii=False),
    "JSON as some write it": lambda secret: "".join(
        each if each.isalnum() else f"\\u{ord(each):04x}" for each in secret
    ),
    "HTML": lambda secret: "".join(each if each.isalnum() else f"&#{ord(each)};" for each in secret),
    "base64": lambda secret: b64encode(secret.encode()).decode(),
    "Basic of Mailgun": lambda secret: b64encode(f"api:{secret}".encode()).decode(),
    "Basic of a client": lambda secret: b64encode(f"client:{secret}".encode()).decode(),
    "base64 in a form": lambda secret: quote_plus(b64encode(f"cli:{secret}".encode())),
    "base64 for addresses": lambda secret: urlsafe_b64encode(f"{secret}:x".encode()).decode(),
}


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_secret_is_masked_in_every_encoding(secret: str, encoding: str) -> None:
    written = ENCODINGS[encoding](secret)
    shown = masked(f"refused: x={written}&scope=mail and more", [secret])
    assert shown.startswith("refused: x=")
    assert shown.endswith("&scope=mail and more")
    assert "***" in shown
    # Of base64 the octets of the name in front may stay.
    left = shown.removeprefix("refused: x=").removesuffix("&scope=mail and more").strip('"')
    assert len(left.replace("***", "")) <= (12 if "ase64" in encoding or "Basic" in encoding else 0)


@pytest.mark.parametrize("secret", [SECRETS[1], SECRETS[4]])
@pytest.mark.parametrize("encoding", ["as it is", "a form", "JSON with slashes escaped", "base64"])
def test_a_secret_that_is_quoted_in_part_is_masked(secret: str, encoding: str) -> None:
    written = ENCODINGS[encoding](secret).strip('"')
    assert masked(f"it begins with {written[:-4]}", [secret]) == "it begins with ***"


def test_the_parts_of_a_signed_request_are_masked_also_alone() -> None:
    token = SECRETS[-1]
    for part in token.split("."):
        assert masked(f"the part {part} is not taken", [token]) == "the part *** is not taken"


def test_honest_words_stay() -> None:
    words = (
        "invalid_client: AADSTS7000215: Invalid client secret provided. Ensure it is the value, not the ID."
    )
    assert masked(words, ["", "abc", *SECRETS]) == words
    assert masked("a word", ["a", "word"]) == "a word"
