"""Event delivery: a cursor over the ledger, and the requests that are made from the lines behind it."""
