"""Reading messages without locking them: listings, `show`, `why`, and what keeps mail waiting."""
