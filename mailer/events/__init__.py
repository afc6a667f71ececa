"""Event delivery: a cursor over the ledger, and requests built from the lines after it."""
