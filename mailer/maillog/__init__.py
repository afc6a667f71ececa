"""The record of what happened to mail: one method per event, and the ledger that they write to."""
