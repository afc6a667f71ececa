"""The record of what happened to mail: one function per event, and the ledger that they write to."""
