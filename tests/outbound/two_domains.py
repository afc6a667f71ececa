"""A small internet: two domains, two exchangers."""

BOB, EVE = "bob@one.test", "eve@two.test"


MX1, MX2 = "127.0.0.11", "127.0.0.12"


ZONE = {
    ("one.test", "MX"): ["10 mx1.one.test.", "20 mx2.one.test."],
    ("mx1.one.test", "A"): [MX1],
    ("mx2.one.test", "A"): [MX2],
    ("two.test", "A"): [MX2],
}
