"""Classify server replies: text and phase in, a typed reading out.

There is no policy and no I/O here; `mailer.send.trouble` decides what follows from a reading.
"""
