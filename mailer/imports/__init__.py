"""Readers of other relays' queues, for `mailer import`; each queue is read in place."""
