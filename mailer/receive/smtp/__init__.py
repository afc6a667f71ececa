"""The server's side of SMTP: one connection, its commands, and the transaction that they build."""
