"""What a server's reply is about: bytes and phase in, a typed reading out.

No policy and no I/O: what follows from a reading is decided by `mailer.send.trouble`.
"""
