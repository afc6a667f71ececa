"""Telling others what became of mail: a cursor over the ledger, and what is sent from there."""
