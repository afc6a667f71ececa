"""What happened to mail, for whoever asks later: one function per event, and the ledger they write to."""
