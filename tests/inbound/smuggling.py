"""Ends of data that are none, with which messages are smuggled."""

SEQUENCES = [
    *(b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r.\n", b"\r.\r\n", b"\n.\r", b"\r\n.\r"),
    *(b"\r\n.\r\r\n", b"\r\r\n.\r\r\n", b"\r\n\0.\r\n", b"\r\n..\r\n", b"\r\n. \r\n", b"\r\n.\r\n"),
]
